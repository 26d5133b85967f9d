"""Spherical linear interpolation: between two noises it stays noise."""

import torch
from torch import Tensor

from ..host import host_float64
from . import tolerances


def slerp(z0: Tensor, z1: Tensor, frames: int) -> Tensor:
    """z(a) = sin((1 - a) th) / sin th z0 + sin(a th) / sin th z1, a = 0..1 in `frames` steps; th the angle between.

    z0, z1 of shape [1, ...]; returns [frames, ...] in their dtype, computed in float64. The first is z0, the last z1,
    and one frame is z0. The length stays that of the ends, which a straight line would shorten by up to 29 %. Where
    the two are parallel (equal seeds) the straight line is taken.
    """
    a = torch.linspace(0, 1, frames, dtype=torch.float64)
    u, v = host_float64(z0), host_float64(z1)
    angle = torch.arccos(((u * v).sum() / (u.norm() * v.norm())).clamp(-1, 1))
    parallel = angle.sin() < tolerances.PARALLEL
    first = torch.where(parallel, 1 - a, ((1 - a) * angle).sin() / angle.sin())
    last = torch.where(parallel, a, (a * angle).sin() / angle.sin())
    dims = (-1,) + (1,) * (z0.ndim - 1)
    return (first.reshape(dims) * u + last.reshape(dims) * v).to(z0)
