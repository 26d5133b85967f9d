"""Muon against singular values and against its formulas step by step."""

import torch

from small_model.trainers.muon import Muon, optimizers_of, orthogonal

A, B, C = 3.4445, -4.7750, 2.0315  # of the paper's quintic


def quintic(G: torch.Tensor) -> torch.Tensor:
    """What five iterations make of G: its singular vectors stay, each singular value s becomes p(p(... s / |G|))."""
    U, s, Vt = torch.linalg.svd(G.double(), full_matrices=False)
    s = s / s.norm()
    for _ in range(5):
        s = A * s + B * s**3 + C * s**5
    return U @ torch.diag(s) @ Vt


def test_orthogonal_against_singular_values():
    random = torch.Generator().manual_seed(0)
    for shape in ((24, 60), (60, 24), (16, 16)):
        G = torch.randn(3, *shape, generator=random)
        found = orthogonal(G)
        for one, wanted in zip(found, G, strict=True):
            torch.testing.assert_close(one.double(), quintic(wanted), atol=2e-4, rtol=0)
            assert torch.linalg.svdvals(one)[:-3].min() > 0.6  # the smallest of all have not come up yet
            assert torch.linalg.svdvals(one).max() < 1.3


def test_steps_against_a_plain_loop():
    """Two shapes, one of them twice, as a matrix and as a convolution; momentum and decay over three steps."""
    rate, momentum, decay = 0.02, 0.9, 0.1
    random = torch.Generator().manual_seed(1)
    start = [torch.randn(shape, generator=random) for shape in ((8, 18), (8, 2, 3, 3), (20, 6))]
    weights = [torch.nn.Parameter(weight.clone()) for weight in start]
    optimizer = Muon(weights, rate, momentum, decay)
    expected, averages = [weight.double() for weight in start], [torch.zeros_like(w).double() for w in start]
    for _ in range(3):
        for i, weight in enumerate(weights):
            weight.grad = torch.randn(weight.shape, generator=random)
            G = weight.grad.double()
            averages[i] = momentum * averages[i] + (1 - momentum) * G
            M = (momentum * averages[i] + (1 - momentum) * G).flatten(1)
            move = rate * 0.2 * max(M.shape) ** 0.5 * quintic(M)
            expected[i] = (1 - rate * decay) * expected[i] - move.view_as(weight)
        optimizer.step()
    for weight, wanted in zip(weights, expected, strict=True):
        torch.testing.assert_close(weight.detach().double(), wanted, atol=1e-4, rtol=0)


def test_which_weights_it_gets():
    network = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Linear(8, 8), torch.nn.Linear(8, 4))
    muon, adam = optimizers_of(network.parameters(), [network[0], network[2]], 1e-3)
    assert [weight is network[1].weight for weight in muon.param_groups[0]["params"]] == [True]
    assert len(adam.param_groups[0]["params"]) == 5
