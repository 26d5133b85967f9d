"""Flow models on the same coordinates, against closed forms: c = 1, s = sigma, and eps is the velocity."""

import math

import numpy as np
import pytest
import torch

from perflow_core.sampling.alignment import align_to_windows
from perflow_core.sampling.chord import WindowChord, shifted, unshifted
from perflow_core.sampling.parameterization import denoiser, velocity_predictor
from perflow_core.sampling.schedule import window_schedule
from perflow_core.sampling.solvers import SOLVERS
from perflow_core.sampling.windows import Windows, parse_edges
from perflow_core.training.reflow import Loss, Reflow, segment_through, training_target, window_start
from perflow_core.training.time_points import TimePoints
from perflow_core.training.trajectory import TeacherTrajectory

SHIFT = 3.0
MEANS = torch.tensor([[-2.0, 1.0, 0.5], [1.5, -1.0, 2.0], [0.0, 2.0, -1.5]], dtype=torch.float64)
SPREAD = 0.3


def flow_chord(K: int = 4, shift: float = SHIFT) -> WindowChord:
    return WindowChord.of_flow(shifted(Windows.even(K).edges, shift).tolist(), shift)


def mixture_velocity(x: torch.Tensor, sigma: torch.Tensor) -> torch.Tensor:
    """E[noise - x0 | x] for x = (1 - sigma) x0 + sigma noise, x0 from equal Gaussians: exact; x [B, 3], sigma [B]."""
    sigma = sigma[:, None]
    a = 1 - sigma
    variance = a**2 * SPREAD**2 + sigma**2
    off = x[:, None] - a[..., None] * MEANS
    share = torch.softmax(-off.square().sum(-1) / (2 * variance), dim=1)
    x0 = MEANS + (a * SPREAD**2 / variance)[..., None] * off
    noise = (sigma / variance)[..., None] * off
    return (share[..., None] * (noise - x0)).sum(1)


def exact_end(x: torch.Tensor, start: torch.Tensor, end: torch.Tensor, n: int = 1000) -> torch.Tensor:
    """The ODE by the classical Runge-Kutta method, each row from its start to its end."""
    h = (end - start) / n
    step = h[:, None]
    for i in range(n):
        s = start + i * h
        k1 = mixture_velocity(x, s)
        k2 = mixture_velocity(x + step / 2 * k1, s + h / 2)
        k3 = mixture_velocity(x + step / 2 * k2, s + h / 2)
        k4 = mixture_velocity(x + step * k3, s + h)
        x = x + step / 6 * (k1 + 2 * k2 + 2 * k3 + k4)
    return x


def teacher(chord: WindowChord, trajectory: TeacherTrajectory):
    def network(X, T):
        return [mixture_velocity(X, chord.sigma(T))]

    return velocity_predictor(network, chord.timestep(trajectory.sigma))


@pytest.mark.parametrize("shift", [1.0, 3.0, math.exp(1.15), 12.0])
def test_the_path_is_the_models_own(shift):
    chord = flow_chord(4, shift)
    u = torch.linspace(0, 1, 501, dtype=torch.float64)
    sigma = shifted(u, shift)
    assert (chord.sigma(1000 * u) - sigma).abs().max() < 1e-15
    assert (chord.timestep(sigma) - 1000 * u).abs().max() < 1e-9
    assert (chord.signal(sigma) - 1).abs().max() == 0
    assert (unshifted(sigma, shift) - u).abs().max() < 1e-12
    assert chord.s[1:-1].tolist() == pytest.approx([shift * u / (1 + (shift - 1) * u) for u in (0.75, 0.5, 0.25)])


def test_every_shift_has_exact_ends():
    """A shift of resolution, as Flux' node computes it, is any number."""
    for shift in np.exp(np.random.default_rng(0).uniform(-4, 5, 300)):
        chord = flow_chord(4, float(shift))
        assert (chord.windows.edges[0], chord.windows.edges[-1]) == (1, 0)
        assert window_schedule(chord, 4).tolist() == pytest.approx(chord.s.tolist(), rel=1e-12)


def test_no_shift_changes_no_bit():
    for dtype in (torch.float32, torch.float64):
        u = torch.rand(100_000, dtype=dtype, generator=torch.Generator().manual_seed(0))
        assert torch.equal(shifted(u, 1.0), u)
        assert torch.equal(unshifted(u, 1.0), u)


def test_steps_are_even_before_the_shift():
    chord = flow_chord()
    expected = [SHIFT * u / (1 + (SHIFT - 1) * u) for u in (1, 0.875, 0.75, 0.625, 0.5, 0.25, 0)]
    assert window_schedule(chord, 6).tolist() == pytest.approx(expected, abs=1e-15)
    assert chord.by_window(np.array([1000.0, 875, 750, 625, 500, 250])) == "1 0.955 | 0.9 0.833 | 0.75 | 0.5"


def test_another_shift_moves_the_steps_and_not_the_windows():
    edges = [1.0, 0.9, 0.75, 0.5, 0.0]
    chord = WindowChord.of_flow(edges, 1.0)
    assert chord.s.tolist() == edges
    four, eight = (window_schedule(chord, n).tolist() for n in (4, 8))
    assert four == pytest.approx(edges)
    assert set(np.round(edges, 9)) <= set(np.round(eight, 9))
    assert eight[5:8] == pytest.approx([0.375, 0.25, 0.125])  # the longest window gets most, evenly by its own time


@pytest.mark.parametrize("steps", [4, 5, 6, 8, 12])
def test_any_list_gets_on_the_windows(steps):
    chord = flow_chord()
    for given in (torch.linspace(1, 0, steps + 1), shifted(torch.linspace(1, 0, steps + 1), SHIFT)):
        aligned = align_to_windows(chord, given.float())
        assert chord.windows.steps_across(chord.path_timesteps(aligned)) == 0
        assert aligned.double().tolist() == pytest.approx(window_schedule(chord, steps).tolist(), abs=1e-6)
        assert align_to_windows(chord, aligned) is aligned


def test_window_starts_and_targets(random):
    chord = flow_chord()
    trajectory = TeacherTrajectory.of_flow(chord, 1)
    w, x0, noise = torch.arange(4), random(4, 3), random(4, 3)
    sigma_s, sigma_e = chord.s[:-1, None], chord.s[1:, None]
    X_s = window_start(chord, w, trajectory.start(w, x0), noise)
    assert (X_s - ((1 - sigma_s) * x0 + sigma_s * noise)).abs().max() < 1e-15
    X_e = random(4, 3)
    v = (X_s - X_e) / (sigma_s - sigma_e)
    segment = segment_through(chord, w, X_s, X_e)
    for share in (0.0, 0.3, 0.9):
        T = 1000 * unshifted(chord.s[:-1] + share * chord.s.diff(), SHIFT)
        target = training_target("velocity", chord, segment, T)
        assert (target.m - v).abs().max() < 1e-12
        assert (target.z - (X_s + share * (X_e - X_s))).abs().max() < 1e-12


@pytest.mark.parametrize(("solver", "order"), [("ddim", 1), ("dpmpp_2m", 2)])
def test_the_walk_converges_to_the_ode(random, solver, order):
    chord = flow_chord()
    w, x0, noise = torch.arange(4), MEANS[[0, 1, 2, 0]] + SPREAD * random(4, 3), random(4, 3)
    X_s = window_start(chord, w, TeacherTrajectory.of_flow(chord, 1).start(w, x0), noise)
    exact = exact_end(X_s, chord.s[:-1], chord.s[1:])
    errors = []
    for n in (40, 80):
        trajectory = TeacherTrajectory.of_flow(chord, n, solver)
        errors.append((trajectory(teacher(chord, trajectory), X_s, w) - exact).abs().amax(1))
    assert torch.isfinite(errors[1]).all()
    inner = slice(1, 3)  # the first and the last window have a step of first order at pure noise and at sigma 0
    assert (errors[0][inner] / errors[1][inner]).min() > 0.85 * 2**order
    assert errors[1].max() < (0.1 if order == 1 else 0.02)


@pytest.mark.parametrize("K", [1, 3, 4, 8])
def test_a_perfect_student_reaches_the_teachers_end(random, K):
    """Euler by the exact chords of the teacher's own walks, window after window."""
    chord = flow_chord(K)
    trajectory = TeacherTrajectory.of_flow(chord, 6)
    walk, noise = teacher(chord, trajectory), random(5, 3)
    X, velocities = noise, []
    for w in range(K):
        X_e = trajectory(walk, X, torch.full((5,), w))
        velocities.append((X - X_e) / float(chord.s[w] - chord.s[w + 1]))
        X = X_e

    def student(z, T):
        w = chord.window(chord.sigma(T))
        return [torch.stack([velocities[int(i)][row] for row, i in enumerate(w)])]

    denoise = denoiser(student, "velocity", chord)
    for steps in (K, 2 * K):
        found = SOLVERS["euler"](denoise, noise, window_schedule(chord, steps), chord=chord)
        assert (found - X).abs().max() < 1e-9


def test_a_perfect_student_has_no_loss(random):
    chord = flow_chord()
    trajectory = TeacherTrajectory.of_flow(chord, 3)
    points = TimePoints.coarse(chord.windows, 4)
    reflow = Reflow("velocity", chord, points, trajectory, Loss(weight="end_point"))
    w = torch.arange(4)
    segment = reflow.segment(teacher(chord, trajectory), w, random(4, 3), random(4, 3))
    T = points.timesteps(w, torch.full((4,), 0.7, dtype=torch.float64))
    from perflow_core.training.reflow import Batch

    assert reflow.losses(Batch(segment, T, lambda z, T: segment.eps)).max() < 1e-24
    wrong = reflow.losses(Batch(segment, T, lambda z, T: segment.eps + 1))
    assert wrong.tolist() == pytest.approx(((chord.s[:-1] - chord.s[1:]) ** 2).tolist(), rel=1e-6)


@pytest.mark.parametrize(
    "edges",
    [[], [1.0], [1.0, 0.5, 0.5, 0.0], [1.0, math.nan, 0.0], [1.2, 0.5], [0.5, -0.1], [math.inf, 0.0], [0.0, 1.0]],
)
def test_edges_that_are_none(edges):
    with pytest.raises(ValueError, match="expected 2 to 101 sigmas that fall and lie between 1 and 0"):
        WindowChord.of_flow(edges, SHIFT)


@pytest.mark.parametrize("edges", [[1.0, 1 - 1e-11, 0.0], [1.0, 1e-9, 0.0], [0.5001, 0.5]])
def test_windows_too_narrow_for_a_step(edges):
    with pytest.raises(ValueError, match=r"make a window of .+ at shift 3, expected at least 0.0002 for each: move"):
        WindowChord.of_flow(edges, SHIFT)


@pytest.mark.parametrize("text", ["1", "1, x", "1,,0", "0, 1", "1.5, 0", "1, nan, 0", ","])
def test_texts_that_are_no_edges(text):
    with pytest.raises(ValueError, match=r"^edges is .+, expected sigmas that fall .+: at least 2 and at most 101.$"):
        parse_edges(text)


def test_edges_as_text():
    assert parse_edges(" 1, 0.94,0.875 ") == [1.0, 0.94, 0.875]
    assert parse_edges("  ") is None


class TestTwoExperts:
    """A path that two models share at sigma 0.875."""

    HIGH, LOW = (1.0, 0.94, 0.875), (0.875, 0.6, 0.0)

    @pytest.fixture(params=[1.0, 3.0, 8.0])
    def chords(self, request):
        return [
            WindowChord.of_flow(edges, request.param) for edges in (self.HIGH, self.LOW, (*self.HIGH, *self.LOW[1:]))
        ]

    def test_the_path_is_the_whole_one(self, chords):
        high, low, whole = chords
        assert [chord.own_edges for chord in chords] == [list(self.HIGH), list(self.LOW), [1.0, 0.94, 0.875, 0.6, 0.0]]
        assert (list(high.windows.own), list(low.windows.own)) == ([0, 1], [1, 2])
        T = torch.linspace(0, 1000, 501, dtype=torch.float64)
        for chord in (high, low):
            assert (chord.sigma(T) - whole.sigma(T)).abs().max() < 1e-15

    @pytest.mark.parametrize("counts", [(1, 1), (2, 2), (3, 5)])
    def test_schedules_meet(self, chords, counts):
        schedules = [window_schedule(chord, n) for chord, n in zip(chords[:2], counts, strict=False)]
        assert [len(schedule) - 1 for schedule in schedules] == list(counts)
        assert schedules[0].tolist()[:: counts[0]] == pytest.approx([1, 0.875], abs=1e-14)
        assert float(schedules[1][0]) == pytest.approx(0.875, abs=1e-14)
        assert float(schedules[1][-1]) == 0
        if counts == (2, 2):
            both = torch.cat([schedules[0], schedules[1][1:]])
            assert both.tolist() == pytest.approx(window_schedule(chords[2], 4).tolist(), abs=1e-14)

    def test_counted_and_shortened_schedules(self, chords):
        high, low, _ = chords
        assert window_schedule(high, 9, steps_per_window=[1, 2]).tolist()[1] == pytest.approx(0.94)
        with pytest.raises(ValueError, match=r"has 3 numbers .+, expected 2"):
            window_schedule(high, 9, steps_per_window=[1, 2, 1])
        u = float(unshifted(torch.tensor(0.7).double(), low.shift))
        assert window_schedule(low, 2, denoise=u).tolist() == pytest.approx([0.7, 0.6, 0])
        assert len(window_schedule(high, 2, denoise=u)) == 0

    def test_its_own_steps_stay_on_an_empty_latent(self, chords):
        for chord in chords[:2]:
            sigmas = window_schedule(chord, 2).float()
            assert align_to_windows(chord, sigmas, from_noise=True) is sigmas

    def test_only_own_windows_are_trained(self, chords):
        for chord in chords[:2]:
            points = TimePoints.coarse(chord.windows, 4)
            drawn = points.windows(torch.rand(1000, dtype=torch.float64, generator=torch.Generator().manual_seed(0)))
            assert set(drawn.tolist()) == set(chord.windows.own)
            assert drawn.bincount()[chord.windows.own.start :].tolist() == pytest.approx([500, 500], abs=60)

    def test_perfect_students_reach_the_teachers_end(self, random, chords):
        """Each by its own walks, the second from where the first ends."""
        X = exact = random(5, 3)
        for chord in chords[:2]:
            trajectory = TeacherTrajectory.of_flow(chord, 6)
            d = teacher(chord, trajectory)
            for w in chord.windows.own:
                rows = torch.full((5,), w)
                exact = trajectory(d, exact, rows)

            def student(z, T, chord=chord, trajectory=trajectory, d=d):
                w = int(chord.window(chord.sigma(T))[0])
                return [segment_through(chord, torch.full((5,), w), z, trajectory(d, z, torch.full((5,), w))).eps]

            denoise = denoiser(student, "velocity", chord)
            sigmas = window_schedule(chord, len(chord.windows.own))
            X = SOLVERS["euler"](denoise, X, sigmas, chord=chord)
            assert (X - exact).abs().max() < 1e-9
