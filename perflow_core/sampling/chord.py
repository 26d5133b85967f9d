"""The window chord: PeRFlow's straight path, seen in ComfyUI's sigma space.

Inside a window the trained path z(t) = c(t) x0 + s(t) eps runs linearly in t from edge to edge, and so do its two
coefficients: c and s are piecewise linear, with a knot at every edge. After dividing by c the path is still straight:
with X = z / c and sigma = s / c a PeRFlow step is a plain Euler step in sigma.

A flow model is straight in sigma itself: c = 1 and s = sigma, and eps is the velocity v.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple, TypeVar

import numpy as np
import torch
from torch import Tensor

from ..errors import listed
from ..host import host_float64
from . import tolerances
from .windows import NUM_TIMESTEPS, Float64, Windows, by_window, checked_edges, edge_entries

NARROWEST = 2 * tolerances.EDGE / NUM_TIMESTEPS  # of a flow model's windows: no level is on two edges
Time = TypeVar("Time", Tensor, Float64)


class Place(NamedTuple):
    """Noise levels on the path, with what is constant in the window of each; all of one shape.

    From s = sigma c, with c and s linear in T, 1 / c and T / c are linear in sigma inside a window: the table has their
    values at sigma = 0 and their slopes.
    """

    sigma: Tensor
    inverse_c_0: Tensor
    inverse_c_slope: Tensor
    T_over_c_0: Tensor
    T_over_c_slope: Tensor
    T_s: Tensor  # where the window starts
    r: Tensor  # eta_diff / eta_ddim: turns a diff_eps output into the eps of the chord
    dc_dt: Tensor
    ds_dt: Tensor

    @property
    def inverse_c(self) -> Tensor:
        return torch.addcmul(self.inverse_c_0, self.sigma, self.inverse_c_slope)

    @property
    def c(self) -> Tensor:
        """The signal: X = z / c. Above the top of the path it is s_top / sigma, so that z keeps its variance."""
        return self.inverse_c.reciprocal()

    @property
    def T(self) -> Tensor:
        """The timestep in 0..1000. A level within the tolerance above an edge is on it.

        Fractions are kept, but float32 noise around a whole timestep is not: the official grid is made of integers.
        """
        T_over_c = torch.addcmul(self.T_over_c_0, self.sigma, self.T_over_c_slope)
        T = torch.minimum(T_over_c / self.inverse_c, self.T_s)
        whole = T.round()
        return torch.where((T - whole).abs() < tolerances.WHOLE, whole, T)


@dataclass(frozen=True)
class WindowChord:
    """Signal c and noise s at the K + 1 window edges, from noise down to data; each of shape [K + 1].

    t: the time in which both are straight between edges, from 1 down to 0. For a flow model that is sigma, and its
    windows are in the time u before the shift a: t = a u / (1 + (a - 1) u). For Stable Diffusion a = 1, and t = u.

    `rows` [K + 2, 8] is what `at` looks up, and `ends` [K + 1] are the levels between one row and the next, rising: off
    the path below, the K windows from the data on, off the path above.

    Every method works on tensors of any shape in the dtype and on the device of these tables (see `to`), without
    branching on values, so nothing waits for a GPU.
    """

    windows: Windows
    shift: float
    t: Tensor
    c: Tensor
    s: Tensor
    ends: Tensor
    rows: Tensor

    @classmethod
    def from_alphas_cumprod(cls, alphas_cumprod: Tensor, K: int) -> "WindowChord":
        """c = sqrt(ab), s = sqrt(1 - ab) at the edges, ab being the 1000 cumulative alphas of the base model.

        The entry of each edge is in `windows.edge_entries`.
        Raises ValueError for a table of another length, or K outside 1..100.
        """
        if alphas_cumprod.shape != (NUM_TIMESTEPS,):
            raise ValueError(
                f"The noise table has shape {tuple(alphas_cumprod.shape)}, expected ({NUM_TIMESTEPS},): "
                "use a Stable Diffusion model with its own noise schedule."
            )
        windows = Windows.even(K)
        alpha_bar = host_float64(alphas_cumprod)[edge_entries(K)]
        return cls.through(windows, 1.0, alpha_bar.sqrt(), (1 - alpha_bar).sqrt())

    @classmethod
    def of_flow(cls, edges: Sequence[float], shift: float) -> "WindowChord":
        """c = 1, s = sigma, through the edges of a flow model's windows, given as sigmas; shift: the model's own, a.

        Edges that end above 0 or begin below 1 are a part of the path (`Windows.span`). Raises ValueError for edges
        that do not fall inside 1..0, or more than 100 windows.
        """
        own = np.array(checked_edges(edges), dtype=np.float64)
        sigma = np.concatenate([[1.0] * bool(own[0] < 1), own, [0.0] * bool(own[-1] > 0)])
        start, end = unshifted(own[[0, -1]], shift).tolist()
        u = unshifted(sigma, shift)
        if (narrowest := float(-np.diff(u).max())) < NARROWEST:
            raise ValueError(
                f"The window edges {listed(edges[:9])} make a window of {narrowest:.1g} of the path's time at shift "
                f"{shift:.4g}, expected at least {NARROWEST:g} for each: move the edges apart."
            )
        windows, s = Windows(u, False, (start, end)), torch.from_numpy(sigma)
        return cls.through(windows, shift, torch.ones_like(s), s)

    @classmethod
    def through(cls, windows: Windows, shift: float, c: Tensor, s: Tensor) -> "WindowChord":
        """The chord through K + 1 edges in float64 on the CPU, with its tables.

        r = eta_diff / eta_ddim turns a diff_eps output into the eps of the chord. With lam = c_e / c_s and
        gamma = 1 / lam: eta_ddim = s_e - lam s_s, eta_diff = -sqrt(1 - gamma^2) / gamma.
        """
        t = torch.from_numpy(shifted(windows.edges, shift))
        sigma, dc_dt, ds_dt = s / c, c.diff() / t.diff(), s.diff() / t.diff()
        lam = c[1:] / c[:-1]
        r = -(lam**2 - 1).sqrt() / (s[1:] - lam * s[:-1])
        at_edges = torch.stack([1 / c, NUM_TIMESTEPS * t / c])
        slope = at_edges.diff() / sigma.diff()
        at_0 = at_edges[:, :-1] - slope * sigma[:-1]

        def column(below: Tensor | float, windows: Tensor, above: Tensor | float) -> Tensor:
            return torch.cat([t.new_tensor([below]), windows.flip(0), t.new_tensor([above])])

        columns = [  # as in `Place`, without sigma
            column(1 / c[-1], at_0[0], 0.0),
            column(0.0, slope[0], 1 / s[0]),
            column(0.0, at_0[1], 0.0),
            column(0.0, slope[1], NUM_TIMESTEPS / s[0]),
            column(0.0, NUM_TIMESTEPS * t[:-1], NUM_TIMESTEPS),
            *(column(constant[-1], constant, constant[0]) for constant in (r, dc_dt, ds_dt)),
        ]
        tolerance = tolerances.EDGE / NUM_TIMESTEPS
        raised = (s[1:-1] + tolerance * ds_dt[:-1]) / (c[1:-1] + tolerance * dc_dt[:-1])
        return cls(windows, shift, t, c, s, column(sigma[-1], raised, sigma[0]), torch.stack(columns, dim=-1))

    def to(self, device: torch.device | str, dtype: torch.dtype) -> "WindowChord":
        """The same chord with its tables on another device or in another dtype."""
        tables = (self.t, self.c, self.s, self.ends, self.rows)
        return WindowChord(self.windows, self.shift, *(host_float64(table).to(dtype).to(device) for table in tables))

    @property
    def K(self) -> int:
        return self.windows.K

    @property
    def own_edges(self) -> list[float]:
        """The sigmas of the edges of the windows that a model is for (`Windows.span`)."""
        own = self.windows.own
        edges: list[float] = (self.s / self.c)[own.start : own.stop + 1].tolist()
        return edges

    def at(self, sigma: Tensor) -> Place:
        """Everything about noise levels, by one lookup. A level on an edge is in the window that it starts."""
        sigma = sigma.to(self.ends.dtype)
        return Place(sigma, *self.rows[torch.bucketize(sigma, self.ends)].unbind(-1))

    def window(self, sigma: Tensor) -> Tensor:
        """The number of a level's window, 0 being the noisiest; int64."""
        return (self.K - torch.bucketize(sigma, self.ends)).clamp(0, self.K - 1)

    def coefficients(self, T: Tensor) -> tuple[Tensor, Tensor]:
        """c(T), s(T) at timestep T in 0..1000 (clamped)."""
        t = shifted((T / NUM_TIMESTEPS).clamp(0, 1), self.shift)
        w = (t[..., None] <= self.t[1:-1]).sum(dim=-1)
        u = (t - self.t[w]) / (self.t[w + 1] - self.t[w])
        return torch.lerp(self.c[w], self.c[w + 1], u), torch.lerp(self.s[w], self.s[w + 1], u)

    def sigma(self, T: Tensor) -> Tensor:
        """sigma(T) = s / c, strictly increasing in T; T in 0..1000."""
        c, s = self.coefficients(T)
        return s / c

    def timestep(self, sigma: Tensor) -> Tensor:
        """T of a noise level, the inverse of `sigma`; see `Place.T`. For a flow model T = 1000 u, at most 1000."""
        if self.windows.whole:
            return self.at(sigma).T
        return NUM_TIMESTEPS * unshifted(sigma.to(self.t).clamp(max=1), self.shift)

    def signal(self, sigma: Tensor) -> Tensor:
        """c(sigma), what brings X = z / c back to the latent z that the UNet was trained on; see `Place.c`."""
        return self.at(sigma).c

    def by_window(self, T: Float64) -> str:
        """Where steps stand, by window, as users know it: timesteps, or a flow model's sigmas."""
        if self.windows.whole:
            return by_window(T, self.windows)
        path = self.to("cpu", torch.float64)
        return " | ".join(
            " ".join(f"{sigma:.3g}" for sigma in path.sigma(torch.from_numpy(of_one)).tolist())
            for of_one in self.windows.of_each(T)
        )

    def path_timesteps(self, sigmas: Tensor) -> Float64:
        """The timesteps of a list of sigmas [n], in float64 on the host (the one wait for the device); [n]."""
        return self.to("cpu", torch.float64).timestep(host_float64(sigmas)).numpy()


def shifted(u: Time, shift: float) -> Time:
    """t = a u / (1 + (a - 1) u): a flow model's sigma at the time u (Esser et al. 2024, Eq. 23). With a = 1 it is u.

    Written so that 0 and 1 stay exactly that for every a.
    """
    return shift * u / (shift * u + (1 - u))


def unshifted(t: Time, shift: float) -> Time:
    """u = t / (a - (a - 1) t), the inverse of `shifted`."""
    return t / (t + shift * (1 - t))
