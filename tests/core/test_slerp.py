"""Noise between two noises."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from perflow_core.sampling.slerp import slerp


def noise(seed, shape=(1, 4, 16, 16)):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@settings(deadline=None)
@given(frames=st.integers(2, 40), seed=st.integers(0, 1000))
def test_ends_are_the_two_noises_to_the_bit(frames, seed):
    z0, z1 = noise(seed), noise(seed + 1)
    path = slerp(z0, z1, frames)
    assert path.shape == (frames, 4, 16, 16)
    assert path.dtype == z0.dtype
    assert torch.equal(path[:1], z0)
    assert torch.equal(path[-1:], z1)


@pytest.mark.parametrize("angle", [0.1, 1.0, math.pi / 2, 3.0])
def test_the_circle_in_a_plane(angle):
    """Unit vectors: frame a stands at angle a th, exactly."""
    z0, z1 = torch.tensor([[[1.0, 0.0]], [[math.cos(angle), math.sin(angle)]]], dtype=torch.float64)
    turned = torch.linspace(0, angle, 9, dtype=torch.float64)
    expected = torch.stack([turned.cos(), turned.sin()], dim=1)
    assert torch.allclose(slerp(z0, z1, 9), expected, rtol=0, atol=1e-14)


@settings(deadline=None)
@given(seed=st.integers(0, 1000))
def test_frames_are_as_long_as_the_ends(seed):
    z0, z1 = noise(seed), noise(seed + 1)
    lengths = slerp(z0, z1, 16).flatten(1).norm(dim=1)
    ends = sorted([float(z0.norm()), float(z1.norm())])
    assert ends[0] * (1 - 1e-3) < lengths.min()
    assert lengths.max() < ends[1] * (1 + 1e-3)


@pytest.mark.parametrize("frames", [1, 2, 16])
def test_equal_seeds_stand_still(frames):
    assert torch.equal(slerp(noise(3), noise(3), frames), noise(3).expand(frames, -1, -1, -1))


def test_one_frame_is_the_first():
    assert torch.equal(slerp(noise(1), noise(2), 1), noise(1))
