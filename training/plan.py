"""What is trained, as the configuration says: the student's windows and output, its time points, the teacher's ODE."""

from collections.abc import Iterator
from contextlib import contextmanager

from perflow_core.sampling.parameterization import PredictionType, like_base
from perflow_core.training.base import FlowBase
from perflow_core.training.reflow import Loss, Reflow
from perflow_core.training.time_points import TimePoints

from .config import Config
from .stopping import TrainingError
from .teacher import Teacher


def plan(config: Config, teacher: Teacher, started: PredictionType | None = None) -> Reflow:
    """The method, with its tables in float64 on the CPU; started: the output of a delta that the student begins with.

    Raises TrainingError for what cannot be trained, with the section of the configuration that says it.
    """
    wanted, K, optimizer = config.student.prediction_type, config.student.windows, config.optimizer
    base, grid, solving = teacher.base, config.points, config.teacher
    if isinstance(base, FlowBase):
        _check_fits_a_flow(config)
    with _errors_naming("student.windows"):
        chord = base.chord(K)
    with _errors_naming(f"points with student.windows = {K}"):
        points = (
            TimePoints.uniform(chord.windows, grid.N)
            if grid.grid == "uniform"
            else TimePoints.coarse(chord.windows, grid.per_window, grid.start_share)
        )
    with _errors_naming("teacher.solving_steps"):
        trajectory = base.trajectory(chord, solving.solving_steps, solving.solver)
    prediction_type = started or like_base(base.predicts) if wanted == "auto" else wanted
    loss = Loss(optimizer.loss, optimizer.huber_c, optimizer.loss_weight)
    return Reflow(prediction_type, chord, points, trajectory, loss, grid.pure_noise)


def _check_fits_a_flow(config: Config) -> None:
    """Raises TrainingError for what a flow model has another way, or not at all."""
    if config.student.prediction_type not in ("auto", "velocity"):
        raise TrainingError(
            f'student.prediction_type is "{config.student.prediction_type}" for a flow model, expected "auto" or '
            '"velocity", the only one that it has: leave it out.'
        )
    if config.points.pure_noise:
        raise TrainingError(
            "points.pure_noise is true for a flow model, whose first window starts at noise alone already: leave it "
            "out."
        )
    if config.teacher.float8:
        raise TrainingError(
            "teacher.float8 is true for a flow model, whose layers ask one another for their precision, expected "
            "false: leave it out."
        )
    if config.optimizer.precision == "fp16":
        raise TrainingError(
            'optimizer.precision is "fp16" for a flow model, whose transformer and text encoders overflow in it, '
            'expected "bf16" or "no": choose one of these.'
        )


@contextmanager
def _errors_naming(key: str) -> Iterator[None]:
    """The core's errors as TrainingErrors that name what in the configuration is wrong."""
    try:
        yield
    except ValueError as error:
        raise TrainingError(f"{key}: {error}") from error
