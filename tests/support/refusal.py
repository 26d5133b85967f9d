"""A small real MODEL to which the Apply node must refuse a file in one sentence, and leave the MODEL as it was."""

import itertools
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import comfy.sample
import comfy.samplers
import comfy.sd
import comfy.utils
import pytest
import torch
from analytic_model import conditioning
from damage import Draft, Shape
from threads import one_thread
from weights import loaded

DEFAULTS = {"strength": 1.0, "prediction_type": "auto", "windows": 0, "align_steps": True}
SENTENCE = r"[^\n]*, expected [^\n]+: [^\n]+\."  # what was found, what was expected, what to do


@contextmanager
def base_model(comfyui: Any, unet_file: Path) -> "Iterator[Target]":
    """One model for many files; afterwards it has to be what it was."""
    with one_thread():
        target = Target(comfyui, unet_file)
        yield target
        target.assert_unharmed()


class Target:
    """A base model and the Apply PeRFlow Delta node."""

    def __init__(self, comfyui: Any, unet_file: Path):
        self.node = comfyui.nodes["PeRFlowApplyDelta"]
        self.error = comfyui.module("perflow_core.weights.weights_file").WeightsFileError
        self.folder = comfyui.base / "models" / "perflow"
        self.folder.mkdir(parents=True, exist_ok=True)
        self.model = comfy.sd.load_diffusion_model(str(unet_file), model_options={"dtype": torch.float32})
        names = comfy.utils.unet_to_diffusers(self.model.model.model_config.unet_config)
        self.weights = loaded(self.model)
        self.names = {key: "diffusion_model." + ours for key, ours in names.items()}
        self.names = {key: ours for key, ours in self.names.items() if ours in self.weights}
        self.shapes: dict[str, Shape] = {key: tuple(self.weights[ours].shape) for key, ours in self.names.items()}
        self.picture = self.sample(self.model)
        self.untouched = self.state()
        self.numbers = itertools.count()

    def delta(self, metadata: dict[str, str] | None = None) -> Draft:
        """A delta of zeros that fits, with diffusers' names."""
        return Draft.of(self.shapes, metadata=metadata)

    def delta_in_comfyui_names(self) -> Draft:
        return self.delta().with_names(self.names.__getitem__)

    def apply(self, write: Draft | Callable[[Path], Any], **inputs: Any) -> Any:
        """The node's output for a file that is made here and gone afterwards."""
        path = self.folder / f"case-{next(self.numbers)}.safetensors"
        (write.write if isinstance(write, Draft) else write)(path)
        try:
            return self.node.execute(model=self.model, delta_name=path.name, **(DEFAULTS | inputs))
        finally:
            path.unlink()

    def refusal(self, write: Draft | Callable[[Path], Any], **inputs: Any) -> str:
        """The sentence with which the node refuses a file."""
        with pytest.raises(self.error, match=r"^case-\d+\.safetensors\b") as caught:
            self.apply(write, **inputs)
        text = str(caught.value)
        assert re.fullmatch(SENTENCE, text), text
        assert len(text) < 600, text
        assert not re.search(r"\. \S|Traceback", text), text
        assert self.state() == self.untouched
        return text

    def state(self) -> tuple[Any, ...]:
        """All that a node can hang on a MODEL."""
        model = self.model
        return (
            dict(model.patches),
            dict(model.object_patches),
            repr(model.wrappers),
            dict(model.attachments),
            model.patches_uuid,
        )

    def sample(self, model: Any) -> torch.Tensor:
        noise = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))
        euler = comfy.samplers.sampler_object("euler")
        sigmas = comfy.samplers.calculate_sigmas(model.get_model_object("model_sampling"), "simple", 2)
        prompts = conditioning(0.1), conditioning(0.2)
        latent = torch.zeros_like(noise)
        return comfy.sample.sample_custom(model, noise, 2.0, euler, sigmas, *prompts, latent, disable_pbar=True)

    def assert_unharmed(self) -> None:
        """Bit-equal weights, and the same picture as before."""
        after = loaded(self.model)
        assert all(torch.equal(after[key], weight) for key, weight in self.weights.items())
        assert torch.equal(self.sample(self.model), self.picture)
