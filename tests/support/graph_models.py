"""Small models under the names that the graphs in workflows/ ask for, made once and kept in the user's cache."""

import hashlib
import inspect
import json
import os
import shutil
import time
from collections.abc import Callable
from pathlib import Path

import environment
import small_models as make

Maker = Callable[[Path, Path], object]  # (the file to write, the folder that holds them all)

SD15 = "checkpoints/v1-5-pruned-emaonly-fp16.safetensors"
SDXL = "checkpoints/sd_xl_base_1.0.safetensors"


def unet(preset: dict, seed: int, sign: int = 1) -> Maker:
    return lambda path, models: make.make_unet(path, preset, seed, sign)


def lora(base: str, seed: int) -> Maker:
    return lambda path, models: make.make_lora(path, models / base, seed=seed, text=True)


def pcm_lora(base: str) -> Maker:
    return lambda path, models: make.make_pcm_lora(path, models / base)


def sd3_lora(seed: int) -> Maker:
    return lambda path, models: make.make_sd3_lora(path, seed=seed)


def controlnet(seed: int) -> Maker:
    return lambda path, models: make.make_controlnet(path, make.SD15_TINY, seed)


def ip_adapter(preset: dict) -> Maker:
    return lambda path, models: make.make_ip_adapter(path, preset)


# In this order: some are made from others.
MAKERS: dict[str, Maker] = {
    SD15: lambda path, models: make.make_checkpoint(path, unet_config=make.SD15_TINY),
    SDXL: lambda path, models: make.make_sdxl_checkpoint(path),
    "checkpoints/sd_xl_refiner_1.0.safetensors": lambda path, models: make.make_refiner_checkpoint(path),
    "checkpoints/sd3_medium_incl_clips.safetensors": lambda path, models: make.make_sd3_checkpoint(path),
    "diffusion_models/perflow-sdxl-base-v0-fix.safetensors": unet(make.SDXL_SMALL, seed=10),
    "diffusion_models/perflow-sd21-artius.safetensors": unet(make.SD21_SMALL, seed=11),
    "diffusion_models/instaflow-0.9b.safetensors": unet(make.SD15_TINY, seed=12, sign=-1),
    "diffusion_models/2-rectified-flow.safetensors": unet(make.SD15_TINY, seed=13, sign=-1),
    "text_encoders/perflow-sd21-artius-text-encoder.safetensors": lambda path, models: make.make_text_encoder(path),
    "vae/perflow-sd21-artius-vae.safetensors": lambda path, models: make.make_vae(path),
    "perflow/perflow-sd15-delta-v0-1.safetensors": lambda path, models: make.make_delta(path, models / SD15),
    "loras/add_detail.safetensors": lora(SD15, seed=14),
    "loras/blindbox_v1_mix.safetensors": lora(SD15, seed=15),
    "loras/pcm_sd15_smallcfg_4step_converted.safetensors": pcm_lora(SD15),
    "loras/pcm_sdxl_smallcfg_4step_converted.safetensors": pcm_lora(SDXL),
    "loras/pcm_deterministic_4step_shift3.safetensors": sd3_lora(seed=16),
    "loras/pcm_stochastic_shift3.safetensors": sd3_lora(seed=17),
    "controlnet/control_v11f1p_sd15_depth_fp16.safetensors": controlnet(seed=18),
    "controlnet/control_v11f1e_sd15_tile_fp16.safetensors": controlnet(seed=19),
    "controlnet/control_v11p_sd15_canny_fp16.safetensors": controlnet(seed=20),
    "clip_vision/CLIP-ViT-H-14-laion2B-s32B-b79K.safetensors": lambda path, models: make.make_clip_vision(path),
    "ipadapter/ip-adapter_sd15.safetensors": ip_adapter(make.SD15_TINY),
    "ipadapter/ip-adapter_sdxl_vit-h.safetensors": ip_adapter(make.SDXL_SMALL),
}

UNUSED_FOR = 24 * 3600  # seconds after which models made by other sources are thrown away


def folder_with_all() -> Path:
    """A folder laid out as ComfyUI's models/ with every file of the table; the first call makes them (3 GB, half a
    minute), later ones find them."""
    folder = environment.cache_root() / "models" / f"graphs-{version()}"
    if not (folder / "complete").is_file():
        with environment._lock("graph-models"):
            for unfinished in folder.glob("*/.*"):  # of a run that was ended
                unfinished.unlink()
            for name, maker in MAKERS.items():
                if not (folder / name).is_file():
                    maker(folder / name, folder)
            (folder / "complete").touch()
            remove_unused(folder.parent)
    os.utime(folder)
    return folder


def version() -> str:
    """Changes with every line of the sources that decide what is in the files."""
    package = Path(inspect.getfile(make)).parent
    digest = hashlib.sha256()
    for source in (*sorted(package.glob("*.py")), Path(__file__)):
        digest.update(source.read_bytes())
    return digest.hexdigest()[:12]


def remove_unused(models: Path) -> None:
    for folder in models.glob("graphs-*"):
        if time.time() - folder.stat().st_mtime > UNUSED_FOR:
            shutil.rmtree(folder, ignore_errors=True)


def write_model_paths(file: Path) -> Path:
    """Write what --extra-model-paths-config takes to show ComfyUI all of these models."""
    models = folder_with_all()
    keys = sorted({Path(name).parent.name for name in MAKERS})
    file.write_text(json.dumps({"small": {key: str(models / key) for key in keys}}))  # JSON is YAML
    return file
