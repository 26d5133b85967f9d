"""What stops a training run, said in one sentence."""


class TrainingError(Exception):
    """Something the user can act on: what was found, what was expected, what to do."""


class Stopped(Exception):  # noqa: N818 - a wish, not an error
    """The user asked the run to end; all that is needed to go on is on disk."""
