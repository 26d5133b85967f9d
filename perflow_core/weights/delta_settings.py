"""How a delta is to be sampled: the guidance that its weights have learned, and steps and CFG in words."""

from __future__ import annotations

from ..errors import counted
from .weights_file import WeightsFile

# Of the weights that PeRFlow's authors publish, from their fewest steps to their most; their files do not say it.
AUTHORS_CFG = {"SD1.5": "4.5 to 7.5", "SD2.x": "7.5", "SDXL": "1.5 to 2.5"}
CFG_OF_GUIDED = 2.5  # the most for weights that have learned a CFG: the authors' for SDXL
KEPT = "cfg_sync"  # the metadata's word for weights that have learned none


def learned_guidance(file: WeightsFile) -> float | None:
    """The teacher's CFG, above 1, that is in the weights; None where the metadata names none."""
    try:
        w = float(file.metadata.get("guidance", ""))
    except ValueError:
        return None
    return w if 1 < w < float("inf") else None


def settings_text(file: WeightsFile, family: str, windows: int) -> str:
    """Steps and CFG for a user: from the metadata, else the authors' for that family of models."""
    if learned_guidance(file):
        cfg = f"CFG 1 to {CFG_OF_GUIDED:g}"
    elif file.metadata.get("guidance") == KEPT:
        cfg = "CFG as without the delta"
    elif "guidance" not in file.metadata and family in AUTHORS_CFG:
        cfg = f"CFG {AUTHORS_CFG[family]}"
    else:
        cfg = "CFG as in its training"
    return f"{counted(windows, 'step')} or more, {cfg}"
