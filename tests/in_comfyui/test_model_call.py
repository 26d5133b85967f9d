"""What a model call costs besides the UNet: small tensor operations, each of which a GPU's caller has to start."""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

STOCK = 14
MOST = 30


class Operations(TorchDispatchMode):
    """Counts tensor operations."""

    def __init__(self) -> None:
        super().__init__()
        self.count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.count += 1
        return func(*args, **(kwargs or {}))


def operations(sampling) -> int:
    """Of one model call, as ComfyUI makes it: the input's scale, the timestep, x0 from the output."""
    sigma, x = torch.full((2,), 3.0), torch.ones(2, 4, 8, 8)

    def call():
        sampling.calculate_input(sigma, x)
        sampling.timestep(sigma)
        sampling.calculate_denoised(sigma, x, x)

    call()  # moves the tables to the device, once
    with Operations() as counter:
        call()
    return counter.count


def test_stock_is_the_measure(analytic):
    assert operations(analytic.get_model_object("model_sampling")) == STOCK


@pytest.mark.parametrize("prediction_type", ["diff_eps", "ddim_eps", "velocity"])
def test_few_operations_a_call(perflow, prediction_type):
    assert operations(perflow(prediction_type).get_model_object("model_sampling")) <= MOST
