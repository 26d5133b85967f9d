"""What is trained, as the configuration says: the student's windows and output, its time points, the teacher's ODE."""

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
    try:
        chord = WindowChord.from_alphas_cumprod(teacher.alphas_cumprod, K)
    except ValueError as error:
        raise TrainingError(f"student.windows: {error}") from error
    points = _points(config)
    try:
        trajectory = TeacherTrajectory.plan(
            teacher.alphas_cumprod, K, config.teacher.solving_steps, config.teacher.solver
        )
    except ValueError as error:
        raise TrainingError(f"teacher.solving_steps: {error}") from error
    prediction_type = like_base(teacher.base_prediction) if wanted == "auto" else wanted
    loss = Loss(optimizer.loss, optimizer.huber_c, optimizer.loss_weight)
    return Reflow(prediction_type, chord, points, trajectory, loss, config.points.pure_noise)


def _points(config: Config) -> TimePoints:
    points, K = config.points, config.student.windows
    try:
        if points.grid == "uniform":
            return TimePoints.uniform(K, points.N)
        return TimePoints.coarse(K, points.per_window, points.start_share)
    except ValueError as error:
        raise TrainingError(f"points with student.windows = {K}: {error}") from error
