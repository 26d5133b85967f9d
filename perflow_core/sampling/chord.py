"""The window chord: PeRFlow's straight path, seen in ComfyUI's sigma space.

Inside a window the trained path z(t) = c(t) x0 + s(t) eps runs linearly in t from edge to edge, and so do its two
coefficients: c and s are piecewise linear, with a knot at every edge. After dividing by c the path is still straight:
with X = z / c and sigma = s / c a PeRFlow step is a plain Euler step in sigma.
"""

from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from ..host import host_float64
from .windows import EDGE_TOLERANCE, MOST_WINDOWS, NUM_TIMESTEPS, Float64, edge_timesteps, window_edges

NEAR_A_WHOLE_TIMESTEP = 1e-3  # the inverse in float32 is off by up to 1.3e-4 (K = 1..10)


@dataclass(frozen=True)
class WindowChord:
    """Signal c and noise s at the K + 1 window edges t, from t = 1 (noise) down to t = 0; each of shape [K + 1].

    Every method works on tensors of any shape in the dtype and on the device of these tables (see `to`), without
    branching on values, so nothing waits for a GPU.
    """

    t: Tensor
    c: Tensor
    s: Tensor

    @classmethod
    def from_alphas_cumprod(cls, alphas_cumprod: Tensor, K: int) -> "WindowChord":
        """c = sqrt(ab), s = sqrt(1 - ab) at the edges, ab being the 1000 cumulative alphas of the base model.

        Edge t reads entry int(1000 t) - 1, the last edge entry 0, as the official scheduler does.
        Raises ValueError for a table of another length, or K outside 1..100.
        """
        if alphas_cumprod.shape != (NUM_TIMESTEPS,):
            raise ValueError(
                f"The noise table has shape {tuple(alphas_cumprod.shape)}, expected ({NUM_TIMESTEPS},): "
                "use a Stable Diffusion model with its own noise schedule."
            )
        if not 1 <= K <= MOST_WINDOWS:
            raise ValueError(f"{K} windows, expected 1 to {MOST_WINDOWS}: published models use 4.")
        index = torch.tensor([max(NUM_TIMESTEPS * (K - w) // K - 1, 0) for w in range(K + 1)])
        alpha_bar = host_float64(alphas_cumprod)[index]
        return cls(torch.from_numpy(window_edges(K)), alpha_bar.sqrt(), (1 - alpha_bar).sqrt())

    def to(self, device: torch.device | str, dtype: torch.dtype) -> "WindowChord":
        """The same chord with its tables on another device or in another dtype."""
        return WindowChord(*(host_float64(table).to(dtype).to(device) for table in (self.t, self.c, self.s)))

    @property
    def K(self) -> int:
        return len(self.t) - 1

    @property
    def edge_timesteps(self) -> list[float]:
        """The timesteps of the K + 1 edges on the integer grid: K=4 gives 1000 750 500 250 0."""
        return edge_timesteps(self.K)

    @cached_property
    def diff_eps_ratio(self) -> Tensor:
        """r = eta_diff / eta_ddim per window: what turns a diff_eps output into the eps of the chord; shape [K].

        With lam = c_e / c_s and gamma = 1 / lam: eta_ddim = s_e - lam s_s, eta_diff = -sqrt(1 - gamma^2) / gamma.
        """
        lam = self.c[1:] / self.c[:-1]
        return -(lam**2 - 1).sqrt() / (self.s[1:] - lam * self.s[:-1])

    @cached_property
    def slopes(self) -> tuple[Tensor, Tensor]:
        """dc/dt and ds/dt per window; each of shape [K]."""
        return self.c.diff() / self.t.diff(), self.s.diff() / self.t.diff()

    def coefficients(self, T: Tensor) -> tuple[Tensor, Tensor]:
        """c(T), s(T) at timestep T in 0..1000 (clamped)."""
        t = (T / NUM_TIMESTEPS).clamp(0, 1)
        w = (t[..., None] <= self.t[1:-1]).sum(dim=-1)
        u = (t - self.t[w]) / (self.t[w + 1] - self.t[w])
        return torch.lerp(self.c[w], self.c[w + 1], u), torch.lerp(self.s[w], self.s[w + 1], u)

    def sigma(self, T: Tensor) -> Tensor:
        """sigma(T) = s / c, strictly increasing in T; T in 0..1000."""
        c, s = self.coefficients(T)
        return s / c

    @cached_property
    def _window_starts(self) -> Tensor:
        """sigma at the inner edges, raised by the tolerance; shape [K - 1]."""
        tolerance = EDGE_TOLERANCE / NUM_TIMESTEPS
        dc_dt, ds_dt = self.slopes
        return (self.s[1:-1] + tolerance * ds_dt[:-1]) / (self.c[1:-1] + tolerance * dc_dt[:-1])

    def window(self, sigma: Tensor) -> Tensor:
        """The window of a noise level, 0 being the noisiest. A sigma on an edge belongs to the window it starts."""
        return (sigma[..., None] <= self._window_starts).sum(dim=-1)

    def locate(self, sigma: Tensor) -> tuple[Tensor, Tensor]:
        """Window w and place u in [0, 1] in it, from s(u) = sigma c(u), a ratio of two linear functions."""
        w = self.window(sigma)
        c_s, c_e, s_s, s_e = self.c[w], self.c[w + 1], self.s[w], self.s[w + 1]
        u = (s_s - sigma * c_s) / ((s_s - s_e) - sigma * (c_s - c_e))
        return w, u.clamp(0, 1)

    def timestep(self, sigma: Tensor) -> Tensor:
        """T = 1000 t of a noise level, the inverse of `sigma`; levels off the path are clamped to 0..1000.

        Fractions are kept, but float32 noise around a whole timestep is not: the official grid is made of integers.
        """
        w, u = self.locate(sigma)
        T = NUM_TIMESTEPS * torch.lerp(self.t[w], self.t[w + 1], u)
        return torch.where((T - T.round()).abs() < NEAR_A_WHOLE_TIMESTEP, T.round(), T)

    def path_timesteps(self, sigmas: Tensor) -> Float64:
        """The timesteps of a list of sigmas [n], in float64 on the host (the one wait for the device); [n]."""
        return self.to("cpu", torch.float64).timestep(host_float64(sigmas)).numpy()

    def signal(self, sigma: Tensor) -> Tensor:
        """c(sigma), what brings X = z / c back to the latent z that the UNet was trained on.

        Above the top of the path (samplers that add noise go there) s / sigma, so that z keeps unit variance.
        """
        w, u = self.locate(sigma)
        c = torch.lerp(self.c[w], self.c[w + 1], u)
        s = torch.lerp(self.s[w], self.s[w + 1], u)
        return torch.minimum(c, s / sigma)
