"""LocalBlend: where the mask is, and what is outside it."""

import torch

from perflow_core.local_blend import blend, blend_mask


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
    blended = blend(x, mask)
    assert torch.equal(blended[0::2], x[0::2])
    assert torch.equal(blended[1::2, :, :4], x[1::2, :, :4])
    assert torch.equal(blended[1::2, :, 4:], x[0::2, :, 4:])
