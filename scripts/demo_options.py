"""The demo's options on the command line."""

import argparse
from pathlib import Path
from typing import Any, NoReturn

from environment import VERSIONS, UserError

# For the small model, which draws 128 pixels and knows the words of small_model/scenes/words.py
SMALL: dict[str, Any] = dict(
    size="128",
    cfg=2.0,
    prompt="a large lighthouse in the mountains at sunset, cloudy, on the left",
    negative="snowy",
)
OWN = dict(size="512", cfg=4.5)


class Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message} (--help lists the options).")


def parse(description: str | None, arguments: list[str]) -> argparse.Namespace:
    """The options, with the defaults of the small model or of the user's own. Raises UserError in one sentence."""
    parser = Parser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    own = parser.add_argument_group("your own files (both or neither)")
    own.add_argument("--checkpoint", type=Path, metavar="FILE", help="an SD1.5 checkpoint, anywhere on disk")
    own.add_argument("--delta", type=Path, metavar="FILE", help="a PeRFlow delta for SD1.5 (.safetensors)")
    parser.add_argument("--prompt", help=f"what to show (default: {SMALL['prompt']})")
    parser.add_argument(
        "--negative", help=f"what to avoid (default: {SMALL['negative']}; with your own files: the workflow's)"
    )
    parser.add_argument("--steps", type=int, default=4, help="sampling steps (default: 4)")
    parser.add_argument("--cfg", type=float, help="guidance scale (default: 4.5 with your own files, else 2)")
    base = "guidance scale of the base model on the sheet (default: as --cfg)"
    parser.add_argument("--base-cfg", type=float, metavar="CFG", help=base)
    parser.add_argument("--size", help="N or WxH (default: 512 with your own files, else 128)")
    parser.add_argument("--seed", type=int, help="seed of the noise (default: the workflow's)")
    parser.add_argument("--out", type=Path, default=Path("perflow-demo.png"), help="the PNG (default: %(default)s)")
    sheet = "also make the sheet (default: not with your own files)"
    parser.add_argument("--sheet", action=argparse.BooleanOptionalAction, help=sheet)
    parser.add_argument("--comfyui", metavar="VERSION", help=f"one of {', '.join(VERSIONS)}")
    options = parser.parse_args(arguments)
    check_files(options)
    small = options.checkpoint is None
    parser.set_defaults(small=small, sheet=small, **(SMALL if small else OWN))
    options = parser.parse_args(arguments)
    if options.base_cfg is None:
        options.base_cfg = options.cfg
    options.size = parse_size(options.size)
    if options.steps < 1:
        raise UserError(f"--steps is {options.steps}: it must be 1 or more.")
    if options.seed is not None and not 0 <= options.seed < 2**64:
        raise UserError(f"--seed is {options.seed}: it must be from 0 to 2^64 - 1.")
    return options


def check_files(options: argparse.Namespace) -> None:
    if (options.checkpoint is None) != (options.delta is None):
        given, missing = ("--checkpoint", "--delta") if options.checkpoint else ("--delta", "--checkpoint")
        raise UserError(f"{given} was given without {missing}: both files are needed, or neither.")
    for name in ("checkpoint", "delta"):
        file = getattr(options, name)
        if file and not file.is_file():
            raise UserError(f"--{name} is {file}, which is not a file: give the path of a model file.")
    if options.delta and options.delta.suffix not in (".safetensors", ".sft"):
        raise UserError(
            f"--delta is {options.delta.name}: only .safetensors files are read, because pickles can run code."
        )
    if options.out.suffix.lower() != ".png" or not options.out.parent.is_dir():
        raise UserError(f"--out is {options.out}: it must end in .png and lie in a folder that exists.")


def parse_size(text: str) -> tuple[int, int]:
    numbers = text.lower().split("x")
    if len(numbers) in (1, 2) and all(number.isdecimal() for number in numbers):
        width, height = int(numbers[0]), int(numbers[-1])
        if all(64 <= side <= 4096 and side % 8 == 0 for side in (width, height)):
            return width, height
    raise UserError(
        f"--size is {text}: it must be N or WxH with multiples of 8 from 64 to 4096, such as 512 or 768x512."
    )
