"""How a base model samples, which is all that PeRFlow asks of it: a Stable Diffusion's noise table, or a flow's shift.

Both give the path with its windows (`chord`), the base's own way through them (`trajectory`, `derivative`), and what a
delta's file says of them (`metadata`).
"""

from collections.abc import Sequence
from typing import NamedTuple

from torch import Tensor

from ..sampling.chord import WindowChord, shifted, unshifted
from ..sampling.parameterization import BasePrediction, Derivative, UNet, noise_predictor, velocity_predictor
from ..sampling.windows import NUM_TIMESTEPS, Windows
from .trajectory import Solver, TeacherTrajectory


class Base(NamedTuple):
    """How the base of a Stable Diffusion samples: its noise table, float64 [1000], what its UNet predicts."""

    alphas_cumprod: Tensor
    predicts: BasePrediction

    def chord(self, windows: int) -> WindowChord:
        return WindowChord.from_alphas_cumprod(self.alphas_cumprod, windows)

    def trajectory(self, chord: WindowChord, n: int, solver: Solver = "dpmpp_2m") -> TeacherTrajectory:
        return TeacherTrajectory.plan(self.alphas_cumprod, chord.K, n, solver)

    def derivative(self, network: UNet, trajectory: TeacherTrajectory, guidance: float) -> Derivative:
        """The noise by the UNet, on the device of the trajectory's tables."""
        alphas_cumprod = self.alphas_cumprod.to(trajectory.sigma)
        return noise_predictor(network, self.predicts, alphas_cumprod, guidance)

    @property
    def noise_scale(self) -> float:
        return 1.0

    def pure_noise(self, noise: Tensor, sigma: Tensor) -> Tensor:
        """X at the top of the path, of the variance that z = noise has."""
        return noise * (1 + sigma**2).sqrt()

    def level(self, chord: WindowChord, T: Tensor) -> Tensor:
        """What the model is called with at timestep T: T itself."""
        return T

    def metadata(self, chord: WindowChord) -> dict[str, str]:
        """What a delta's file says of its base."""
        return {"base_prediction": self.predicts}


class FlowBase(NamedTuple):
    """How a flow model samples: x = (1 - sigma) x0 + sigma n noise, its shift a (`chord.shifted`) and noise scale n."""

    shift: float
    noise_scale: float
    predicts: BasePrediction = "flow"

    def edges(self, windows: int) -> list[float]:
        """The sigmas of windows that are even in the time before the shift."""
        edges: list[float] = shifted(Windows.even(windows).edges, self.shift).tolist()
        return edges

    def chord(self, windows: int | Sequence[float]) -> WindowChord:
        """windows: their number, or the sigmas of their edges."""
        edges = self.edges(windows) if isinstance(windows, int) else windows
        return WindowChord.of_flow(edges, self.shift)

    def trajectory(self, chord: WindowChord, n: int, solver: Solver = "dpmpp_2m") -> TeacherTrajectory:
        return TeacherTrajectory.of_flow(chord, n, solver)

    def derivative(self, network: UNet, trajectory: TeacherTrajectory, guidance: float) -> Derivative:
        """The velocity by the network, on the device of the trajectory's tables."""
        return velocity_predictor(network, NUM_TIMESTEPS * unshifted(trajectory.sigma, self.shift), guidance)

    def pure_noise(self, noise: Tensor, sigma: Tensor) -> Tensor:
        """x at the top of the path."""
        return sigma * self.noise_scale * noise

    def level(self, chord: WindowChord, T: Tensor) -> Tensor:
        """What the model is called with at the time T: sigma."""
        return chord.sigma(T)

    def metadata(self, chord: WindowChord) -> dict[str, str]:
        """Where the windows of a delta are, for its file."""
        return {
            "base_prediction": self.predicts,
            "edges": ",".join(f"{sigma:.9g}" for sigma in chord.own_edges),
            "shift": f"{self.shift:.6g}",
        }
