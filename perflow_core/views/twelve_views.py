"""Wonder3D's twelve rows (Long et al., 2023): six views of one object, first as normals, then as colours.

Row 6 d + v is view v in domain d. Self-attention reads all views of a row's domain (multi-view attention, section 4.2),
and a second attention, of the same form, reads the same view in both domains (cross-domain attention, section 4.3).
Queries, keys and values come from the same tokens in both, so each is a plain self-attention over a longer row.

`on_white` makes the picture that Wonder3D is shown.
"""

import torch
from einops import rearrange, repeat
from torch import Tensor
from torch.nn.functional import interpolate

from ..errors import Problem, UnusableError

VIEWS = ("front", "front right", "right", "back", "left", "front left")
DOMAINS = ("normals", "colours")
ROWS = len(DOMAINS) * len(VIEWS)

# Elevation and azimuth of each view beside the picture's, in radians: the numbers of the official code, rounded to
# half precision, with which the weights were trained.
ANGLES = ((0.0, 0.0), (-0.2362, 0.8125), (-0.1686, 1.6934), (0.5220, 3.1406), (0.6904, 4.8359), (0.3733, 5.5859))

# The picture that Wonder3D is shown: one object on white, as large in it as in training.
SIZE = 256  # pixels a side
OBJECT = 192  # the longer side of the object's box in it, as in Wonder3D's training pictures
VISIBLE = 5 / 255  # a weaker mask is background
WHITE = 1.0


def class_vectors() -> Tensor:
    """Camera and domain of each row for the UNet: [sin q, cos q] with q = (0, elevation, azimuth, normals, colours).

    The domain is one-hot and goes through sine and cosine as the angles do. Returns [12, 10], float64.
    """
    one_hot = torch.eye(len(DOMAINS), dtype=torch.float64).tolist()
    q = torch.tensor([[0.0, *angles, *domain] for domain in one_hot for angles in ANGLES], dtype=torch.float64)
    return torch.cat([q.sin(), q.cos()], dim=1)


def views_in_one_row(tokens: Tensor) -> Tensor:
    """[12 n, N, C] -> [2 n, 6 N, C]: a domain's six views one after another."""
    return rearrange(tokens, "(n d v) t c -> (n d) (v t) c", d=len(DOMAINS), v=len(VIEWS))


def domains_in_one_row(tokens: Tensor) -> Tensor:
    """[12 n, N, C] -> [6 n, 2 N, C]: a view's normals, then its colours."""
    return rearrange(tokens, "(n d v) t c -> (n v) (d t) c", d=len(DOMAINS), v=len(VIEWS))


def domains_in_two_rows(tokens: Tensor) -> Tensor:
    """[6 n, 2 N, C] -> [12 n, N, C], the inverse of `domains_in_one_row`."""
    return rearrange(tokens, "(n v) (d t) c -> (n d v) t c", d=len(DOMAINS), v=len(VIEWS))


def each_twelve_times(pictures: Tensor) -> Tensor:
    """[n, ...] -> [12 n, ...]: the same for every row of a picture."""
    return repeat(pictures, "n ... -> (n row) ...", row=ROWS)


def domains(pictures: Tensor) -> tuple[Tensor, Tensor]:
    """Twelve pictures for each object [12 n, ...] -> its normals and its colours, each [6 n, ...].

    Raises UnusableError for another number of pictures.
    """
    if not len(pictures) or len(pictures) % ROWS:
        raise UnusableError(
            f"There are {len(pictures)} pictures, expected {ROWS} for each object, 6 views as normals and 6 as colours",
            Problem.NOT_TWELVE_VIEWS,
        )
    normals, colours = rearrange(pictures, "(n d v) ... -> d (n v) ...", d=len(DOMAINS), v=len(VIEWS))
    return normals, colours


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
