"""Teach the teacher another drawing style: all of its weights (a fine-tuned base), or a LoRA beside them.

`python -m small_model.trainers.train_style FOLDER woodcut --tokenizer FOLDER --minutes 15` writes FOLDER/tuned.pt, and
with `neon --rank 8` FOLDER/style-lora.safetensors, which Load LoRA reads; both after train_teacher or restore in the
same folder. The loop is train_teacher's, on the same drawings in that style. Stopped at any moment it goes on from its
last state.
"""

from __future__ import annotations

from pathlib import Path

import torch
from safetensors.torch import save_file
from transformers import CLIPTokenizer

from perflow_core.atomic_file import atomic_write
from perflow_core.weights.lora_file import lora_of_peft

from ..networks import storage
from ..networks.unet import narrow_unet
from ..scenes.styles import STYLES
from .dataset import latents_of
from .devices import placed
from .muon import optimizers_of
from .train_teacher import BATCH, Batches, learn, predicted
from .training_loop import arguments

RATE, LORA_RATE = 4e-4, 1e-3  # the teacher knows the scenes already
ADAPTED = ["to_q", "to_k", "to_v", "to_out.0", "conv1", "conv2"]


def train(
    folder: Path, style: str, tokenizer: Path, pictures: int, minutes: float, batch: int, rank: int, rate: float
) -> Path:
    """Returns the file with the result."""
    latents, captions = latents_of(folder, pictures, style)
    batches = Batches.of_captions(latents, captions, CLIPTokenizer.from_pretrained(tokenizer), batch)
    torch.manual_seed(0)
    unet = narrow_unet()
    unet.load_state_dict(storage.averaged(folder / "teacher.pt", "unet")[0])
    placed(unet)
    if not rank:
        optimizers = optimizers_of(list(unet.parameters()), [unet.conv_in, unet.conv_out], rate or RATE)
        learn(unet, predicted, batches, optimizers, folder / "tuned.pt", minutes)
        return folder / "tuned.pt"
    from peft import LoraConfig

    unet.requires_grad_(False)  # so that the adapters alone are trained
    unet.add_adapter(LoraConfig(r=rank, lora_alpha=rank, target_modules=ADAPTED))
    trained = {name: weight for name, weight in unet.named_parameters() if weight.requires_grad}
    optimizer = torch.optim.AdamW(trained.values(), rate or LORA_RATE, betas=(0.9, 0.99), weight_decay=0.0)
    means = learn(unet, predicted, batches, [optimizer], folder / "style-lora-state.pt", minutes)
    file = folder / "style-lora.safetensors"
    with atomic_write(file) as unfinished:
        save_file(lora_of_peft(dict(zip(trained, means, strict=True)), torch.float16), unfinished)
    return file


if __name__ == "__main__":
    of_rate = f"{RATE:g} for all weights, {LORA_RATE:g} for a LoRA"
    parser = arguments(__doc__, 24_000, 15, BATCH, 0.0, of_rate)
    parser.add_argument("style", choices=list(STYLES))
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument("--rank", type=int, default=0, help="of a LoRA; 0 trains all weights")
    print(train(**vars(parser.parse_args())))
