"""PCM's grids, and its steps in float64."""

from itertools import pairwise

import numpy as np
import pytest
import torch
from analytic_function import guided, latent, start
from hypothesis import given, settings
from hypothesis import strategies as st

from perflow_core.sampling import phased
from perflow_core.sampling.solvers import sample_euler
from perflow_core.sampling.windows import steps_per_window
from perflow_core.weights.pcm_loras import FLOW_LORAS, deterministic, lcm_like, looks_like_pcm

TOLERANCE = 1e-9


@pytest.fixture(scope="module")
def pcm(golden):
    return golden("pcm_sd15_sdxl")


@pytest.fixture(scope="module")
def table(alphas_cumprod):
    return ((1 - alphas_cumprod) / alphas_cumprod).sqrt()


@pytest.fixture(scope="module")
def denoiser(pcm, table):
    """(cfg) -> x0 at X = x / sqrt(ab), the UNet told the entry of the table."""

    def make(cfg):
        def model(X, sigma):
            t = int((table - sigma).abs().argmin())
            return X - sigma * guided(pcm, X / (1 + sigma**2).sqrt(), t, cfg)

        return model

    return make


def assert_deterministic(pcm, table, denoiser, case, T):
    """Euler over the table's levels at T down to entry 0, and back from X to x."""
    assert T.tolist() == case["timesteps"]
    sigmas = torch.cat([table[T], table[:1]])
    X = sample_euler(denoiser(case["cfg"]), start(pcm) * (1 + sigmas[0] ** 2).sqrt(), sigmas)
    found = X / (1 + sigmas[-1] ** 2).sqrt()
    assert (found - latent(pcm, case["final"])).abs().max() < TOLERANCE


@pytest.mark.parametrize("i", range(5))
def test_trailing(pcm, table, denoiser, i):
    case = pcm["ddim_trailing"][i]
    assert_deterministic(pcm, table, denoiser, case, phased.trailing(case["steps"]))


@pytest.mark.parametrize("i", range(2))
def test_tcd(pcm, table, denoiser, i):
    case = pcm["tcd_eta0"][i]
    assert_deterministic(pcm, table, denoiser, case, phased.tcd(case["steps"]))


@pytest.mark.parametrize("i", range(3))
def test_training_edges(pcm, table, denoiser, i):
    case = pcm["training_phase_edges"][i]
    phases, fine = case["phases"], case["fine_grid"]
    assert phased.phase_edges(phases, fine).tolist() == [*case["timesteps"], 0]
    assert_deterministic(pcm, table, denoiser, case, phased.training_edges(phases, phases, fine))


@pytest.mark.parametrize("i", range(2))
def test_stochastic(pcm, table, denoiser, i):
    """X' = x0 + sigma' noise, the end being x0. LCM's boundary weights (c_skip below 4e-8 here) are its own."""
    case = pcm["lcm_like"][i]
    T = phased.tcd(case["steps"])
    assert T.tolist() == case["timesteps"]
    X = start(pcm) * (1 + table[T[0]] ** 2).sqrt()
    noises = [latent(pcm, noise) for noise in case["noises"]]
    for t, below, noise in zip(T, [*table[T[1:]], 0.0], [*noises, 0.0], strict=True):
        x = X / (1 + table[t] ** 2).sqrt()
        c_skip, c_out = 0.25 / ((10 * t) ** 2 + 0.25), 10 * t / ((10 * t) ** 2 + 0.25) ** 0.5
        X = c_out * denoiser(case["cfg"])(X, table[t]) + c_skip * x + below * noise
    assert (X - latent(pcm, case["final"])).abs().max() < TOLERANCE


def test_official_grids(golden):
    grids = golden("schedules_misc")
    for n, expected in grids["ddim_trailing"].items():
        assert phased.trailing(int(n)).tolist() == expected
    for n, expected in grids["lcm"].items():
        assert phased.tcd(int(n)).tolist() == expected


@pytest.mark.parametrize("n", range(1, 48))
def test_trailing_equals_diffusers_formula(n):
    """From 48 steps on numpy's arange rounds some halves the other way, and now and then has one point too many."""
    assert phased.trailing(n).tolist() == (np.round(np.arange(1000, 0, -1000 / n)) - 1).tolist()


@pytest.mark.parametrize("P", [50, 100])
def test_floors_are_exact(P):
    """linspace and floor, as the authors write it, have no accident of rounding here."""
    for n in range(1, P + 1):
        index = np.floor(np.linspace(0, P, n, endpoint=False)).astype(int)
        assert phased.flow_levels(n, P).tolist() == ((P - index) / P).tolist()
        if P == phased.LCM_TIMESTEPS:
            assert phased.tcd(n).tolist() == (999 - 20 * index).tolist()


@pytest.mark.parametrize(
    ("phases", "fine", "edges"),
    [
        (4, 50, [999, 739, 499, 239, 0]),
        (8, 50, [999, 859, 739, 619, 499, 359, 239, 119, 0]),
        (4, 40, [999, 749, 499, 249, 0]),
        (2, 40, [999, 499, 0]),
        (1, 50, [999, 0]),
    ],
)
def test_edges_of_the_training(phases, fine, edges):
    assert phased.phase_edges(phases, fine).tolist() == edges


def test_edges_of_the_training_with_16_phases():
    expected = [999, 919, 859, 799, 739, 679, 619, 559, 499, 419, 359, 299, 239, 179, 119, 59, 0]
    assert phased.phase_edges(16, 50).tolist() == expected


@pytest.mark.parametrize(
    ("n", "expected"),
    [
        (1, [999]),
        (2, [999, 499]),
        (3, [999, 739, 499]),
        (5, [999, 869, 739, 499, 239]),
        (6, [999, 869, 739, 619, 499, 239]),
    ],
)
def test_steps_that_are_no_multiple_of_the_phases(n, expected):
    assert phased.training_edges(n, 4, 50).tolist() == expected


@settings(deadline=None)
@given(n=st.integers(4, 200), phases=st.integers(1, 4), fine=st.sampled_from([40, 50]))
def test_every_edge_is_visited_with_enough_steps(n, phases, fine):
    T, edges = phased.training_edges(n, phases, fine), phased.phase_edges(phases, fine)
    assert len(T) == n
    assert np.all(np.diff(T) < 0)
    assert set(edges[:-1]) <= set(T)
    counts = [int(((high >= T) & (low < T)).sum()) for high, low in pairwise(edges)]
    assert counts == steps_per_window(n, phases)


@pytest.mark.parametrize(
    ("shift", "n", "P", "expected"),
    [
        (1, 2, 50, [1, 0.5]),
        (1, 4, 50, [1, 0.76, 0.5, 0.26]),
        (1, 8, 50, [1, 0.88, 0.76, 0.64, 0.5, 0.38, 0.26, 0.14]),
        (1, 4, 100, [1, 0.75, 0.5, 0.25]),
        (3, 4, 50, [1, 0.9047619047619049, 0.75, 0.5131578947368421]),
    ],
)
def test_flow_levels(shift, n, P, expected):
    s = phased.flow_levels(n, P)
    assert (shift * s / (1 + (shift - 1) * s)).tolist() == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize("i", range(5))
def test_sd3_equals_the_official_numbers(golden, i):
    """x0 = x - sigma v, told 1000 sigma; the stochastic one x' = (1 - sigma') x0 + sigma' noise."""
    reference = golden("pcm_sd3")
    case = reference["cases"][i]
    s = phased.flow_levels(case["steps"], case["pcm_timesteps"])
    sigmas = torch.from_numpy(np.append(case["shift"] * s / (1 + (case["shift"] - 1) * s), 0))
    assert sigmas.tolist() == pytest.approx(case["sigmas"], abs=1e-12)

    def model(x, sigma):
        return x - sigma * guided(reference, x, float(1000 * sigma), case["cfg"])

    if case["kind"] == "det":
        x = sample_euler(model, start(reference), sigmas)
    else:
        x = start(reference)
        for sigma, below, noise in zip(sigmas, sigmas[1:], case["noises"], strict=False):
            x = (1 - below) * model(x, sigma) + below * latent(reference, noise)
    assert (x - latent(reference, case["final"])).abs().max() < TOLERANCE


@pytest.mark.parametrize(
    ("grid", "steps", "denoise", "expected"),
    [
        (phased.trailing, 4, 1.0, [999, 749, 499, 249]),
        (phased.trailing, 2, 0.5, [499, 249]),
        (phased.trailing, 4, 0.5, [499, 374, 249, 124]),
        (phased.trailing, 4, 0.6, [666, 499, 332, 166]),  # the last 4 of int(4 / 0.6) = 6
        (phased.tcd, 2, 0.5, [499, 259]),
        (phased.tcd, 20, 0.2, [199, 179, 159, 139, 119, 99, 79, 59, 39, 19]),  # each fine point once
        (phased.trailing, 4, 0.0, []),
        (phased.trailing, 1, 1e-6, [0]),
    ],
)
def test_denoise_walks_the_end_of_a_finer_grid(grid, steps, denoise, expected):
    assert phased.last_steps(grid, steps, denoise).tolist() == expected


@pytest.mark.parametrize(
    ("n", "low", "high"), [(3, 7e-4, 8e-4), (6, 6e-3, 7e-3), (7, 9e-3, 1e-2), (16, 1.1e-2, 1.2e-2)]
)
def test_size_of_ddims_off_by_one(pcm, table, denoiser, alphas_cumprod, n, low, high):
    """Where n does not divide 1000, DDIM goes to level t - 1000 // n and goes on from the next t, which is another.

    The latent is read at a level it is not at. This pack steps from each level to the next; here is the difference.
    """
    T = phased.trailing(n)
    x = start(pcm)
    for t in T:
        below = alphas_cumprod[max(t - 1000 // n, 0)]
        eps = guided(pcm, x, int(t), 1.0)
        x0 = (x - (1 - alphas_cumprod[t]).sqrt() * eps) / alphas_cumprod[t].sqrt()
        x = below.sqrt() * x0 + (1 - below).sqrt() * eps

    def error(levels):
        sigmas = torch.cat([table[levels], table[:1]])
        X = sample_euler(denoiser(1.0), start(pcm) * (1 + sigmas[0] ** 2).sqrt(), sigmas)
        return float((X / (1 + sigmas[-1] ** 2).sqrt() - x).norm() / x.norm())

    assert low < error(T) < high
    targets = np.append(T[0], T[:-1] - 1000 // n)  # the levels that DDIM's latents have are no better as a list
    assert error(targets) > 0.9 * error(T)


def test_names_of_the_loras():
    assert deterministic("SD1.5", 4) == [
        "pcm_sd15_smallcfg_4step_converted (CFG 1 to 2)",
        "pcm_sd15_normalcfg_4step_converted (CFG 2.5 to 3.5)",
    ]
    assert deterministic("SDXL", 2) == ["pcm_sdxl_smallcfg_2step_converted (CFG 1 to 2)"]
    assert deterministic("SD1.5", 5) == []
    assert lcm_like("SDXL").startswith("pcm_sdxl_lcmlike_lora_converted")
    names = [name.partition(",")[0] for names in FLOW_LORAS.values() for name in names]
    assert sorted(names) == [
        "pcm_deterministic_2step_shift1",
        "pcm_deterministic_4step_shift1",
        "pcm_deterministic_4step_shift3",
        "pcm_stochastic_shift3",
    ]


BLOCK = "mid_block.attentions.0.transformer_blocks.0."
LAYERS = [BLOCK + "attn1.to_q", BLOCK + "attn2.to_out.0", BLOCK + "ff.net.2", "mid_block.attentions.0.proj_in"]
LAYERS += [f"mid_block.resnets.0.{name}" for name in ("conv1", "conv2", "time_emb_proj")]


@pytest.mark.parametrize("naming", ["kohya", "peft"])
def test_a_pcm_lora_is_known_by_its_layers(naming):
    def keys(layers):
        if naming == "peft":
            return [f"unet.{layer}.lora_{side}.weight" for layer in layers for side in "AB"]
        parts = ("lora_up.weight", "lora_down.weight", "alpha")
        return [f"lora_unet_{layer.replace('.', '_')}.{part}" for layer in layers for part in parts]

    assert looks_like_pcm(keys(LAYERS))
    assert not looks_like_pcm(keys(LAYERS[:4]))  # a LoRA of pictures
    assert not looks_like_pcm(keys([*LAYERS, "conv_in"]))  # every layer: an extracted difference
    assert not looks_like_pcm([])
