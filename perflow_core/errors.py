"""What can be wrong with what a method is given."""

from enum import Enum, auto

from .messages import printable


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
