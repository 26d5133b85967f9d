"""A flow-matching model as a teacher: a transformer of diffusers, from a diffusers folder or a file beside one."""

import inspect
import json
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import diffusers
import safetensors
import torch
import transformers
from diffusers.pipelines.flux.pipeline_flux import calculate_shift
from torch import Tensor

from perflow_core.sampling.chord import shifted
from perflow_core.sampling.windows import NUM_TIMESTEPS
from perflow_core.training.base import FlowBase
from perflow_core.weights.transformer_names import BLOCK, TransformerNames

from .config import TeacherConfig
from .flow_families import FAMILIES, FlowFamily
from .stopping import TrainingError
from .teacher import Prompts, Teacher, cast, digests, first_line

CONFIG = "config.json"  # of a network with weights
STORED = {"F32": torch.float32, "F16": torch.float16}  # what else there is becomes bfloat16


@dataclass(kw_only=True)
class FlowTeacher(Teacher):
    """One of `flow_families`. Its timesteps T are 1000 times the time before the shift, as the core has them."""

    patch: ClassVar[int] = 2  # of so many places, in height and width, is one token in each family
    base: FlowBase
    family: FlowFamily
    tokens: int  # of a prompt
    guidance: float | None  # that its transformer is given as an input

    def latent_shape_at(self, height: int, width: int) -> tuple[int, ...]:
        config, scale = self.vae.config, _vae_scale(self.pipeline)
        channels = config.z_dim if "z_dim" in config else config.latent_channels
        places = height // scale, width // scale
        return (channels, 1, *places) if self.family.frames else (channels, *places)

    @property
    def prompt_size(self) -> tuple[int, int, int]:
        config = self.unet.config
        return self.family.before + self.tokens, config[self.family.width], config.get("pooled_projection_dim", 0)

    @property
    def side_step(self) -> int:
        return self.patch * _vae_scale(self.pipeline)

    @property
    def lora_targets(self) -> list[str]:
        """Every linear layer of the blocks, as the node Train PeRFlow Delta has them."""
        layers = self.unet.named_modules()
        return [name for name, layer in layers if isinstance(layer, torch.nn.Linear) and BLOCK.search(name)]

    @property
    def names(self) -> TransformerNames:
        return self.family.names(self.unet)

    @property
    def facts(self) -> dict[str, str]:
        return {} if self.guidance is None else {"embedded_guidance": f"{self.guidance:g}"}

    def conditioned(self, unet: Any, prompts: Prompts) -> Callable[[Tensor, Tensor], Tensor]:
        def v(x: Tensor, T: Tensor) -> Tensor:
            sigma = shifted(T / NUM_TIMESTEPS, self.base.shift)
            guidance = None if self.guidance is None else torch.full_like(sigma, self.guidance)
            return self.family.call(unet, x, sigma, prompts, guidance)

        return v

    def _encode_prompts(self, texts: list[str]) -> Prompts:
        return self.family.encode(self.pipeline, texts, self.tokens, self.device)


def is_one(path: Path, config: TeacherConfig) -> bool:
    """Whether the teacher's folder, or that beside its file, is of a model with a transformer."""
    return (_folder(path, config) / "transformer").is_dir()


def load(path: Path, config: TeacherConfig, resolution: int, of_sizes: bool = False) -> FlowTeacher:
    """The teacher on the CPU, in the precision that it is stored in. Raises TrainingError.

    of_sizes: on the meta device, with sizes and no numbers, and so without digests of them.
    """
    folder = _folder(path, config)
    family, pipeline = _pipeline(path, folder, of_sizes)
    transformer, scheduler = pipeline.transformer, pipeline.scheduler
    step = FlowTeacher.patch * _vae_scale(pipeline)
    if resolution % step:
        raise TrainingError(
            f"data.resolution is {resolution}, expected a multiple of {step} for {path.name}: choose one."
        )
    places = transformer.config.get("pos_embed_max_size")  # SD3's table of positions
    if places and resolution > places * step:
        raise TrainingError(
            f"data.resolution is {resolution}, expected at most {places * step} for {path.name}: lower it."
        )
    if config.prediction_type != "auto":
        raise TrainingError(
            f'teacher.prediction_type is "{config.prediction_type}" for {path.name}, a flow model, which predicts its '
            "velocity: leave it out."
        )
    if config.clip_skip:
        raise TrainingError(
            f"teacher.clip_skip is {config.clip_skip} for {path.name}, a flow model, and only Stable Diffusion 1.5, "
            "2.x and SDXL have it: leave it out."
        )
    guided = transformer.config.get("guidance_embeds")
    if not guided and config.embedded_guidance != TeacherConfig.model_fields["embedded_guidance"].default:
        raise TrainingError(
            f"teacher.embedded_guidance is {config.embedded_guidance:g}, and {path.name} takes no guidance as an "
            "input: leave it out; teacher.guidance is its CFG."
        )
    base = FlowBase(_shift(scheduler.config, config, (resolution // step) ** 2), noise_scale=1.0)
    return FlowTeacher(
        name=path.name,
        architecture=family.architecture,
        base=base,
        unet=transformer,
        pipeline=pipeline,
        resolution=resolution,
        digests={} if of_sizes else digests(pipeline, transformer, {"shift": base.shift}),
        family=family,
        tokens=config.text_length or _tokens(pipeline),
        guidance=config.embedded_guidance if guided else None,
    )


def _folder(path: Path, config: TeacherConfig) -> Path:
    """What has all but the transformer of a single file."""
    return path if path.is_dir() else Path(config.config)


def _pipeline(path: Path, folder: Path, of_sizes: bool) -> tuple[FlowFamily, Any]:
    """The family and the pipeline. Raises TrainingError for one that cannot be a teacher."""
    try:
        index = json.loads((folder / "model_index.json").read_text(encoding="utf-8"))
        name = index["_class_name"]
    except (OSError, ValueError, KeyError) as error:
        raise TrainingError(
            f"{folder / 'model_index.json'} does not name a pipeline ({error}), expected a complete diffusers folder: "
            "download it again or choose another."
        ) from error
    if name not in FAMILIES:
        raise TrainingError(
            f"The teacher {path} is a {name}, expected one of {', '.join(FAMILIES)}: choose another model, or train "
            "with the node Train PeRFlow Delta, which takes more."
        )
    kind, family = getattr(diffusers, name), FAMILIES[name]
    try:
        stored = {part.name: _stored_dtype(sorted(part.glob("*.safetensors"))) for part in folder.iterdir()}
        if path != folder:
            stored["transformer"] = _stored_dtype([path])
        parts: dict[str, Any] = {}
        if of_sizes:
            parts = {part: _of_sizes(folder / part, index[part], stored[part]) for part in _networks(folder, index)}
        elif path != folder:
            of_kind = getattr(diffusers, _transformer_class(folder))
            parts["transformer"] = of_kind.from_single_file(
                str(path), config=str(folder / "transformer"), dtype=stored["transformer"]
            )
        pipeline = kind.from_pretrained(str(folder), dtype=stored, local_files_only=True, **parts)
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, AttributeError) as error:
        raise TrainingError(
            f"The teacher {path} cannot be loaded ({first_line(error)}), expected a complete diffusers folder of a "
            f"{name}: download it again or choose another."
        ) from error
    config = pipeline.transformer.config
    found = None
    if config.in_channels != family.channels or config.get("image_dim"):
        found = f"its transformer reads {config.in_channels} channels"
    elif getattr(pipeline, "transformer_2", None) is not None or pipeline.config.get("expand_timesteps"):
        found = "it has two transformers, or a time for each token"
    elif pipeline.scheduler.config.get("invert_sigmas"):
        found = "its scheduler goes from data to noise"
    if found:
        raise TrainingError(
            f"The teacher {path} is of another kind ({found}), expected a model that makes pictures from text alone, "
            f"such as the first {name}: choose another, or train with the node Train PeRFlow Delta."
        )
    return family, pipeline


def _transformer_class(folder: Path) -> str:
    name: str = json.loads((folder / "transformer" / CONFIG).read_text(encoding="utf-8"))["_class_name"]
    return name


def _networks(folder: Path, index: Mapping[str, Any]) -> list[str]:
    """The parts of a pipeline that have weights."""
    return [part for part, of_kind in index.items() if isinstance(of_kind, list) and (folder / part / CONFIG).is_file()]


def _of_sizes(folder: Path, of_kind: list[str], dtype: torch.dtype) -> Any:
    """A network on the meta device, in the precisions that its library loads it in where it is stored in dtype.

    of_kind: library and class.
    """
    library, name = of_kind
    kind: Any = getattr({"diffusers": diffusers, "transformers": transformers}[library], name)
    with torch.device("meta"):
        if library == "diffusers":
            network = kind.from_config(kind.load_config(folder))
        else:
            network = kind(kind.config_class.from_pretrained(folder))
    if library == "diffusers" or dtype == torch.float16:  # transformers keeps nothing in float32 beside bfloat16
        cast(network, dtype)
    else:
        torch.nn.Module.to(network, dtype)
    return network


def _stored_dtype(paths: list[Path]) -> torch.dtype:
    """Of the first tensor in the first file."""
    for path in paths[:1]:
        with safetensors.safe_open(str(path), framework="pt") as file:
            for key in file.keys():  # noqa: SIM118 - not a dictionary
                return STORED.get(file.get_slice(key).get_dtype(), torch.bfloat16)
    return torch.float32


def _vae_scale(pipeline: Any) -> int:
    """Pixels, in height and width, for a place of the latent."""
    scale: int = getattr(pipeline, "vae_scale_factor_spatial", 0) or pipeline.vae_scale_factor
    return scale


def _tokens(pipeline: Any) -> int:
    """How many the pipeline itself takes of a text."""
    tokens: int = inspect.signature(type(pipeline).__call__).parameters["max_sequence_length"].default
    return tokens


def _shift(scheduler: Any, config: TeacherConfig, tokens: int) -> float:
    """As the configuration says, or else the scheduler for a picture of so many tokens."""
    if config.shift != "auto":
        return config.shift
    if scheduler.get("use_dynamic_shifting"):
        sizes = ("base_image_seq_len", "max_image_seq_len", "base_shift", "max_shift")
        mu: float = calculate_shift(tokens, *(scheduler[name] for name in sizes))
        return mu if scheduler.get("time_shift_type") == "linear" else math.exp(mu)
    shift: float = scheduler["flow_shift" if scheduler.get("use_flow_sigmas") else "shift"]
    return shift
