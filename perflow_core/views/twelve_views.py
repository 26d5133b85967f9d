"""Wonder3D's twelve rows (Long et al., 2023): six views of one object, first as normals, then as colours.

Row 6 d + v is view v in domain d. Self-attention reads all views of a row's domain (multi-view attention, section 4.2),
and a second attention, of the same form, reads the same view in both domains (cross-domain attention, section 4.3).
Queries, keys and values come from the same tokens in both, so each is a plain self-attention over a longer row.
"""

import torch
from einops import rearrange, repeat
from torch import Tensor

from ..errors import Problem, UnusableError

VIEWS = ("front", "front right", "right", "back", "left", "front left")
DOMAINS = ("normals", "colours")
ROWS = len(DOMAINS) * len(VIEWS)

# Elevation and azimuth of each view beside the picture's, in radians: the numbers of the official code, rounded to
# half precision, with which the weights were trained.
ANGLES = ((0.0, 0.0), (-0.2362, 0.8125), (-0.1686, 1.6934), (0.5220, 3.1406), (0.6904, 4.8359), (0.3733, 5.5859))


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
