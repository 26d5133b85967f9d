"""On a device without float64 (Apple's) everything gives what it gives on the CPU."""

import pytest
import torch
from no_float64 import DEVICE, Elsewhere, without_float64

from perflow_core.sampling.alignment import align_to_windows
from perflow_core.sampling.chord import WindowChord
from perflow_core.sampling.rectified import FlowPath, TablePath, align_evenly
from perflow_core.sampling.schedule import window_schedule
from perflow_core.sampling.slerp import slerp
from perflow_core.sampling.solvers import SOLVERS
from perflow_core.training.trajectory import TeacherTrajectory
from perflow_core.weights.lowrank import compress

FOREIGN = torch.tensor([14.6, 5.0, 2.0, 1.0, 0.3, 0.0])


@pytest.fixture
def there():
    """Moves a tensor to the device."""
    with without_float64():
        yield lambda tensor: tensor.to(DEVICE)


def test_the_device_refuses_float64(there):
    """A test that cannot fail is a defect."""
    tensor = there(torch.ones(2))
    assert isinstance(tensor, Elsewhere)
    assert torch.equal(tensor.cpu().double(), torch.ones(2, dtype=torch.float64))
    for convert in (
        lambda: tensor.to("cpu", torch.float64),
        tensor.double,
        lambda: torch.add(tensor, torch.ones(2).double()),
    ):
        with pytest.raises(TypeError, match="float64"):
            convert()
    with pytest.raises(AssertionError, match="global generator"):
        torch.randn(2, device=DEVICE)


def test_steps_are_aligned(there, chord):
    expected = align_to_windows(chord, FOREIGN)
    found = align_to_windows(chord, there(FOREIGN))
    assert found.device == DEVICE
    assert torch.equal(found.cpu(), expected)
    assert chord.path_timesteps(there(FOREIGN)).tolist() == chord.path_timesteps(FOREIGN).tolist()


def test_the_chord_is_made_moved_and_brought_back(there, alphas_cumprod):
    table = alphas_cumprod.float()
    expected = WindowChord.from_alphas_cumprod(table, 4)
    found = WindowChord.from_alphas_cumprod(there(table), 4)
    assert torch.equal(found.c, expected.c)
    moved = found.to(DEVICE, torch.float32)
    assert moved.c.device == DEVICE
    assert torch.equal(moved.to("cpu", torch.float64).c, expected.c.float().double())


def test_rectified_steps_are_aligned(there, alphas_cumprod):
    table = ((1 - alphas_cumprod) / alphas_cumprod).sqrt().float()
    for path, path_there in ((FlowPath(), FlowPath()), (TablePath(table), TablePath(there(table)))):
        assert torch.equal(align_evenly(path_there, there(FOREIGN)).cpu(), align_evenly(path, FOREIGN))


def test_the_teachers_trajectory(there, alphas_cumprod):
    table = alphas_cumprod.float()
    expected = TeacherTrajectory.plan(table, 4, 4)
    found = TeacherTrajectory.plan(there(table), 4, 4).to(DEVICE, torch.float32)
    assert torch.equal(found.sigma.cpu(), expected.sigma.float())


@pytest.mark.parametrize("solver", SOLVERS)
def test_solvers(there, chord, solver):
    sigmas = window_schedule(chord, 6).float()

    def model(x, sigma):
        return torch.tanh(x + sigma[:, None])

    x = torch.linspace(-1, 1, 8)[None]
    expected = SOLVERS[solver](model, x, sigmas, chord=chord)
    moved = chord.to(DEVICE, torch.float32)
    for its_chord in (chord, moved):
        found = SOLVERS[solver](model, there(x), there(sigmas), chord=its_chord)
        assert torch.allclose(found.cpu(), expected, rtol=1e-5)


@pytest.mark.parametrize(("rank", "share"), [(8, 0), (0, 0.5)])
def test_differences_are_compressed(there, rank, share):
    """Without a number from the device's global generator, and the same as on the CPU."""
    dW = torch.randn(64, 96, generator=torch.Generator().manual_seed(0))
    expected = compress(dW, rank, share, torch.float16)
    found = compress(there(dW), rank, share, torch.float16)
    assert torch.equal(found.up, expected.up)
    assert torch.equal(found.down, expected.down)
    assert found.kept == expected.kept


def test_interpolated_noise(there):
    z0, z1 = torch.randn(2, 1, 4, 2, 2, generator=torch.Generator().manual_seed(0))
    assert torch.equal(slerp(there(z0), there(z1), 3).cpu(), slerp(z0, z1, 3))
