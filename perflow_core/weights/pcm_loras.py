"""The published PCM LoRAs by name, with the steps and CFG that each was made for, and how a file is known as one."""

import re
from collections.abc import Iterable

from .lora_file import ALPHA, DOWN, UP

SMALL_CFG_STEPS = (2, 4, 8, 16)
NORMAL_CFG_STEPS = (4, 8, 16)
NORMAL_CFG = {4: "2.5 to 3.5", 8: "3 to 6", 16: "2 to 9"}
PREFIX = {"SD1.5": "pcm_sd15", "SDXL": "pcm_sdxl"}  # the families that there are LoRAs for, besides SD3
FLOW_LORAS = {
    (1.0, 2): ["pcm_deterministic_2step_shift1, sampler euler"],
    (1.0, 4): ["pcm_deterministic_4step_shift1, sampler euler"],
    (3.0, 4): ["pcm_deterministic_4step_shift3, sampler euler", "pcm_stochastic_shift3, sampler lcm"],
}
FLOW_SHIFTS = (1.0, 3.0)

# The layers that PCM's training adds to, and LCM's, by diffusers' names with "_" for ".": attention, feed-forward,
# projections, residual blocks, sampling.
LAYERS = re.compile(
    r"(to_[qkv]|to_out_0|proj_in|proj_out|ff_net_0_proj|ff_net_2|conv1|conv2|conv_shortcut|time_emb_proj"
    r"|(down|up)samplers_0_conv)$"
)
DISTINCTIVE = ("conv1", "conv2", "time_emb_proj", "proj_in", "ff_net_2")  # together they are in no LoRA of pictures
PARTS = (UP, DOWN, ALPHA, ".lora_A.weight", ".lora_B.weight")


def looks_like_pcm(keys: Iterable[str]) -> bool:
    """Whether a LoRA's keys are over these layers, all kinds of them, and no others."""
    modules = {key.removesuffix(part) for key in keys for part in PARTS if key.endswith(part)}
    found = [LAYERS.search(module.replace(".", "_")) for module in modules]
    kinds = {match[1] for match in found if match}
    return all(found) and kinds.issuperset(DISTINCTIVE)


def deterministic(family: str, steps: int) -> list[str]:
    """File names with their CFG for a family of `PREFIX`; empty where none is made for that number of steps."""
    files = []
    if steps in SMALL_CFG_STEPS:
        files.append(f"{PREFIX[family]}_smallcfg_{steps}step_converted (CFG 1 to 2)")
    if steps in NORMAL_CFG_STEPS:
        files.append(f"{PREFIX[family]}_normalcfg_{steps}step_converted (CFG {NORMAL_CFG[steps]})")
    return files


def lcm_like(family: str) -> str:
    """The stochastic one, for any number of steps."""
    return f"{PREFIX[family]}_lcmlike_lora_converted, sampler lcm, CFG 1"
