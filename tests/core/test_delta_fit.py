"""NaN, Inf, and changes that a model's precision cannot hold."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from perflow_core.weights.delta_changes import Change, Factors
from perflow_core.weights.delta_fit import DeltaFit, check_numbers
from perflow_core.weights.unet_layout import UNetLayout
from perflow_core.weights.weights_file import WeightsFileError, inspect


@pytest.fixture
def file(tmp_path):
    """What a file is; its numbers are given apart."""
    save_file({"w": torch.zeros(1)}, str(tmp_path / "some.safetensors"))
    return inspect(Path(tmp_path / "some.safetensors"))


def numbers(file, state, strength=1.0, dtype=torch.float32, known=None):
    """Check what a file holds, as a change of one weight for each tensor."""
    changes = {key: Change(key, tuple(tensor.shape), {key: tensor}) for key, tensor in state.items()}
    check(file, changes, strength, dtype, known)


def check(file, changes, strength=1.0, dtype=torch.float32, known=None):
    unet = UNetLayout({}, dict.fromkeys(changes, dtype), {}, {})
    check_numbers(DeltaFit(file, unet, changes, [], []), strength, {} if known is None else known)


def pair(up, down, scale=1.0, size=8):
    """A low-rank change whose factors hold one number each."""
    up, down = torch.full((size, 2), up), torch.full((2, size), down)
    return {"w": Change("w", (size, size), {"w.up": up, "w.down": down}, Factors(up, down, 2 * scale))}


@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_nan_and_inf(file, value, dtype):
    state = {"conv_in.weight": torch.zeros(4, 4, 3, 3, dtype=dtype)}
    numbers(file, state)
    state["conv_in.weight"][1, 2, 0, 1] = value
    with pytest.raises(WeightsFileError, match=r"tensor conv_in\.weight holds NaN or Inf"):
        numbers(file, state)


@pytest.mark.parametrize(
    ("value", "dtype", "strength"),
    [
        (1e300, torch.float64, 1.0),
        (3.38e38, torch.bfloat16, 1.0),
        (1e38, torch.float32, 1.0),
        (-3e38, torch.float32, 10.0),
        (60000.0, torch.float16, 2.0),
        (60000.0, torch.float16, -2.0),
    ],
)
def test_numbers_that_overflow(file, value, dtype, strength):
    with pytest.raises(WeightsFileError, match=r"tensor w times strength -?\d+ reaches [^ ]+, expected at most 65504,"):
        numbers(file, {"w": torch.full((3,), value, dtype=dtype)}, strength)


def test_numbers_that_do_not(file):
    numbers(file, {"w": torch.tensor([60000.0, -60000.0])})
    numbers(file, {"w": torch.tensor([1e6])}, strength=0.01)
    numbers(file, {"w": torch.tensor([400.0])}, dtype=torch.float8_e4m3fn)
    with pytest.raises(WeightsFileError, match="expected at most 448,"):
        numbers(file, {"w": torch.tensor([500.0])}, dtype=torch.float8_e4m3fn)


@pytest.mark.parametrize(
    ("up", "down", "scale"), [(1e30, 1e30, 1.0), (1e30, 1e30, 1e-60), (1.0, 1.0, 1e38), (300, 300, 1)]
)
def test_products_that_overflow(file, up, down, scale):
    with pytest.raises(WeightsFileError, match="tensor w times strength 1 reaches"):
        check(file, pair(float(up), float(down), float(scale)))


def test_products_that_do_not(file):
    """Factors that could overflow together and do not are multiplied out."""
    check(file, pair(1.0, 0.5, 0.25))
    apart = pair(0.0, 0.0)
    apart["w"].factors.up[0, 0] = apart["w"].factors.down[1, 0] = 1e4
    check(file, apart)


def test_what_was_read_is_not_read_again(file):
    known = {}
    state = {"w": torch.tensor([2.0])}
    numbers(file, state, known=known)
    assert known == {"w": 2.0}
    state["w"][0] = float("nan")  # nobody looks
    numbers(file, state, strength=0.5, known=known)
