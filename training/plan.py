"""What is taught, as the configuration says: the student's windows and output, its time points, the teacher's walk."""

from typing import NamedTuple

from perflow_core.sampling.chord import WindowChord
from perflow_core.sampling.parameterization import PredictionType, like_base
from perflow_core.training.reflow import TeacherWalk, TimePoints

from .config import Config
from .errors import TrainingError
from .teacher import Teacher


class Plan(NamedTuple):
    prediction_type: PredictionType
    chord: WindowChord
    points: TimePoints
    walk: TeacherWalk


def plan(config: Config, teacher: Teacher) -> Plan:
    """Raises TrainingError for what cannot be taught, with the section of the configuration that says it."""
    wanted, K, walk = config.student.prediction_type, config.student.windows, config.teacher
    try:
        chord = WindowChord.from_alphas_cumprod(teacher.alphas_cumprod, K)
    except ValueError as error:
        raise TrainingError(f"student.windows: {error}") from error
    try:
        return Plan(
            like_base(teacher.base_prediction) if wanted == "auto" else wanted,
            chord,
            _points(config),
            TeacherWalk.plan(teacher.alphas_cumprod, K, walk.solving_steps, walk.solver),
        )
    except ValueError as error:
        raise TrainingError(f"teacher.solving_steps: {error}") from error


def _points(config: Config) -> TimePoints:
    points, K = config.points, config.student.windows
    try:
        if points.grid == "uniform":
            return TimePoints.uniform(K, points.N)
        return TimePoints.coarse(K, points.per_window, points.start_share)
    except ValueError as error:
        raise TrainingError(f"points with student.windows = {K}: {error}") from error
