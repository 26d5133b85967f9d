"""The published PCM LoRAs by name, with the steps and CFG that each was made for."""

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
