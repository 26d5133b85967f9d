"""How the small model's four-step pictures get better while PeRFlow is trained: a row for each delta of a training.

    python small_model/learning_curve.py runs/small/perflow/deltas [--flow] [--pictures 300] [--steps 4] [--json FILE]

The deltas are those that training/ saves on its way, or with --flow those of Train PeRFlow Delta; they are put on the
teacher in --weights, and their pictures are sampled and judged as measure_quality.py does it. All rows have the same
noise and prompts, so that they can be compared with each other.
"""

import argparse
import sys
import tempfile
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path += [str(REPOSITORY / "scripts"), str(REPOSITORY)]

import environment  # noqa: E402
from environment import UserError  # noqa: E402
from user_cache import run_program  # noqa: E402

Row = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("deltas", type=Path, help="the folder with the training's .safetensors files")
    parser.add_argument("--flow", action="store_true", help="the flow model in place of the SD1.5-like one")
    parser.add_argument("--weights", type=Path, default=REPOSITORY / "small_model" / "weights")
    parser.add_argument("--pictures", type=int, default=300)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--at-once", type=int, default=25, help="pictures sampled together; 1000 on a GPU")
    parser.add_argument("--json", type=Path, help="where the rows go")
    comfyui_path = environment.enter()
    options = parser.parse_args()
    files = sorted(options.deltas.glob("*.safetensors"))
    if not files:
        raise UserError(f"{options.deltas} has no .safetensors file: give the folder deltas of a training's output.")
    with tempfile.TemporaryDirectory() as base:
        from trial import process

        from small_model.draw_quality import number
        from small_model.measure_quality import write

        comfyui = process.start(comfyui_path, REPOSITORY, Path(base))
        print("| samples | Fréchet distance | attributes found |\n|--:|--:|--:|", flush=True)
        rows = []
        for file in files:
            row = measured(comfyui, file, options)
            print(f"| {row['samples']} | {number(row, 'frechet')} | {number(row, 'attributes')} |", flush=True)
            rows.append(row)
            write(options.json, rows)


def measured(comfyui: Any, delta: Path, options: argparse.Namespace) -> Row:
    """The row of small_model/measure_quality.py for the delta, with the samples that it has seen."""
    from safetensors import safe_open

    from small_model.quality.cells import BASE, DELTA, Cell, Guidance, Model
    from small_model.quality.flow_models import FlowModels
    from small_model.quality.narrow_models import NarrowModels
    from small_model.quality.table import Amounts, table_of

    kind = FlowModels if options.flow else NarrowModels
    folder, results = Path(tempfile.mkdtemp(dir=comfyui.base)), environment.cache_root() / "quality"
    for what in (BASE, "autoencoder"):
        name = f"{kind.FILES[what]}.safetensors"
        (folder / name).symlink_to((options.weights / name).absolute())
    (folder / f"{kind.FILES[DELTA]}.safetensors").symlink_to(delta.absolute())
    amounts, guidance = Amounts(*[options.pictures] * 3), Guidance(base=3.0, perflow=1.0)
    table = table_of(comfyui, kind(comfyui, folder), results, amounts, guidance, options.at_once)
    cell = Cell(Model(BASE, DELTA), "euler", options.steps)
    table.fill(cell)
    with safe_open(delta, framework="pt") as opened:
        said = opened.metadata() or {}
    samples = int(said.get("samples", 0)) or int(said.get("steps", 0)) * int(said.get("batch_size", 1))
    return table.rows([cell])[-1] | {"file": delta.name, "samples": samples}


if __name__ == "__main__":
    run_program(main)
