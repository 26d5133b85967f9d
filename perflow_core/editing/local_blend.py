"""LocalBlend of Prompt-to-Prompt: the edit changes the picture only where chosen words are."""

import torch
from einops import rearrange, repeat
from torch import Tensor
from torch.nn.functional import interpolate, max_pool2d


def blend_mask(maps: Tensor, size: tuple[int, int], threshold: float) -> Tensor:
    """Where an edit may change the picture, from the attention that every pixel gives to the words; boolean.

    maps [n, 1 + E, h, w]: source and edits of n pictures, summed over words, layers and steps (their scale does not
    matter). 3x3 max-pool, to the latent's size, over the maximum, above the threshold; an edit's mask is its own or the
    source's. Returns [n, 1 + E, 1, *size].
    """
    pooled = max_pool2d(maps, 3, stride=1, padding=1)
    scaled = interpolate(pooled, size=size)
    peak = scaled.amax(dim=(-2, -1), keepdim=True)
    words = (scaled > threshold * peak)[:, :, None]
    return words | words[:, :1]


class BlendedRows:
    """x := x_source + mask (x - x_source) after every step of a sampling loop, from outside of the loop.

    A loop works on every pixel of every row by itself. So a pixel outside the mask is read from the source's row, and
    one that comes back continues in a spare row, until then the source: with its latent and with all that the
    loop keeps of it. The authors' loop (DDIM) keeps nothing but the latent.

    Rows of a batch: n sources, each followed by its E edits. The loop gets `spares` more rows for every edit, so a
    pixel may come back as many times, and beyond that continues from where it left. As many as the steps are enough for
    loops with two model calls a step.
    """

    def __init__(self, shape: torch.Size, group: int, spares: int, device: torch.device):
        """shape [n (1 + E), C, H, W] of the batch; group = 1 + E."""
        self.count, self.group, self.spares = shape[0], group, spares
        pixels = (shape[0] // group, group - 1, 1, *shape[2:])
        self.inside = torch.ones(pixels, dtype=torch.bool, device=device)
        self.row = torch.zeros(pixels, dtype=torch.int64, device=device)  # of each edit's own 1 + spares

    def extended(self, x: Tensor) -> Tensor:
        """What the loop starts from, [n (1 + E) + n E spares, C, H, W]: the spare rows are the source."""
        source = self._grouped(x)[:, 0]
        return torch.cat([x, repeat(source, "n ... -> (n e spare) ...", e=self.group - 1, spare=self.spares)])

    def picture(self, x: Tensor) -> Tensor:
        """The blended batch in the loop's rows: [n (1 + E), C, H, W]."""
        grouped = self._grouped(x[: self.count])
        spare = x[self.count :].view(len(grouped), self.group - 1, self.spares, *x.shape[1:])  # of 0 rows too
        rows = torch.cat([grouped[:, 1:, None], spare], dim=2)
        index = repeat(self.row, "n e 1 h w -> n e 1 c h w", c=x.shape[1])
        edits = torch.where(self.inside, rows.gather(2, index)[:, :, 0], grouped[:, :1])
        return rearrange(torch.cat([grouped[:, :1], edits], dim=1), "n row ... -> (n row) ...")

    def open(self, mask: Tensor) -> None:
        """From now on the picture has this mask, as `blend_mask` returns it; the next x0 is spread with it already."""
        comes_back = mask[:, 1:] & ~self.inside
        self.row = (self.row + comes_back).clamp(max=self.spares)
        self.inside = mask[:, 1:]

    def spread(self, denoised: Tensor) -> Tensor:
        """x0 or noise of the batch, [n (1 + E), C, H, W], over the loop's rows: a row not in use has the source's."""
        grouped = self._grouped(denoised)
        rows = rearrange(torch.arange(1 + self.spares, device=denoised.device), "row -> row 1 1 1")
        own = (self.row[:, :, None] == rows) & self.inside[:, :, None]
        edits = torch.where(own, grouped[:, 1:, None], grouped[:, :1, None])
        first = torch.cat([grouped[:, :1], edits[:, :, 0]], dim=1)
        spare = rearrange(edits[:, :, 1:], "n e spare ... -> (n e spare) ...")
        return torch.cat([rearrange(first, "n row ... -> (n row) ..."), spare])

    def _grouped(self, x: Tensor) -> Tensor:
        return rearrange(x, "(n row) ... -> n row ...", row=self.group)
