"""What text encoders of one, large, size would say: files that stock Load Training Dataset reads."""

import json
from pathlib import Path

import torch

WIDTHS = {  # type in the CLIP loaders -> a token's, and that of one vector for the whole prompt
    "lumina2": (4096, 2048),  # of the small model that is there in Z-Image's place
    "flux": (4096, 768),
    "qwen_image": (3584, None),
    "wan": (4096, None),
}
TOKENS = 8


def folder(kind: str) -> str:
    return f"words-{kind}"


def write(base: Path) -> None:
    """For a ComfyServer with that base. Older ComfyUIs look in output, newer ones in datasets."""
    for kind, (width, pooled) in WIDTHS.items():
        random = torch.Generator().manual_seed(0)
        values = {"pooled_output": None if pooled is None else torch.randn(1, pooled, generator=random)}
        words = [[torch.randn(1, TOKENS, width, generator=random), values]]
        shard = {"latents": [{"samples": torch.zeros(1, 4, 8, 8)}], "conditioning": [words]}
        for place in ("output", "datasets"):
            there = base / place / folder(kind)
            there.mkdir(parents=True, exist_ok=True)
            torch.save(shard, there / "shard_0000.pkl")
            (there / "metadata.json").write_text(json.dumps({"num_samples": 1, "num_shards": 1, "shard_size": 1}))
