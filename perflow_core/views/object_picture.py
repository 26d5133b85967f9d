"""Wonder3D's input picture: one object on white, as large in it as in training."""

import torch
from torch import Tensor
from torch.nn.functional import interpolate

from ..errors import Problem, UnusableError

SIZE = 256  # pixels a side
OBJECT = 192  # the longer side of the object's box in it, as in Wonder3D's training pictures
VISIBLE = 5 / 255  # a weaker mask is background
WHITE = 1.0


def on_white(image: Tensor, mask: Tensor | None = None) -> Tensor:
    """The object of each picture, centred on white.

    image: [n, H, W, 3] or, with its own mask as alpha, [n, H, W, 4], values 0 to 1; mask: [n or 1, h, w], 1 where the
    object is. Without any mask the whole picture is fitted in. Returns [n, 256, 256, 3].
    Raises UnusableError for a mask without an object, and for as many masks as do not fit.
    """
    if mask is None and image.shape[-1] == 4:
        mask = image[..., 3]
    image = image[..., :3]
    if mask is None:
        return torch.stack([_centred(picture, SIZE) for picture in image])
    if len(mask) not in (1, len(image)):
        raise UnusableError(
            f"There are {len(mask)} masks for {len(image)} pictures, expected one for each or one for all",
            Problem.MASKS_DO_NOT_FIT,
        )
    masks = _resized(mask[..., None].to(image), image.shape[1:3])[..., 0].expand(len(image), -1, -1)
    return torch.stack([_cut_out(*pair) for pair in zip(image, masks, strict=True)])


def _cut_out(picture: Tensor, mask: Tensor) -> Tensor:
    """The object of one picture [H, W, 3] by its mask [H, W]."""
    rows, columns = torch.where(mask > VISIBLE)
    if not len(rows):
        raise UnusableError("The mask is black everywhere, expected white where the object is", Problem.EMPTY_MASK)
    mask = torch.where(mask > VISIBLE, mask, 0)[..., None]
    picture = picture * mask + WHITE * (1 - mask)
    box = picture[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    return _centred(box, OBJECT)


def _centred(picture: Tensor, longest: int) -> Tensor:
    """The picture [H, W, 3] with a longer side of that many pixels, in the middle of a white square."""
    scale = longest / max(picture.shape[:2])
    height, width = (max(1, round(side * scale)) for side in picture.shape[:2])
    square = picture.new_full((SIZE, SIZE, 3), WHITE)
    top, left = (SIZE - height) // 2, (SIZE - width) // 2
    square[top : top + height, left : left + width] = _resized(picture[None], (height, width))[0]
    return square


def _resized(pictures: Tensor, size: tuple[int, ...]) -> Tensor:
    """[n, H, W, C] at another height and width."""
    if tuple(pictures.shape[1:3]) == tuple(size):
        return pictures
    resized = interpolate(pictures.movedim(-1, 1), tuple(size), mode="bicubic", antialias=True)
    return resized.movedim(1, -1).clamp(0, 1)
