"""How good few-step pictures are: a table like Table 1 of the PeRFlow paper, sampled through ComfyUI.

    python small_model/measure_quality.py [--flow] [--weights FOLDER] [--pictures 2000] [--json FILE] [--quick]
    python small_model/measure_quality.py --checkpoint FILE --delta FILE --reference FOLDER [--pictures N] [--json FILE]

Without --checkpoint it is about the small model of drawn pictures, with --flow about the flow model. A row has
  passes       of the network for a picture: the calls, twice as many with CFG above 1
  frechet      Fréchet distance to held-out drawings in the features of the domain's classifier, less the bias that few
               pictures give it (one near 0 may come out negative); not comparable with FID
  attributes   share of the attributes named by the caption that the classifier finds
  paired       difference to the base's own 100-step end point from the same noise, relative to its size
and the error (one standard deviation, jackknife) of each. The narrow UNet is sampled, inside ComfyUI's model class and
with its samplers and this pack's nodes; --wide checks on 64 pictures that the wide checkpoint gives the same. The flow
model's checkpoint is sampled itself, with the last places of a caption, which are alike, taken together; --wide checks
that the captions of CLIP Text Encode give the same. A delta in the file flow_reflow is the plain reflow (windows = 1).

With --checkpoint the table is about a real model: torchmetrics' FID and CLIP score, to a folder of pictures with
captions (NAME.txt beside NAME.jpg). Their networks are downloaded at run time.

Results are kept picture by picture: a stopped run goes on, and more --pictures add to what is there. Small layers gain
little from a second thread: start it twice, with OMP_NUM_THREADS=1 and --part 1/2 and 2/2, then once without --part.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path += [str(REPOSITORY / "scripts"), str(REPOSITORY)]

import environment  # noqa: E402
from user_cache import run_program  # noqa: E402

QUICK = 24  # pictures of a cell with --quick


def main() -> None:
    comfyui_path = environment.enter()
    options = parse(sys.argv[1:])
    with tempfile.TemporaryDirectory() as base:
        from trial import process

        comfyui = process.start(comfyui_path, REPOSITORY, Path(base))
        if options.checkpoint:
            from small_model.quality.real_models import real_table

            found = real_table(comfyui, options)
            write(options.json, found)
        else:
            found = drawn_table(comfyui, options)
    if options.part[1] == 1:  # the rows of several parts are for a run without --part
        print(f"{len(found)} rows" + (f" in {options.json}" if options.json else ""))


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--flow", action="store_true", help="the flow model in place of the SD1.5-like one")
    parser.add_argument("--pictures", type=int, default=None, help="of a cell (2000)")
    parser.add_argument("--claimed", type=int, default=5000, help="of a cell that a claim rests on")
    parser.add_argument("--at-once", type=int, default=25, help="pictures sampled together; 1000 on a GPU")
    parser.add_argument(
        "--precision",
        choices=("float32", "bfloat16"),
        default="float32",
        help="of the small model; bfloat16 is faster where the CPU has AMX",
    )
    parser.add_argument("--json", type=Path, help="where the rows go")
    parser.add_argument("--quick", action="store_true", help=f"a few cells with {QUICK} pictures, to try this")
    parser.add_argument("--cfg", type=float, help="of the base (2)")
    parser.add_argument("--perflow-cfg", type=float, help="of PeRFlow (of the flow model's 1, else as --cfg)")
    parser.add_argument("--weights", type=Path, default=REPOSITORY / "small_model" / "weights")
    parser.add_argument("--results", type=Path, help="folder of what is known so far (in the cache)")
    parser.add_argument(
        "--part", type=part, default=(1, 1), metavar="I/N", help="sample only every Nth cell, from the Ith"
    )
    parser.add_argument(
        "--wide", action="store_true", help="first check the checkpoint as users load it against what is sampled"
    )
    parser.add_argument("--checkpoint", type=Path, help="a real model")
    parser.add_argument("--delta", type=Path, help="its PeRFlow delta")
    parser.add_argument("--reference", type=Path, help="folder of pictures with captions")
    parser.add_argument("--size", type=int, default=512, help="of the real model's pictures")
    options = parser.parse_args(arguments)
    if bool(options.checkpoint) != bool(options.reference):
        parser.error("--checkpoint and --reference go together")
    if options.checkpoint and options.flow:
        parser.error("--flow is about a small model, --checkpoint about a real one: choose one of them")
    options.pictures = options.pictures or (QUICK if options.quick else 2000)
    options.cfg = options.cfg or 2.0
    if options.perflow_cfg is None:
        options.perflow_cfg = 1.0 if options.flow else options.cfg
    options.results = options.results or environment.cache_root() / "quality"
    return options


def part(text: str) -> tuple[int, int]:
    number, _, of = text.partition("/")
    if not (number.isdecimal() and of.isdecimal() and 1 <= int(number) <= int(of)):
        raise argparse.ArgumentTypeError(f"it is {text!r}, expected I/N with I from 1 to N, such as 1/2")
    return int(number), int(of)


def drawn_table(comfyui: Any, options: argparse.Namespace) -> list[dict[str, Any]]:
    import torch

    from small_model.quality import table, wide_check
    from small_model.quality.cells import Guidance, planned
    from small_model.quality.drawn_judge import REFERENCE_COUNT
    from small_model.quality.flow_models import FlowModels
    from small_model.quality.narrow_models import NarrowModels

    few = [options.pictures] * 3
    amounts = table.Amounts(*few) if options.quick else table.Amounts(options.pictures, options.claimed)
    guidance, precision = Guidance(options.cfg, options.perflow_cfg), getattr(torch, options.precision)
    references = 500 if options.quick else REFERENCE_COUNT
    models = (FlowModels if options.flow else NarrowModels)(comfyui, options.weights, precision)
    work = table.table_of(comfyui, models, options.results, amounts, guidance, options.at_once, references)
    cells = planned(models.family, models.roots(), models.deltas(), options.quick)
    if options.wide:
        print(wide_check.check(comfyui, work), flush=True)
    mine = cells[options.part[0] - 1 :: options.part[1]]
    left, rate = work.left(mine), work.rate()
    print(
        f"{len(mine)} cells, {left} passes of the network (CFG {options.cfg:g}, PeRFlow's {options.perflow_cfg:g}), "
        f"about {left / rate / 3600:.1f} hours at {rate:.0f} a second; held-out drawings, minutes once; "
        f"kept in {options.results}",
        flush=True,
    )
    began, done = time.monotonic(), 0
    for cell in mine:
        if work.missing(cell):
            done += work.fill(cell)
            seconds = (time.monotonic() - began) / done * (left - done)
            print(f"{cell.model.name}, {cell.sampler}, {cell.steps} steps; {seconds / 60:.0f} min left", flush=True)
            if options.json:
                write(options.json, work.rows(cells))
    if options.part[1] > 1:
        return []
    write(options.json, rows := work.rows(cells))
    for sentence in [*work.claims(work.known(cells)), *table.not_better_with_more_steps(rows)]:
        print(sentence)
    return rows


def write(path: Path | None, rows: Sequence[dict[str, Any]]) -> None:
    """The rows so far, whole or not at all."""
    if path:
        from perflow_core.atomic_file import atomic_write

        with atomic_write(path) as unfinished:
            unfinished.write_text(json.dumps(rows, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


if __name__ == "__main__":
    run_program(main)
