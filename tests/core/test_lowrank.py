"""Randomized SVD against the exact one."""

import pytest
import torch

from perflow_core.weights.lowrank import compress, nearest_of_rank, squared_norm


def decaying(*shape, seed=0):
    """A matrix or convolution whose singular values fall like 1 / k, as real weight differences roughly do."""
    generator = torch.Generator().manual_seed(seed)
    rows, columns = shape[0], torch.Size(shape[1:]).numel()
    U, _ = torch.linalg.qr(torch.randn(rows, min(rows, columns), generator=generator))
    V, _ = torch.linalg.qr(torch.randn(columns, min(rows, columns), generator=generator))
    return (U / torch.arange(1, min(rows, columns) + 1) @ V.T).reshape(shape)


def product(found):
    up, down = found.up.float().flatten(1), found.down.float().flatten(1)
    return up @ down


@pytest.mark.parametrize("shape", [(320, 320), (640, 96), (96, 640), (64, 48, 3, 3), (96, 96, 1, 1)])
def test_fixed_rank_keeps_nearly_what_the_exact_svd_keeps(shape):
    dW = decaying(*shape)
    found = compress(dW, 16, 0, torch.float32)
    S = torch.linalg.svdvals(dW.flatten(1).double())
    best = float(S[:16].square().sum() / S.square().sum())
    assert found.rank == 16
    assert best - 1e-3 < found.kept / squared_norm(dW) <= best + 1e-6
    lost = (dW.flatten(1) - product(found)).square().sum().item()
    assert squared_norm(dW) - found.kept == pytest.approx(lost, rel=1e-4)


@pytest.mark.parametrize("share", [0.5, 0.9, 0.99])
def test_share_of_energy_takes_the_smallest_rank(share):
    dW = decaying(320, 320)
    S = torch.linalg.svdvals(dW.double()).square().cumsum(0)
    smallest = int((share * S[-1] > S).sum()) + 1
    found = compress(dW, 0, share, torch.float32)
    assert found.kept / squared_norm(dW) >= share - 1e-6
    assert smallest <= found.rank <= smallest + 1


@pytest.mark.parametrize("shape", [(64, 48, 3, 3), (64, 48)])
def test_the_factors_are_in_the_dtype_they_are_stored_in(shape):
    found = compress(decaying(*shape), 8, 0, torch.float16)
    assert found.up.shape == (64, 8)
    assert found.down.shape == (8, *shape[1:])
    assert found.up.dtype == found.down.dtype == torch.float16


def test_none_where_the_factors_would_be_larger():
    assert compress(decaying(4, 320, 3, 3), 64, 0, torch.float16) is None
    assert compress(torch.eye(64), 0, 0.999, torch.float16) is None


def test_zero_difference():
    found = compress(torch.zeros(32, 32), 4, 0, torch.float16)
    assert found.rank == 1
    assert product(found).abs().max() == 0


def test_same_input_same_factors_and_no_touch_of_the_global_seed():
    dW = decaying(96, 96)
    torch.manual_seed(5)
    expected = torch.rand(1)
    torch.manual_seed(5)
    one, two = compress(dW, 8, 0, torch.float32), compress(dW, 8, 0, torch.float32)
    assert torch.equal(torch.rand(1), expected)
    assert torch.equal(one.up, two.up)


@pytest.mark.parametrize("shape", [(48, 64), (32, 16, 3, 3)])
def test_the_nearest_of_a_rank_loses_the_other_singular_values(shape):
    dW = decaying(*shape)
    found = nearest_of_rank(dW, 8)
    S = torch.linalg.svdvals(dW.flatten(1).double())
    assert found.shape == dW.shape
    assert torch.linalg.matrix_rank(found.flatten(1), rtol=1e-4) == 8
    assert (dW - found).square().sum().item() == pytest.approx(S[8:].square().sum().item(), rel=1e-3)


def test_a_rank_that_is_not_there_keeps_all():
    dW = decaying(16, 48)
    torch.testing.assert_close(nearest_of_rank(dW, 64), dW)
