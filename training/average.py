"""The running average of the weights that are trained, which deltas and previews have."""

import contextlib
from collections.abc import Iterable, Iterator

import torch
from diffusers.training_utils import EMAModel
from torch import Tensor


class RunningAverage(EMAModel):
    """diffusers' average on a device of its own, without a copy of the weights at each step where that is theirs."""

    def __init__(self, weights: Iterable[torch.nn.Parameter], decay: float, device: torch.device):
        super().__init__(weights, decay, foreach=True)
        self.device = device
        self.to(device)

    @torch.no_grad()
    def step(self, weights: Iterable[Tensor]) -> None:
        self.optimization_step += 1
        self.cur_decay_value = self.get_decay(self.optimization_step)
        share, weights = 1 - self.cur_decay_value, [weight.detach() for weight in weights]
        if weights[0].device == self.device:
            torch._foreach_lerp_(self.shadow_params, weights, share)
        else:
            for average, weight in zip(self.shadow_params, weights, strict=True):
                average.lerp_(weight.to(self.device), share)

    def load_state_dict(self, state: dict[str, object]) -> None:
        super().load_state_dict(state)
        self.to(self.device)  # accelerate has read it onto the CPU


@contextlib.contextmanager
def averaged(average: RunningAverage | None, weights: list[torch.nn.Parameter]) -> Iterator[None]:
    """The running average in place of the weights inside, which wait on the CPU; None: the weights themselves."""
    if average is None:
        yield
        return
    average.store(weights)
    average.copy_to(weights)
    try:
        yield
    finally:
        average.restore(weights)
