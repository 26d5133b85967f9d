"""Wonder3D as ComfyUI's model classes have it, read from its file."""

import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import comfy.latent_formats
import comfy.model_base
import comfy.model_management as management
import comfy.model_patcher
import comfy.supported_models_base
import comfy.utils
import torch
from comfy.model_patcher import ModelPatcher
from safetensors import SafetensorError
from torch import Tensor

from ....perflow_core.errors import shown
from ....perflow_core.views.twelve_views import ROWS, class_vectors
from ....perflow_core.views.wonder3d_file import (
    EXPECTED,
    check_complete,
    check_is_wonder3d,
    names_in_file,
    names_in_messages,
    widths,
    with_joint_names,
)
from ....perflow_core.weights.unet_layout import FILE_PREFIXES, Shape
from ....perflow_core.weights.weights_file import WeightsFileError
from .wonder3d_unet import LAYOUT, Wonder3DUNet

# What ComfyUI's reader lets through for files that are damaged, or hold other things than tensors by name.
UNREADABLE = (
    AttributeError,
    EOFError,
    KeyError,
    RuntimeError,
    SafetensorError,
    TypeError,
    ValueError,
    pickle.UnpicklingError,
)


class Wonder3DConfig(comfy.supported_models_base.BASE):
    """A model's layout, in the form that ComfyUI has for its own models."""

    unet_extra_config = {"num_heads": 8, "num_head_channels": -1}  # noqa: RUF012 - as in ComfyUI's
    latent_format = comfy.latent_formats.SD15


class Wonder3DModel(comfy.model_base.BaseModel):
    """Predicts noise, in rows of twelve; Wonder3D Conditioning's picture is half of the UNet's input."""

    def __init__(self, config: Wonder3DConfig, device: torch.device | None = None):
        super().__init__(config, comfy.model_base.ModelType.EPS, device, unet_model=Wonder3DUNet)

    def extra_conds(self, **kwargs: Any) -> dict[str, Any]:
        """Raises ValueError for another latent than of twelve rows, and for another node's conditioning."""
        rows = kwargs["noise"].shape[0]
        if rows % ROWS:
            raise ValueError(
                f"Wonder3D was given a latent of {rows} pictures, expected {ROWS} for each object, which it draws "
                "together: connect the latent of Wonder3D Conditioning as it is."
            )
        if kwargs.get("concat_latent_image") is None:
            raise ValueError(
                "Wonder3D was given conditioning without a picture, expected positive and negative of Wonder3D "
                "Conditioning: connect those to the sampler."
            )
        return super().extra_conds(**kwargs)

    def encode_adm(self, **kwargs: Any) -> Tensor:
        return class_vectors().float().to(kwargs["device"])

    def concat_cond(self, **kwargs: Any) -> Tensor:
        """The picture's latent, scaled as the noisy one is; ComfyUI repeats it, like the context, for more rows."""
        picture, noise = kwargs["concat_latent_image"], kwargs["noise"]
        if picture.shape[2:] != noise.shape[2:]:
            picture = comfy.utils.common_upscale(picture, noise.shape[-1], noise.shape[-2], "bilinear", "center")
        return self.process_latent_in(picture).to(kwargs["device"])


def load_wonder3d(path: str, disable_dynamic: bool = False) -> ModelPatcher:
    """The UNet of a file as a MODEL; what ComfyUI calls again for a copy of its own.

    Raises WeightsFileError for a file that is not Wonder3D's UNet.
    """
    file = shown(Path(path).name)
    tensors = _read(path)
    names = with_joint_names(comfy.utils.unet_to_diffusers(LAYOUT | {"channel_mult": [1, 2, 4, 4]}))
    in_file = names_in_file(file, tensors, names)
    tensors = {ours: tensors[key] for ours, key in in_file.items()}
    shapes = _shapes(tensors)
    check_is_wonder3d(file, shapes)
    patcher = _empty_model(tensors, widths(shapes), disable_dynamic)
    model_shapes = _shapes(patcher.model.diffusion_model.state_dict())
    check_complete(file, shapes, model_shapes, names_in_messages(in_file, names))
    patcher.model.load_model_weights(tensors, "", assign=patcher.is_dynamic())
    patcher.cached_patcher_init = (load_wonder3d, (path,))
    return patcher


def _read(path: str) -> dict[str, Tensor]:
    """The UNet's tensors; nothing in the file is run."""
    try:
        found = comfy.utils.load_torch_file(path, safe_load=True)
        tensors = {str(key): value for key, value in found.items() if isinstance(value, Tensor)}
    except UNREADABLE as error:
        first = next(iter(str(error).splitlines()), type(error).__name__)
        raise WeightsFileError(
            f"{shown(Path(path).name)} cannot be read ({shown(first)}), {EXPECTED} as .safetensors, or as .bin with "
            "nothing but tensors: download it again."
        ) from error
    of_checkpoint = {key: tensor for key, tensor in tensors.items() if key.startswith(FILE_PREFIXES[0])}
    return of_checkpoint or tensors


def _shapes(tensors: Mapping[str, Tensor]) -> dict[str, Shape]:
    return {key: tuple(tensor.shape) for key, tensor in tensors.items()}


def _empty_model(tensors: dict[str, Tensor], widths: tuple[int, list[int], int], disable_dynamic: bool) -> ModelPatcher:
    """A MODEL of those widths, in the precision and on the devices that ComfyUI chooses for such tensors."""
    channels, multiples, context = widths
    config = Wonder3DConfig(LAYOUT | {"model_channels": channels, "channel_mult": multiples, "context_dim": context})
    load_device, offload_device = management.get_torch_device(), management.unet_offload_device()
    dtype = management.unet_dtype(
        model_params=comfy.utils.calculate_parameters(tensors),
        supported_dtypes=config.supported_inference_dtypes,
        weight_dtype=comfy.utils.weight_dtype(tensors),
    )
    cast = management.unet_manual_cast(dtype, load_device, config.supported_inference_dtypes)
    config.set_inference_dtype(dtype, cast)
    model = Wonder3DModel(config).to(offload_device)
    kind = ModelPatcher if disable_dynamic else comfy.model_patcher.CoreModelPatcher
    return kind(model, load_device=load_device, offload_device=offload_device)
