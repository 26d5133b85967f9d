"""Wonder3D's UNet: ComfyUI's own with a second attention in each transformer block, applied by ComfyUI's patches."""

from typing import Any

import torch
from comfy.ldm.modules.attention import BasicTransformerBlock, CrossAttention, optimized_attention
from comfy.ldm.modules.diffusionmodules.openaimodel import UNetModel
from torch import Tensor

from ....perflow_core.views.twelve_views import domains_in_one_row, domains_in_two_rows, views_in_one_row
from ....perflow_core.views.wonder3d_file import ATTENTION, CHANNELS, NORM

Options = dict[str, Any]

# Stable Diffusion 1.5's layout but for the input and the class embedding; widths are the file's.
LAYOUT: Options = dict(
    image_size=32,
    in_channels=CHANNELS,
    out_channels=4,
    num_res_blocks=[2, 2, 2, 2],
    transformer_depth=[1, 1, 1, 1, 1, 1, 0, 0],
    transformer_depth_middle=1,
    transformer_depth_output=[1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0],
    use_spatial_transformer=True,
    use_linear_in_transformer=False,
    legacy=False,
    num_classes="sequential",
    adm_in_channels=10,
)


class Wonder3DUNet(UNetModel):
    """Each transformer block reads the six views, then both domains, then the picture that it was given.

    The patches are set in every call, so they always work with this module's own weights, whatever was cloned.
    """

    def __init__(self, *, dtype: torch.dtype, device: torch.device | None, operations: Any, **config: Any):
        super().__init__(dtype=dtype, device=device, operations=operations, **config)
        self.blocks: dict[tuple[str, int], BasicTransformerBlock] = {}  # by the name that patches get
        for name, block in self.named_modules():
            if isinstance(block, BasicTransformerBlock):
                _add_joint_attention(block, dtype, device, operations)
                self.blocks[_place(name)] = block

    def forward(
        self,
        x: Tensor,
        timesteps: Tensor | None = None,
        context: Tensor | None = None,
        y: Tensor | None = None,
        control: Any = None,
        transformer_options: Options | None = None,
        **kwargs: Any,
    ) -> Tensor:
        """x: [12 n, 8, h, w], y: [12 n, 10], context: [12 n, tokens, width]; returns [12 n, 4, h, w]."""
        options = self._with_patches(transformer_options or {})
        return super().forward(x, timesteps, context, y, control, options, **kwargs)

    def _with_patches(self, options: Options) -> Options:
        """A copy of ComfyUI's transformer options with ours before other nodes' patches."""
        patches, replaced = options.get("patches", {}), options.get("patches_replace", {})
        after_attn1 = [self._read_both_domains, *patches.get("middle_patch", [])]
        attn1 = dict.fromkeys(self.blocks, read_all_views) | replaced.get("attn1", {})
        return options | {
            "patches": patches | {"middle_patch": after_attn1},
            "patches_replace": replaced | {"attn1": attn1},
        }

    def _read_both_domains(self, h: Tensor, options: Options) -> Tensor:
        """h + Attn(norm(h)) over a view's normals and colours; a "middle_patch", between attn1 and attn2."""
        block = self.blocks[options["block"]]
        pairs = domains_in_one_row(getattr(block, NORM)(h))
        return h + domains_in_two_rows(getattr(block, ATTENTION)(pairs, transformer_options=options))


def read_all_views(q: Tensor, k: Tensor, v: Tensor, options: Options) -> Tensor:
    """Self-attention over a domain's six views; stands in for attn1 between its projections, [12 n, N, C]."""
    rows = [views_in_one_row(tokens) for tokens in (q, k, v)]
    heads, precision = options["n_heads"], options["attn_precision"]
    out = optimized_attention(*rows, heads, attn_precision=precision, transformer_options=options)
    return out.reshape(q.shape)


def _add_joint_attention(block: BasicTransformerBlock, dtype: torch.dtype, device: Any, operations: Any) -> None:
    width, placed = block.n_heads * block.d_head, dict(dtype=dtype, device=device)
    block.add_module(NORM, operations.LayerNorm(width, **placed))
    heads = dict(heads=block.n_heads, dim_head=block.d_head, attn_precision=block.attn_precision)
    block.add_module(ATTENTION, CrossAttention(width, **heads, **placed, operations=operations))


def _place(module: str) -> tuple[str, int]:
    """("input", 4) for "input_blocks.4.1.transformer_blocks.0"; the middle has number 0."""
    kind, number = module.split(".")[:2]
    return kind.removesuffix("_blocks").removesuffix("_block"), 0 if kind == "middle_block" else int(number)
