"""The picture that Wonder3D is shown: the object's size, place and background."""

import pytest
import torch

from perflow_core.views.twelve_views import OBJECT, SIZE, on_white

RED = torch.tensor([1.0, 0.0, 0.0])


def box(pictures: torch.Tensor) -> list[int]:
    """Top, bottom, left, right of what is not white in the first picture."""
    rows, columns = torch.where((pictures[0] < 0.98).any(-1))
    return [int(edge) for edge in (rows.min(), rows.max() + 1, columns.min(), columns.max() + 1)]


def scene(height=100, width=160):
    """A red box of 20 x 40 on grey, off the middle, and its mask."""
    image = torch.full((1, height, width, 3), 0.5)
    mask = torch.zeros(1, height, width)
    image[:, 10:30, 100:140] = RED
    mask[:, 10:30, 100:140] = 1
    return image, mask


def test_the_object_is_centred_on_white_at_its_trained_size():
    picture = on_white(*scene())
    assert picture.shape == (1, SIZE, SIZE, 3)
    top, bottom, left, right = box(picture)
    assert (right - left, bottom - top) == (OBJECT, OBJECT // 2)
    assert (top + bottom, left + right) == (SIZE, SIZE)
    assert torch.allclose(picture[0, SIZE // 2, SIZE // 2], RED, atol=1e-5)
    assert torch.equal(picture[0, 0, 0], torch.ones(3))


def test_alpha_is_a_mask_and_a_mask_goes_before_it():
    image, mask = scene()
    with_alpha = torch.cat([image, mask[..., None]], -1)
    assert torch.equal(on_white(with_alpha), on_white(image, mask))
    assert torch.equal(on_white(torch.cat([image, torch.ones_like(mask)[..., None]], -1), mask), on_white(image, mask))


def test_a_mask_of_another_size_and_one_for_all():
    image, mask = scene()
    small = mask[:, ::2, ::2]
    assert all(abs(a - b) <= 4 for a, b in zip(box(on_white(image, small)), box(on_white(image, mask)), strict=True))
    both = on_white(torch.cat([image, image.flip(2)]), mask.amax(2, keepdim=True).expand_as(mask))
    assert both.shape == (2, SIZE, SIZE, 3)


def test_half_transparent_edges_mix_with_white_and_faint_ones_are_background():
    image, mask = scene()
    mask[:, 10:30, 100:140] = 0.5
    mask[:, 60:] = 4 / 255
    middle = on_white(image, mask)[0, SIZE // 2, SIZE // 2]
    assert torch.allclose(middle, (RED + 1) / 2, atol=1e-5)
    assert box(on_white(image, mask))[:2] == [SIZE // 2 - OBJECT // 4, SIZE // 2 + OBJECT // 4]


def test_without_a_mask_the_whole_picture_is_fitted_in():
    square = torch.rand(1, SIZE, SIZE, 3, generator=torch.Generator().manual_seed(0))
    assert torch.equal(on_white(square), square)
    assert box(on_white(torch.zeros(1, 100, 200, 3))) == [64, 192, 0, 256]
    assert box(on_white(torch.zeros(1, 1, 2000, 3)))[2:] == [0, 256]


def test_the_picture_given_is_not_changed():
    image, mask = scene()
    before = image.clone(), mask.clone()
    on_white(image, mask)
    assert torch.equal(image, before[0])
    assert torch.equal(mask, before[1])


def test_refusals():
    image, mask = scene()
    with pytest.raises(ValueError, match="mask is black everywhere, expected white where the object is"):
        on_white(image, torch.zeros_like(mask))
    with pytest.raises(ValueError, match="There are 2 masks for 3 pictures, expected one for each or one for all"):
        on_white(image.expand(3, -1, -1, -1), mask.expand(2, -1, -1))
