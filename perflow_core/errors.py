"""What can be wrong with what a method is given, and how a message shows names and values from outside."""

from collections.abc import Iterable, Sequence
from enum import Enum, auto

LONGEST = 100  # letters of a name in a message
MOST_DIMENSIONS = 8


class Problem(Enum):
    """What is wrong, where what to do about it depends on the program around the method."""

    FULL_MODEL = auto()  # in place of a difference
    OTHER_LORA = auto()  # PCM's, LCM's
    OTHER_ADAPTER = auto()  # LoHa, LoKr, DoRA, ...
    INCOMPLETE = auto()  # weights of the model for which a file has nothing
    OTHER_SHAPE = auto()
    INPAINTING_MODEL = auto()  # whose input layer has another shape than the file's
    EXTRA_CHANNELS = auto()  # the same, of another model
    UNKNOWN_PREDICTION_TYPE = auto()
    UNKNOWN_WINDOWS = auto()
    OTHER_UNET = auto()  # in place of Wonder3D's
    MASKS_DO_NOT_FIT = auto()
    EMPTY_MASK = auto()
    NOT_TWELVE_VIEWS = auto()


class UnusableError(ValueError):
    """Something that a method cannot work with; the text says what was found and what was expected.

    It ends with what to do, in one sentence. Where that depends on the program around it, `problem` says what is wrong,
    and the program adds what to do (`advised`).
    """

    def __init__(self, text: str, problem: Problem | None = None):
        super().__init__(printable(" ".join(text.split())))  # one line, whatever the names in a file hold
        self.problem = problem

    def advised(self, advice: str) -> "UnusableError":
        """The same with what to do."""
        return type(self)(f"{self}: {advice}.")


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
    return f"{counted(len(keys), 'tensor')} ({names})"


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
