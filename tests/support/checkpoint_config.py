"""The configuration by which diffusers reads a small checkpoint as a single file."""

import json
import shutil
from pathlib import Path
from typing import Any

import transformers
from trial.small_teachers import NARROW, SCHEDULER


def describe_checkpoint(folder: Path, tokenizer: Path) -> Path:
    """The diffusers configuration of small_models.make_checkpoint's SD1.5, for reading it as a single file."""
    folder.mkdir(parents=True)
    libraries = {"diffusers": ("unet", "vae", "scheduler"), "transformers": ("text_encoder", "tokenizer")}
    classes = {
        "unet": "UNet2DConditionModel",
        "vae": "AutoencoderKL",
        "scheduler": "DDIMScheduler",
        "text_encoder": "CLIPTextModel",
        "tokenizer": "CLIPTokenizer",
    }
    index: dict[str, Any] = {part: [library, classes[part]] for library, parts in libraries.items() for part in parts}
    index |= {
        "_class_name": "StableDiffusionPipeline",
        "safety_checker": [None, None],
        "feature_extractor": [None, None],
    }
    (folder / "model_index.json").write_text(json.dumps(index), encoding="utf-8")
    unet = dict(NARROW) | dict(block_out_channels=(320, 320), norm_num_groups=32, attention_head_dim=8)
    vae: dict[str, Any] = dict(block_out_channels=(128, 256, 512, 512), layers_per_block=2, scaling_factor=0.18215)
    vae |= dict(down_block_types=("DownEncoderBlock2D",) * 4, up_block_types=("UpDecoderBlock2D",) * 4)
    configs: dict[str, dict[str, Any]] = {
        "unet/config.json": unet | {"cross_attention_dim": 768},
        "vae/config.json": vae,
        "scheduler/scheduler_config.json": SCHEDULER | {"prediction_type": "epsilon"},
        "text_encoder/config.json": transformers.CLIPTextConfig(
            hidden_size=768, intermediate_size=3072, num_hidden_layers=12, num_attention_heads=12
        ).to_dict(),
    }
    for name, values in configs.items():
        (folder / name).parent.mkdir()
        named = values | {"_class_name": classes[name.split("/")[0]]}
        (folder / name).write_text(json.dumps(named), encoding="utf-8")
    shutil.copytree(tokenizer, folder / "tokenizer")
    kind = folder / "tokenizer" / "tokenizer_config.json"  # ComfyUI's says 8192; a published SD1.5 says 77
    kind.write_text(
        json.dumps(json.loads(kind.read_text(encoding="utf-8")) | {"model_max_length": 77}), encoding="utf-8"
    )
    return folder
