"""Names and values from outside, as a message shows them."""

from collections.abc import Iterable, Sequence

LONGEST = 100  # letters of a name in a message
MOST_DIMENSIONS = 8


def shown(name: str, most: int = LONGEST) -> str:
    """A name from a file as a message shows it: in printable letters, the middle of a long one left out."""
    name = printable(name)
    return name if len(name) <= most else f"{name[: most // 2]}…{name[1 - most + most // 2 :]}"


def printable(text: str) -> str:
    r"""Control characters, and those that turn the direction of a line, as \x1b or \u202e."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def tensors_named(keys: Sequence[str]) -> str:
    """Say "3 tensors (a, b, ...)"; two names are enough to recognise a layout."""
    names = ", ".join(map(shown, keys[:2])) + (", ..." if len(keys) > 2 else "")
    return f"{tensor_count(len(keys))} ({names})"


def tensor_count(n: int) -> str:
    return counted(n, "tensor")


def counted(n: int, noun: str) -> str:
    """Say "1 step" or "4 steps"."""
    return f"{n} {noun}{'s' if n != 1 else ''}"


def listed(values: Iterable[float]) -> str:
    """Say "1000 833.5 666"."""
    return " ".join(f"{value:.6g}" for value in values)


def sizes(shape: Sequence[int]) -> str:
    """Say "320x4x3x3"."""
    words = [str(size) for size in shape]
    if len(words) > MOST_DIMENSIONS:
        words = [*words[:4], f"...x{words[-1]} ({len(words)} dimensions)"]
    return "x".join(words) or "()"
