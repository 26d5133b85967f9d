"""LocalBlend: where the mask is, what is outside it, and pixels that leave it and come back."""

import pytest
import torch
from scripted_masks import GROUP, Denoiser, furthest, mask, start

from perflow_core.editing.local_blend import BlendedRows, blend_mask
from perflow_core.sampling.chord import WindowChord
from perflow_core.sampling.schedule import window_schedule
from perflow_core.sampling.solvers import SOLVERS


def spots(*places):
    """Maps [1, pictures, 8, 8] with one bright pixel each, on a faint ground."""
    maps = torch.full((1, len(places), 8, 8), 0.1)
    for i, place in enumerate(places):
        if place is not None:
            maps[0, i, place[0], place[1]] = 1
    return maps


def test_mask_is_around_the_words_of_source_and_edit():
    mask = blend_mask(spots((1, 1), (6, 6), (1, 1)), (16, 16), 0.3)
    assert mask.shape == (1, 3, 1, 16, 16)
    block = torch.zeros(16, 16, dtype=torch.bool)
    block[:6, :6] = True  # the pixel and its neighbours, twice as large
    assert torch.equal(mask[0, 0, 0], block)
    assert torch.equal(mask[0, 2, 0], block)
    block[10:, 10:] = True
    assert torch.equal(mask[0, 1, 0], block)


def test_threshold_is_a_share_of_the_maximum():
    maps = spots((1, 1))
    assert torch.equal(blend_mask(maps, (8, 8), 0.3), blend_mask(7 * maps, (8, 8), 0.3))
    assert blend_mask(maps, (8, 8), 0.05).all()
    assert not blend_mask(maps, (8, 8), 1.0).any()


def test_words_that_a_prompt_does_not_have_open_nothing():
    maps = spots((1, 1), (6, 6))
    maps[0, 1] = 0
    mask = blend_mask(maps, (8, 8), 0.3)
    assert torch.equal(mask[0, 0], mask[0, 1])
    assert not blend_mask(torch.zeros(1, 2, 8, 8), (8, 8), 0.3).any()


def test_outside_is_the_source_bit_for_bit():
    x = torch.randn(4, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    mask = torch.zeros(2, 2, 1, 8, 8, dtype=torch.bool)
    mask[:, :, :, :4] = True
    rows = BlendedRows(x.shape, 2, 1, x.device)
    assert torch.equal(rows.picture(rows.extended(x)), x)  # nothing is known yet
    rows.open(mask)
    blended = rows.picture(rows.extended(x))
    assert torch.equal(blended[0::2], x[0::2])
    assert torch.equal(blended[1::2, :, :4], x[1::2, :, :4])
    assert torch.equal(blended[1::2, :, 4:], x[0::2, :, 4:])


@pytest.mark.parametrize("windows", [1, 4])
@pytest.mark.parametrize("solver", SOLVERS)
def test_a_pixel_that_comes_back_was_the_source_until_then(alphas_cumprod, solver, windows):
    """Each pixel has its own script of masks."""
    chord = WindowChord.from_alphas_cumprod(alphas_cumprod, windows)
    sigmas = window_schedule(chord, 8)
    loop, x, denoiser = SOLVERS[solver], start(sigmas), Denoiser()
    rows = BlendedRows(x.shape, GROUP, len(sigmas) // 2, x.device)

    def model(x, sigma):
        denoised = denoiser(rows.picture(x), sigma[: rows.count])
        rows.open(mask(denoiser.calls - 1))
        return rows.spread(denoised)

    found = rows.picture(loop(model, rows.extended(x), sigmas, chord=chord))
    assert furthest(found, lambda denoiser: loop(denoiser, x[::GROUP], sigmas, chord=chord)) < 1e-12
