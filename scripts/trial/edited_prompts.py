"""Prompt-to-Prompt for tests and benchmark: prompts, the node's defaults, its CONDITIONING without the edit."""

from typing import Any

import torch

KEY = "prompt_to_prompt"
SOURCE = "a lighthouse, at sunset"
EDITED = "a castle, at sunset\na small wooden lighthouse, at the sunset"
DEFAULTS = {"edit": "auto", "cross_steps": 0.8, "self_steps": 0.4, "emphasis": "", "blend": "", "blend_threshold": 0.3}
LATENT = {"samples": torch.zeros(1, 4, 16, 16)}


def unedited(positive: list[Any]) -> list[Any]:
    """The same prompts without the edit that rides on them."""
    return [[cond, {key: value for key, value in options.items() if key != KEY}] for cond, options in positive]
