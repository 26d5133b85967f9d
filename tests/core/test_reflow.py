"""Training PeRFlow: time points, the teacher's trajectory, and the target on the window's segment."""

import pytest
import torch

from perflow_core.sampling.chord import WindowChord
from perflow_core.sampling.parameterization import PREDICTION_TYPES, append_dims, denoised, predicted_eps
from perflow_core.sampling.windows import Windows
from perflow_core.training.reflow import Segment, segment_through, training_target, window_start
from perflow_core.training.time_points import TimePoints
from perflow_core.training.trajectory import SOLVERS, TeacherTrajectory

MEAN, SPREAD = 0.7, 0.5  # of the data that the analytic teacher knows


def sigmas(alphas_cumprod: torch.Tensor) -> torch.Tensor:
    return ((1 - alphas_cumprod) / alphas_cumprod).sqrt()


def gaussian_teacher(sigma: torch.Tensor):
    """The exact noise prediction for data of one Gaussian: x0 = E[x0 | X]."""

    def predict(X, i):
        level = append_dims(sigma[i], X)
        return level * (X - MEAN) / (SPREAD**2 + level**2)

    return predict


def mixture_teacher(sigma: torch.Tensor, means: torch.Tensor):
    """The same for a mixture of Gaussians, whose ODE curves; means: [M, D], X: [B, D]."""

    def predict(X, i):
        level = sigma[i][:, None]
        variance = SPREAD**2 / 4 + level**2
        apart = X[:, None] - means
        weight = torch.softmax(-apart.square().sum(-1) / (2 * variance), dim=-1)[..., None]
        return level * (weight * apart).sum(1) / variance

    return predict


def root_mean_square(x: torch.Tensor) -> float:
    return float(x.square().mean().sqrt())


# Time points


def test_the_coarse_grid_is_what_sampling_visits():
    points = TimePoints.coarse(Windows.even(4), 4, start_share=0.4)
    assert points.T.tolist() == [
        [1000, 937, 875, 812],
        [750, 687, 625, 562],
        [500, 437, 375, 312],
        [250, 187, 125, 62],
    ]
    assert points.probability[0].tolist() == pytest.approx([0.4, 0.2, 0.2, 0.2])
    assert TimePoints.coarse(Windows.even(4), 1).probability.tolist() == [[1.0]] * 4
    assert TimePoints.coarse(Windows.even(3), 2).T.tolist() == [[1000, 833], [666, 500], [333, 166]]


@pytest.mark.parametrize(("K", "N"), [(4, 1000), (4, 200), (3, 1000), (4, 10), (1, 7)])
def test_the_uniform_grid_has_every_point_once(K, N):
    points = TimePoints.uniform(Windows.even(K), N)
    weight = points.share[:, None] * points.probability
    assert weight.sum().item() == pytest.approx(1)
    assert sorted(points.T[weight > 0].tolist()) == pytest.approx([1000 * j / N for j in range(1, N + 1)])
    assert weight[weight > 0].tolist() == pytest.approx([1 / N] * N)
    for w in range(K):
        T, start = points.T[w][weight[w] > 0], 1000 * (K - w) / K
        assert T.max() <= start + 0.1
        assert T.min() > start - 1000 / K


@pytest.mark.parametrize(
    "points",
    [
        TimePoints.coarse(Windows.even(4), 4),
        TimePoints.uniform(Windows.even(4), 10),
        TimePoints.uniform(Windows.even(3), 200),
    ],
)
def test_points_are_drawn_as_often_as_they_should(points):
    U = (torch.arange(20000, dtype=torch.float64) + 0.5) / 20000
    w = points.windows(U)
    assert (torch.bincount(w, minlength=points.K) / len(U)).tolist() == pytest.approx(points.share.tolist(), abs=1e-4)
    for window in range(points.K):
        T = points.timesteps(torch.full((len(U),), window), U)
        for point, probability in zip(points.T[window], points.probability[window], strict=True):
            if probability > 0:
                assert (point == T).double().mean().item() == pytest.approx(probability.item(), abs=1e-4)
    extremes = torch.tensor([0.0, 1 - 2**-53], dtype=torch.float64)
    assert (points.timesteps(points.windows(extremes), extremes) > 0).all()


def test_impossible_time_points_are_reported():
    with pytest.raises(ValueError, match="300 points in each of 4 windows"):
        TimePoints.coarse(Windows.even(4), 300)
    with pytest.raises(ValueError, match="0 windows"):
        TimePoints.coarse(Windows.even(0), 4)
    with pytest.raises(ValueError, match=r"share of window starts is 1\.5"):
        TimePoints.coarse(Windows.even(4), 4, 1.5)
    with pytest.raises(ValueError, match="3 time points for 4 windows"):
        TimePoints.uniform(Windows.even(4), 3)


# The window's start and the teacher's trajectory


def test_the_window_start_is_the_noised_data(chord, random):
    x0, noise, w = random(4, 3, 2, 2), random(4, 3, 2, 2), torch.tensor([0, 1, 2, 3])
    c_s, s_s = (append_dims(table[w], x0) for table in (chord.c, chord.s))
    assert (c_s * window_start(chord, w, x0, noise) - (c_s * x0 + s_s * noise)).abs().max() < 1e-12
    pure = c_s * window_start(chord, w, x0, noise, pure_noise=True)
    assert (pure[0] - noise[0]).abs().max() < 1e-12
    assert torch.equal(pure[1:], (c_s * window_start(chord, w, x0, noise))[1:])


def test_the_trajectory_goes_from_edge_to_edge(alphas_cumprod):
    assert TeacherTrajectory.plan(alphas_cumprod, 4, 2, "ddim").entries.tolist() == [
        [999, 874, 749],
        [749, 624, 499],
        [499, 374, 249],
        [249, 124, 0],
    ]
    # What the authors' PFODESolver.get_timesteps gives: (999 + (t - 1) / 0.001).round(), without the last one.
    eight = TeacherTrajectory.plan(alphas_cumprod, 4, 8, "ddim").entries
    assert eight[0].tolist() == [999, 968, 936, 905, 874, 843, 812, 780, 749]
    assert eight[3].tolist() == [249, 218, 186, 155, 124, 93, 62, 30, 0]
    # Their steps of 1000 // (K n) entries, where that is a whole number: all of ours, but for the last, which is cut.
    assert (TeacherTrajectory.plan(alphas_cumprod, 4, 10, "ddim").entries.diff().flatten()[:-1] == -25).all()
    for solver in SOLVERS:
        for K, n in [(4, 1), (4, 8), (4, 100), (4, 249), (1, 25), (3, 7), (10, 5)]:
            entries = TeacherTrajectory.plan(alphas_cumprod, K, n, solver).entries
            assert entries.shape == (K, n + 1)
            assert (entries.diff(dim=1) < 0).all()
            assert entries[0, 0] == 999
            assert entries[-1, -1] == 0
            assert torch.equal(entries[1:, 0], entries[:-1, -1])


@pytest.mark.parametrize("solver", SOLVERS)
def test_the_trajectory_finds_the_known_end_points(alphas_cumprod, chord, random, solver):
    """For one Gaussian X - mean grows as sqrt(spread^2 + sigma^2)."""
    sigma, w = sigmas(alphas_cumprod), torch.tensor([0, 1, 2, 3, 3, 1])
    X_s = window_start(chord, w, MEAN + SPREAD * random(6, 4), random(6, 4))
    edge = chord.s / chord.c
    growth = ((SPREAD**2 + edge[1:] ** 2) / (SPREAD**2 + edge[:-1] ** 2)).sqrt()[w]
    exact = MEAN + (X_s - MEAN) * append_dims(growth, X_s)
    errors = []
    for n in {"ddim": (25, 50, 100), "dpmpp_2m": (3, 6, 12)}[solver]:
        X_e = TeacherTrajectory.plan(alphas_cumprod, 4, n, solver)(gaussian_teacher(sigma), X_s, w)
        errors.append(root_mean_square(X_e - exact) / root_mean_square(exact - X_s))
    halved = {"ddim": 1.8, "dpmpp_2m": 3.0}[solver]  # the error falls by this much with twice the steps
    assert errors[0] > halved * errors[1] > halved**2 * errors[2]
    assert errors[2] < 2e-3


def test_rows_go_as_they_would_alone(alphas_cumprod, chord, random):
    sigma, w = sigmas(alphas_cumprod), torch.tensor([2, 0, 3, 1])
    X_s = window_start(chord, w, random(4, 4, 2, 3), random(4, 4, 2, 3))
    for solver in SOLVERS:
        trajectory = TeacherTrajectory.plan(alphas_cumprod, 4, 5, solver)
        together = trajectory(gaussian_teacher(sigma), X_s, w)
        alone = [trajectory(gaussian_teacher(sigma), X_s[i : i + 1], w[i : i + 1]) for i in range(4)]
        assert (together - torch.cat(alone)).abs().max() < 1e-12


def test_error_per_call(alphas_cumprod, chord, random):
    """On a teacher whose ODE curves, four second-order calls are nearer to 100 steps than eight official ones."""
    sigma, w = sigmas(alphas_cumprod), torch.arange(400) % 4
    means = 0.8 * random(4, 16)
    X_s = window_start(chord, w, means[torch.arange(400) // 4 % 4] + SPREAD / 2 * random(400, 16), random(400, 16))

    def slope(n, solver):
        trajectory = TeacherTrajectory.plan(alphas_cumprod, 4, n, solver)
        return segment_through(chord, w, X_s, trajectory(mixture_teacher(sigma, means), X_s, w)).eps

    exact = slope(100, "dpmpp_2m")
    error = {
        (n, solver): [
            root_mean_square((slope(n, solver) - exact)[w == k]) / root_mean_square(exact[w == k]) for k in range(4)
        ]
        for n, solver in [(4, "dpmpp_2m"), (8, "dpmpp_2m"), (8, "ddim"), (100, "ddim")]
    }
    for k in range(4):
        assert error[8, "dpmpp_2m"][k] < error[4, "dpmpp_2m"][k] < error[8, "ddim"][k]
        assert error[100, "ddim"][k] < error[8, "ddim"][k] / 5
    assert max(error[4, "dpmpp_2m"]) < 0.02 < max(error[8, "ddim"])


def test_impossible_trajectories_are_reported(alphas_cumprod):
    with pytest.raises(ValueError, match="250 steps in each of 4 windows, expected 1 to 249"):
        TeacherTrajectory.plan(alphas_cumprod, 4, 250)
    with pytest.raises(ValueError, match='solver is "euler", expected one of dpmpp_2m, ddim'):
        TeacherTrajectory.plan(alphas_cumprod, 4, 8, "euler")


# The training target


def authors_target(prediction_type, chord, w, z_s, z_e):
    """The three target formulas of the official training scripts, on z at the window's two ends."""
    a_s, a_e = (append_dims(table[w], z_s) for table in (chord.c[:-1] ** 2, chord.c[1:] ** 2))
    if prediction_type == "diff_eps":  # z_s = gamma z_e + sqrt(1 - gamma^2) m
        gamma = (a_s / a_e).sqrt()
        return (z_s - gamma * z_e) / (1 - gamma**2).sqrt()
    if prediction_type == "ddim_eps":  # z_e = lambda z_s + eta m
        lam = (a_e / a_s).sqrt()
        return (z_e - lam * z_s) / ((1 - a_e).sqrt() - lam * (1 - a_s).sqrt())
    return (z_e - z_s) / append_dims((chord.t[1:] - chord.t[:-1])[w], z_s)


@pytest.mark.parametrize("prediction_type", PREDICTION_TYPES)
@pytest.mark.parametrize("K", [1, 2, 3, 4, 5, 10])
def test_the_authors_targets(alphas_cumprod, random, prediction_type, K):
    chord = WindowChord.from_alphas_cumprod(alphas_cumprod, K)
    U = torch.rand(2, 64, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    for points in (TimePoints.coarse(Windows.even(K), 4), TimePoints.uniform(Windows.even(K), 1000)):
        w = points.windows(U[0])
        T = points.timesteps(w, U[1])
        z_s, z_e = random(64, 4, 2, 2), random(64, 4, 2, 2)
        c_s, c_e = (append_dims(c[w], z_s) for c in (chord.c[:-1], chord.c[1:]))
        found = training_target(prediction_type, chord, segment_through(chord, w, z_s / c_s, z_e / c_e), T)
        u = append_dims((T / 1000 - chord.t[w]) / (chord.t[1:] - chord.t[:-1])[w], z_s)
        assert (found.z - torch.lerp(z_s, z_e, u)).abs().max() < 1e-9
        assert (found.m - authors_target(prediction_type, chord, w, z_s, z_e)).abs().max() < 1e-9
        assert torch.equal(found.T, T)


@pytest.mark.parametrize("prediction_type", PREDICTION_TYPES)
def test_sampling_reads_what_training_taught(chord, random, prediction_type):
    points = TimePoints.uniform(Windows.even(4), 1000)
    w = torch.arange(64) % 4
    T = points.timesteps(w, torch.rand(64, dtype=torch.float64, generator=torch.Generator().manual_seed(2)))
    segment = Segment(w, random(64, 4, 2, 2), random(64, 4, 2, 2))
    found = training_target(prediction_type, chord, segment, T)
    sigma, X = chord.sigma(T), found.z / append_dims(chord.coefficients(T)[0], found.z)
    assert (predicted_eps(prediction_type, chord, sigma, found.m, X) - segment.eps).abs().max() < 1e-9
    assert (denoised(prediction_type, chord, sigma, found.m, X) - segment.x0).abs().max() < 1e-9


def test_a_segment_that_the_student_has_learned_ends_where_the_teacher_did(alphas_cumprod, chord, random):
    """One step of PeRFlow from every window start, with a perfect student, is the teacher's whole trajectory."""
    sigma, w = sigmas(alphas_cumprod), torch.tensor([0, 1, 2, 3])
    X_s = window_start(chord, w, random(4, 4), random(4, 4))
    X_e = TeacherTrajectory.plan(alphas_cumprod, 4, 8)(gaussian_teacher(sigma), X_s, w)
    segment = segment_through(chord, w, X_s, X_e)
    edge = append_dims((chord.s / chord.c)[1:][w], X_s)
    assert (segment.x0 + edge * segment.eps - X_e).abs().max() < 1e-9
