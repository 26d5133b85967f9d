"""Wonder3D's UNet file: its names, by diffusers or by ComfyUI, and whether it is one.

It is Stable Diffusion 1.5's UNet with eight input channels (the picture's latent beside the noisy one), a class
embedding for camera and domain, and in each transformer block a second attention with a norm of its own.
"""

import re
from collections.abc import Iterable, Mapping

from ..errors import Problem, counted, shown, sizes, tensors_named
from ..weights.unet_layout import INPUT_LAYER, Shape, without_prefix
from ..weights.weights_file import WeightsFileError, by_weight

NORM, ATTENTION = "norm_joint_mid", "attn_joint_mid"  # the joint attention's modules in a transformer block
OLD_NAME = re.compile(r"(?<=_joint_)twice(?=\.)")  # what the first published files called them
JOINT_TENSORS = (
    *(f"{NORM}.{own}" for own in ("weight", "bias")),
    *(f"{ATTENTION}.{own}.weight" for own in ("to_q", "to_k", "to_v", "to_out.0")),
    f"{ATTENTION}.to_out.0.bias",
)
IN_EACH_BLOCK = "attn1.to_q.weight"  # a tensor that every transformer block has, to find the blocks by
CLASS_EMBEDDING = "label_emb.0.0.weight"
CHANNELS = 8
GROUPS = 32  # of the norms: every width is a multiple
LEVELS = [f"input_blocks.{first}.0.in_layers.2.weight" for first in (1, 4, 7, 10)]  # each level's first convolution
READS_CONTEXT = "input_blocks.1.1.transformer_blocks.0.attn2.to_k.weight"
EXPECTED = "expected Wonder3D's UNet (unet/diffusion_pytorch_model of wonder3d-v1.0)"


def with_joint_names(names: Mapping[str, str]) -> dict[str, str]:
    """Diffusers' name -> ComfyUI's, with the joint attention's tensors beside each transformer block's others.

    ComfyUI's map has a second name for the class embedding, SDXL's, which is left out.
    """
    joint = {
        theirs.removesuffix(IN_EACH_BLOCK) + name: ours.removesuffix(IN_EACH_BLOCK) + name
        for theirs, ours in names.items()
        if theirs.endswith("." + IN_EACH_BLOCK)
        for name in JOINT_TENSORS
    }
    return {theirs: ours for theirs, ours in names.items() if not theirs.startswith("add_embedding.")} | joint


def names_in_file(file: str, keys: Iterable[str], names: Mapping[str, str]) -> dict[str, str]:
    """ComfyUI's name -> the file's for each tensor; where it has neither's name, the file's own stands for ComfyUI's.

    names: diffusers' name -> ComfyUI's, as `with_joint_names` gives them. Raises WeightsFileError where two tensors are
    for one weight.
    """
    bare = {key: OLD_NAME.sub("mid", without_prefix(key)) for key in keys}
    return by_weight(file, {key: names.get(name, name) for key, name in bare.items()}, "download it again")


def check_is_wonder3d(file: str, shapes: Mapping[str, Shape]) -> None:
    """Raises WeightsFileError for another UNet, and for what is none. shapes: by ComfyUI's names."""
    shape = shapes.get(INPUT_LAYER, ())
    layers = [shapes.get(key, ()) for key in (INPUT_LAYER, *LEVELS, READS_CONTEXT)]
    if len(shape) != 4 or any(len(layer) < 2 or not layer[0] or layer[0] % GROUPS for layer in layers):
        raise WeightsFileError(
            f"{file} has {counted(len(shapes), 'tensor')} and not the layers of a Stable Diffusion 1.5 UNet, "
            f"{EXPECTED}: choose another file."
        )
    if shape[1] != CHANNELS:
        raise WeightsFileError(
            f"{file} is a UNet with {shape[1]} input channels, {EXPECTED} with {CHANNELS}", Problem.OTHER_UNET
        )
    if CLASS_EMBEDDING not in shapes:
        raise WeightsFileError(
            f"{file} is a UNet with {CHANNELS} input channels and without class_embedding, as InstructPix2Pix and "
            f"Zero123 are, {EXPECTED}",
            Problem.OTHER_UNET,
        )


def widths(shapes: Mapping[str, Shape]) -> tuple[int, list[int], int]:
    """Channels, how many times as many each level has, and the width of the context; after `check_is_wonder3d`."""
    channels = shapes[INPUT_LAYER][0]
    return channels, [shapes[level][0] // channels for level in LEVELS], shapes[READS_CONTEXT][1]


def names_in_messages(in_file: Mapping[str, str], names: Mapping[str, str]) -> dict[str, str]:
    """ComfyUI's name -> the file's; a tensor that the file lacks has diffusers' name where the file uses those.

    in_file: as `names_in_file` gives it; names: as for that.
    """
    by_diffusers = any(not key.endswith(ours) for ours, key in in_file.items())
    return ({ours: theirs for theirs, ours in names.items()} if by_diffusers else {}) | dict(in_file)


def check_complete(
    file: str, shapes: Mapping[str, Shape], model: Mapping[str, Shape], names: Mapping[str, str]
) -> None:
    """Raises WeightsFileError where a file lacks tensors of the model, has others, or others' shapes.

    shapes: the file's, model: the model's, by ComfyUI's names; names: as `names_in_messages` gives them.
    """
    if missing := [key for key in model if key not in shapes]:
        joint = all(key.endswith(JOINT_TENSORS) for key in missing)
        what = " of the attention between normals and colours" if joint else ""
        lacks = tensors_named([names.get(key, key) for key in missing])
        raise WeightsFileError(f"{file} lacks {lacks}{what}, {EXPECTED}: download the whole file.")
    if unknown := [names[key] for key in shapes if key not in model]:
        raise WeightsFileError(
            f"{file} has {tensors_named(unknown)}, which Wonder3D does not have, {EXPECTED}: choose another file."
        )
    for key, shape in shapes.items():
        if shape != model[key]:
            raise WeightsFileError(
                f"{file}: tensor {shown(names[key])} has shape {sizes(shape)}, expected {sizes(model[key])} to go with "
                "its other tensors: download it again."
            )
