"""Train the narrow teacher: noise prediction on the latents of drawn pictures. It goes on from its last state.

`python -m training.small.train_teacher FOLDER --pictures 40000 --minutes 60` after train_autoencoder in the same folder.
"""

from __future__ import annotations

import argparse
import math
import time
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from transformers import CLIPTokenizer

from .autoencoder import Encoder
from .dataset import pictures_of
from .muon import optimizers_of
from .text import PLACES, POSITIONS, embeddings, features
from .unet import narrow_unet

BATCH, RATE, EMPTY = 32, 2e-3, 0.1  # EMPTY: how often the caption is left out, so that CFG works
STATE_EVERY = 180  # seconds


def alphas_bar() -> Tensor:
    """SD's table of 1000 cumulative alphas (float64)."""
    return torch.cumprod(1 - torch.linspace(0.00085**0.5, 0.012**0.5, 1000, dtype=torch.float64) ** 2, 0)


@torch.no_grad()
def latents_of(folder: Path, count: int) -> tuple[Tensor, list[str]]:
    """The latents [count, 4, 16, 16] of the drawn pictures, and their captions."""
    pictures, captions = pictures_of(folder, count)
    file = folder / f"latents-{count}.pt"
    if not file.exists():
        encoder = Encoder()
        ema = torch.load(folder / "autoencoder.pt", weights_only=True)["state"]["ema"]
        for weight, average in zip(encoder.parameters(), ema, strict=False):  # the decoder's come after
            weight.copy_(average)
        parts = []
        for i in range(0, count, 50):
            x = torch.from_numpy(np.ascontiguousarray(pictures[i : i + 50])).permute(0, 3, 1, 2).float() / 255
            parts.append(encoder(x.contiguous(memory_format=torch.channels_last)).half())
        torch.save(torch.cat(parts), file)
    return torch.load(file, weights_only=True), captions


def tokens_of(captions: list[str], tokenizer: CLIPTokenizer) -> Tensor:
    """[count, 77]"""
    ids = tokenizer(captions, padding="max_length", max_length=77, truncation=True).input_ids
    return torch.tensor(ids, dtype=torch.int32)


def train(folder: Path, tokenizer: Path, count: int, minutes: float, rate: float) -> None:
    latents, captions = latents_of(folder, count)
    clip = CLIPTokenizer.from_pretrained(tokenizer)
    tokens, empty = tokens_of(captions, clip), tokens_of([""], clip)[0]
    words, positions = embeddings()
    table = alphas_bar()
    weight = (table / (1 - table)).clamp(max=5) * (1 - table) / table  # min-SNR, https://arxiv.org/abs/2303.09556
    c, s, weight = table.sqrt().float(), (1 - table).sqrt().float(), weight.float()

    # The last places of a caption are all alike, so one of them stands for all: attention counts it that often.
    # diffusers adds -10000 (1 - mask) to the logits.
    share = torch.ones(BATCH, PLACES)
    share[:, -1] = 1 + math.log(POSITIONS - PLACES + 1) / 10000

    torch.manual_seed(0)
    unet = narrow_unet()
    weights = list(unet.parameters())
    print(f"{sum(p.numel() for p in weights) / 1e6:.2f}M weights, {len(latents)} latents", flush=True)
    optimizers = optimizers_of(weights, [unet.conv_in, unet.conv_out], rate)
    state = {"seconds": 0.0, "step": 0, "ema": [p.detach().clone() for p in weights]}
    file = folder / "teacher.pt"
    if file.exists():
        saved = torch.load(file, weights_only=True)
        unet.load_state_dict(saved["unet"])
        for optimizer, kept in zip(optimizers, saved["optimizers"], strict=True):
            optimizer.load_state_dict(kept)
        state = saved["state"]
    last = began = time.monotonic()
    before, first, mean = state["seconds"], state["step"], 0.0
    while True:
        state["seconds"] = before + time.monotonic() - began
        done = state["seconds"] / (60 * minutes)
        if done >= 1:
            break
        for optimizer in optimizers:
            for group in optimizer.param_groups:
                group["lr"] = rate * min(1, (state["step"] + 1) / 100) * (0.02 + 0.98 * math.cos(0.5 * math.pi * done))
        random = torch.Generator().manual_seed(state["step"])
        rows = torch.randint(len(latents), (BATCH,), generator=random)
        t = torch.randint(1000, (BATCH,), generator=random)
        x0 = latents[rows].float()
        noise = torch.randn(x0.shape, generator=random)
        said = tokens[rows].clone()
        said[torch.rand(BATCH, generator=random) < EMPTY] = empty
        z = c[t].view(-1, 1, 1, 1) * x0 + s[t].view(-1, 1, 1, 1) * noise
        text = features(said[:, :PLACES], words, positions[:PLACES])
        found = unet(z, t, text, encoder_attention_mask=share, return_dict=False)[0]
        loss = ((found - noise).square().mean((1, 2, 3)) * weight[t]).mean()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, 1.0)
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        state["step"] += 1
        keep = min(0.9995, state["step"] / (state["step"] + 10))
        torch._foreach_lerp_(state["ema"], [p.detach() for p in weights], 1 - keep)
        mean += (loss.item() - mean) / min(state["step"] - first, 300)
        if state["step"] % 100 == 0:
            rate_now = BATCH * 100 / max(time.monotonic() - state.get("mark", began), 1e-9)
            state["mark"] = time.monotonic()
            print(f"{state['seconds']:6.0f} s  step {state['step']}  loss {mean:.4f}  {rate_now:.0f} a second", flush=True)
        if time.monotonic() - last > STATE_EVERY:
            last = time.monotonic()
            _save(file, unet, optimizers, state)
    _save(file, unet, optimizers, state)


def _save(file: Path, unet, optimizers, state) -> None:
    part = file.with_suffix(".part")
    kept = {name: value for name, value in state.items() if name != "mark"}
    torch.save({"unet": unet.state_dict(), "optimizers": [o.state_dict() for o in optimizers], "state": kept}, part)
    part.replace(file)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument("--pictures", type=int, default=40000)
    parser.add_argument("--minutes", type=float, default=60)
    parser.add_argument("--rate", type=float, default=RATE)
    options = parser.parse_args()
    train(options.folder, options.tokenizer, options.pictures, options.minutes, options.rate)
