"""The trained teacher as a diffusers folder, and its latents with their captions: what training/ reads.

`python -m small_model.trainers.export FOLDER --tokenizer TOKENIZER --pictures N` writes FOLDER/teacher,
FOLDER/latents.safetensors with latents.json beside it, and FOLDER/delta.safetensors, the delta in this repository as
`student.delta` takes it. FOLDER has the teacher and the autoencoder, from their trainings or from restore.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from diffusers import AutoencoderTiny, DDIMScheduler, StableDiffusionPipeline
from safetensors.torch import save_file
from transformers import CLIPTextConfig, CLIPTextModel, CLIPTokenizer

from ..networks import storage
from ..networks.autoencoder import widen
from ..networks.text_model import POSITIONS, WIDTH, WORDS, text_model
from ..networks.unet import narrow_unet
from .dataset import latents_of, trained_autoencoder


def vae_of(folder: Path) -> AutoencoderTiny:
    """The autoencoder at TAESD's width in diffusers' class."""
    encoder, decoder = trained_autoencoder(folder)
    weights = {f"encoder.layers.{name}": tensor for name, tensor in widen(encoder).items()}
    for name, tensor in widen(decoder).items():  # TAESD counts its clamp as a layer, diffusers does not
        place, _, rest = name.partition(".")
        weights[f"decoder.layers.{int(place) - 1}.{rest}"] = tensor
    vae = AutoencoderTiny()
    vae.load_state_dict(weights)
    return vae


def export(folder: Path, tokenizer: Path, pictures: int) -> None:
    """Write all of it below the folder."""
    unet = narrow_unet()
    unet.load_state_dict(*storage.averaged(folder / "teacher.pt", "unet"))
    # Without the layers, which add nothing, prompts cost nothing.
    text = CLIPTextModel(CLIPTextConfig(vocab_size=WORDS, hidden_size=WIDTH, num_hidden_layers=0))
    weights = text_model("")
    text.load_state_dict({name: weights[name.removeprefix("text_model.")] for name in text.state_dict()})
    StableDiffusionPipeline(
        vae=vae_of(folder),
        text_encoder=text,
        tokenizer=CLIPTokenizer.from_pretrained(tokenizer, model_max_length=POSITIONS),
        unet=unet,
        scheduler=DDIMScheduler(
            beta_start=0.00085,
            beta_end=0.012,
            beta_schedule="scaled_linear",
            clip_sample=False,
            set_alpha_to_one=False,
            steps_offset=1,
        ),
        safety_checker=None,
        feature_extractor=None,
        requires_safety_checker=False,
    ).save_pretrained(folder / "teacher")
    latents, captions = latents_of(folder, pictures)
    save_file({"latents": latents.contiguous()}, folder / "latents.safetensors")
    (folder / "latents.json").write_text(json.dumps(captions), encoding="utf-8")
    delta, metadata = storage.read(storage.WEIGHTS / "delta.safetensors")
    save_file(delta, folder / "delta.safetensors", metadata)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument("--pictures", type=int, required=True)
    export(**vars(parser.parse_args()))
