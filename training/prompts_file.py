"""A text file of prompts, one a line."""

from pathlib import Path

from .stopping import TrainingError


def prompts_in(path: str, key: str) -> list[str]:
    """The lines of a file in UTF-8 but empty ones; key: what names the file. Raises TrainingError."""
    try:
        lines = Path(path).expanduser().read_text(encoding="utf-8-sig").splitlines()
    except (OSError, ValueError) as error:
        raise TrainingError(
            f"{key} {path} cannot be read ({getattr(error, 'strerror', error)}): give a text file of prompts in UTF-8."
        ) from error
    texts = [line.strip() for line in lines if line.strip()]
    if not texts:
        raise TrainingError(f"{key} {path} holds no prompts, expected one per line: write some.")
    return texts
