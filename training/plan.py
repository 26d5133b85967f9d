"""What is trained, as the configuration says: the student's windows and output, its time points, the teacher's ODE."""

from collections.abc import Iterator
from contextlib import contextmanager

from perflow_core.sampling.chord import WindowChord
from perflow_core.sampling.parameterization import like_base
from perflow_core.training.reflow import Loss, Reflow
from perflow_core.training.time_points import TimePoints
from perflow_core.training.trajectory import TeacherTrajectory

from .config import Config
from .stopping import TrainingError
from .teacher import Teacher


def plan(config: Config, teacher: Teacher) -> Reflow:
    """The method, with its tables in float64 on the CPU.

    Raises TrainingError for what cannot be trained, with the section of the configuration that says it.
    """
    wanted, K, optimizer = config.student.prediction_type, config.student.windows, config.optimizer
    alphas_cumprod, grid, solving = teacher.alphas_cumprod, config.points, config.teacher
    with _errors_naming("student.windows"):
        chord = WindowChord.from_alphas_cumprod(alphas_cumprod, K)
    with _errors_naming(f"points with student.windows = {K}"):
        points = (
            TimePoints.uniform(chord.windows, grid.N)
            if grid.grid == "uniform"
            else TimePoints.coarse(chord.windows, grid.per_window, grid.start_share)
        )
    with _errors_naming("teacher.solving_steps"):
        trajectory = TeacherTrajectory.plan(alphas_cumprod, K, solving.solving_steps, solving.solver)
    prediction_type = like_base(teacher.base_prediction) if wanted == "auto" else wanted
    loss = Loss(optimizer.loss, optimizer.huber_c, optimizer.loss_weight)
    return Reflow(prediction_type, chord, points, trajectory, loss, grid.pure_noise)


@contextmanager
def _errors_naming(key: str) -> Iterator[None]:
    """The core's errors as TrainingErrors that name what in the configuration is wrong."""
    try:
        yield
    except ValueError as error:
        raise TrainingError(f"{key}: {error}") from error
