"""Noise levels for a sampler: the window grid as sigmas."""

from typing import Literal

import torch
from torch import Tensor

from ..errors import shown
from . import tolerances
from .chord import WindowChord
from .parameterization import append_dims
from .windows import NUM_TIMESTEPS, Float64, Windows

LONGEST_LIST = 60  # letters of steps_per_window in a message
End = Literal["zero", "reference"]


def window_schedule(
    chord: WindowChord, n: int, denoise: float = 1.0, end: End = "zero", steps_per_window: list[int] | None = None
) -> Tensor:
    """The sigmas of an n-step path from t = denoise down to t = 0; float64, shape [n + 1].

    A model for a part of the path (`Windows.span`) begins and ends there. A start beside a window edge goes on it
    (`Windows.snapped`). end="zero" closes with sigma 0, as ComfyUI's samplers expect; end="reference" with sigma(0),
    about 0.029, where the official scheduler stops. `steps_per_window`, one number for each window, replaces n; those
    of windows above `denoise` are not used.
    Without a step there is no schedule: shape [0]. Raises ValueError for counts that do not fit, and for steps that
    would be shorter than 0.2 timesteps, twice the tolerance of an edge.
    """
    counts, windows, t_e = steps_per_window, chord.windows, chord.windows.span[1]
    t_s = min(denoise, windows.span[0])
    steps = n if counts is None else max(sum(_used(counts, windows, t_s)), 1)
    if steps < 1 or t_s <= t_e:
        return torch.zeros(0, dtype=torch.float64)
    t_s = windows.snapped(NUM_TIMESTEPS * t_s, NUM_TIMESTEPS * (t_s - t_e) / steps) / NUM_TIMESTEPS
    if counts is None:
        _check_room(n, t_s, t_e)
    T = windows.timesteps(n, t_s, t_e) if counts is None else _counted_timesteps(counts, windows, t_s)
    at_end = t_e > 0 or end == "reference"
    last = chord.sigma(chord.t.new_tensor([NUM_TIMESTEPS * t_e])) if at_end else chord.t.new_zeros(1)
    return torch.cat([chord.sigma(torch.from_numpy(T)), last])


def scaled_at_reference_end(latent: Tensor, sigma: Tensor, lowest: Tensor, c: Tensor) -> Tensor:
    """z = c X where sigma, [B] or a scalar, is the reference end: what the official code decodes. X at other levels."""
    at_end = (sigma - lowest).abs() < tolerances.SAME_LEVEL * lowest
    return latent * append_dims(torch.where(at_end, c, 1.0), latent)


def _check_room(n: int, t_s: float, t_e: float) -> None:
    most = max(int(NUM_TIMESTEPS * (t_s - t_e) / (2 * tolerances.EDGE)), 1)
    if n > most:
        raise ValueError(
            f"{n} steps from timestep {NUM_TIMESTEPS * t_s:.4g} to {NUM_TIMESTEPS * t_e:.4g}, expected at most {most}: "
            "take fewer steps there."
        )


def _used(counts: list[int], windows: Windows, t_s: float) -> list[int]:
    """The counts of the windows that a path from t_s goes through. Raises ValueError for a wrong number of them."""
    if len(counts) != len(windows.own):
        raise ValueError(
            f"steps_per_window has {len(counts)} numbers ({_listed(counts)}), expected {len(windows.own)}, one for "
            "each window."
        )
    return counts[len(counts) + 1 - len(windows.spanned(t_s, windows.span[1])) :]


def _counted_timesteps(counts: list[int], windows: Windows, t_s: float) -> Float64:
    edges, used = windows.spanned(t_s, windows.span[1]), _used(counts, windows, t_s)
    if used[0] < 1:
        raise ValueError(
            f"steps_per_window ({_listed(counts)}) has no step in the window where the path starts "
            f"(timestep {NUM_TIMESTEPS * t_s:.0f}): give that window at least 1."
        )
    for count, start, end in zip(used, edges[:-1], edges[1:], strict=True):
        _check_room(count, start, end)
    return windows.grid(used, edges)


def parse_steps_per_window(text: str) -> list[int] | None:
    """The text "2,1,1,1" -> [2, 1, 1, 1]; an empty text -> None. Raises ValueError for anything but whole numbers."""
    if not text.strip():
        return None
    numbers = [part.strip() for part in text.split(",")]
    if not all(number.isdecimal() for number in numbers):
        raise ValueError(
            f'steps_per_window is "{shown(text, LONGEST_LIST)}", expected whole numbers with commas between '
            'them, one for each window, such as "2,1,1,1".'
        )
    numbers = [number.lstrip("0") or "0" for number in numbers]
    counts = [int(number) if len(number) <= 4 else NUM_TIMESTEPS + 1 for number in numbers]
    if sum(counts) > NUM_TIMESTEPS:
        raise ValueError(
            f"steps_per_window ({shown(text, LONGEST_LIST)}) has more than {NUM_TIMESTEPS} steps, expected at most as "
            "many as there are timesteps: give the windows fewer."
        )
    return counts


def _listed(counts: list[int]) -> str:
    return shown(",".join(map(str, counts)), LONGEST_LIST)
