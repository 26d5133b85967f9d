"""Packs of other people that tests run beside ours, from checkouts that variables name; see tests/other_packs.md."""

import os
from pathlib import Path
from typing import NamedTuple

import pytest


class OtherPack(NamedTuple):
    address: str
    folder: str  # in custom_nodes
    interface: str | None = None  # its nodes as data, tests/<interface>_interface.json: what is checked without it


GITHUB = "https://github.com/"
OTHER_PACKS = {
    "IPADAPTER_PLUS_PATH": OtherPack(
        GITHUB + "cubiq/ComfyUI_IPAdapter_plus", "comfyui_ipadapter_plus", "ipadapter_plus"
    ),
    "TRIPOSR_PATH": OtherPack(GITHUB + "flowtyone/ComfyUI-Flowty-TripoSR", "ComfyUI-Flowty-TripoSR", "triposr"),
    "PROMPT_CONTROL_PATH": OtherPack(GITHUB + "asagi4/comfyui-prompt-control", "comfyui-prompt-control"),
    "ADVANCED_CONTROLNET_PATH": OtherPack(
        GITHUB + "Kosinkadink/ComfyUI-Advanced-ControlNet", "ComfyUI-Advanced-ControlNet"
    ),
    "ANIMATEDIFF_EVOLVED_PATH": OtherPack(
        GITHUB + "Kosinkadink/ComfyUI-AnimateDiff-Evolved", "ComfyUI-AnimateDiff-Evolved"
    ),
    "IMPACT_PACK_PATH": OtherPack(GITHUB + "ltdrdata/ComfyUI-Impact-Pack", "ComfyUI-Impact-Pack"),
    "RES4LYF_PATH": OtherPack(GITHUB + "ClownsharkBatwing/RES4LYF", "RES4LYF"),
    "GGUF_PATH": OtherPack(GITHUB + "city96/ComfyUI-GGUF", "ComfyUI-GGUF"),
}
WITHOUT = "{} is not set: that pack is not here"


def here() -> list[str]:
    """The variables that are set."""
    return [variable for variable in OTHER_PACKS if os.environ.get(variable)]


def checkout(variable: str) -> Path:
    """What it names; a test without it is left out, and the end of the run says so."""
    if not os.environ.get(variable):
        pytest.skip(WITHOUT.format(variable))
    pack = Path(os.environ[variable]).expanduser().absolute()
    if not (pack / "__init__.py").is_file():
        pytest.fail(f"{variable} is {pack}, which has no __init__.py: set it to a checkout of the pack.")
    return pack


def install(base: Path, *variables: str) -> None:
    """Put the packs of those variables where a ComfyUI with this base looks for them."""
    from trial.installed_pack import install_pack

    (base / "custom_nodes").mkdir()
    for variable in variables:
        install_pack(checkout(variable), base / "custom_nodes" / OTHER_PACKS[variable].folder)


def left_out(reports: list[pytest.TestReport]) -> dict[str, dict[str, int]]:
    """Of the skipped tests' reports: variable that is not set -> file -> how many of its tests were left out."""
    missed: dict[str, dict[str, int]] = {}
    for variable in OTHER_PACKS:
        for report in reports:
            if WITHOUT.format(variable) in str(report.longrepr):
                files = missed.setdefault(variable, {})
                file = report.nodeid.partition("::")[0]
                files[file] = files.get(file, 0) + 1
    return missed
