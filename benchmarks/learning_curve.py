"""How the small model's four-step pictures get better while PeRFlow is trained: a row for each delta of a training.

    python benchmarks/learning_curve.py runs/small/perflow/deltas [--pictures 300] [--steps 4] [--json FILE]

The deltas are those that training/ saves on its way; they are put on the teacher in --weights, and their pictures are
sampled and judged as benchmarks/quality.py does it. All rows have the same noise and prompts, so that they can be
compared with each other.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path
from typing import Any

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path += [str(REPOSITORY / "scripts"), str(REPOSITORY)]

import environment  # noqa: E402
from environment import UserError  # noqa: E402

BATCH = 100
Row = dict[str, Any]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("deltas", type=Path, help="the folder with the training's .safetensors files")
    parser.add_argument("--weights", type=Path, default=REPOSITORY / "training" / "small" / "weights")
    parser.add_argument("--pictures", type=int, default=300)
    parser.add_argument("--steps", type=int, default=4)
    parser.add_argument("--json", type=Path, help="where the rows go")
    parser.add_argument("--results", type=Path, help="folder of the judged drawings (in the cache)")
    comfyui_path = environment.enter()
    options = parser.parse_args()
    files = sorted(options.deltas.glob("*.safetensors"))
    if not files:
        raise UserError(f"{options.deltas} has no .safetensors file: give the folder deltas of a training's output.")
    with tempfile.TemporaryDirectory() as base:
        from trial import process

        comfyui = process.start(comfyui_path, REPOSITORY, Path(base))
        results = options.results or environment.cache_root() / "quality"
        print("| samples | Fréchet distance | attributes found |\n|--:|--:|--:|", flush=True)
        rows = []
        for file in files:
            rows.append(measured(comfyui, file, options.weights, results, options.pictures, options.steps))
            print(told(rows[-1]), flush=True)
    if options.json:
        options.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")


def measured(comfyui: Any, delta: Path, weights: Path, results: Path, pictures: int, steps: int) -> Row:
    """The delta's distance to held-out drawings and its share of attributes, each with its error."""
    import torch
    from picture_quality import rows, sampling
    from picture_quality.cells import BASE, Cell, Model
    from picture_quality.drawn_judge import DrawnJudge
    from picture_quality.narrow_models import NarrowModels
    from safetensors import safe_open

    folder = Path(tempfile.mkdtemp(dir=comfyui.base))
    for name in ("teacher", "autoencoder"):
        (folder / f"{name}.safetensors").symlink_to((weights / f"{name}.safetensors").absolute())
    (folder / "delta.safetensors").symlink_to(delta.absolute())
    models = NarrowModels(comfyui, folder)
    judge, texts, cell = DrawnJudge(models, results), sampling.Texts(), Cell(Model(BASE, True), "euler", steps)
    parts = []
    for start in range(0, pictures, BATCH):
        numbers = range(start, min(start + BATCH, pictures))
        prompts = texts(judge.prompts(numbers)), texts([""])
        samples = sampling.sample(comfyui.nodes, models[cell.model], cell, sampling.noise_of(numbers), *prompts, 1.0)
        parts.append(judge.of_samples(numbers, samples))
    judged = {name: torch.cat([part[name] for part in parts]) for name in parts[0]}
    with safe_open(delta, framework="pt") as opened:
        samples_seen = int((opened.metadata() or {}).get("samples", 0))
    distance, found = rows.distance(judged, judge.reference(BASE, decoded=False)), rows.attributes(judged)
    return dict(
        file=delta.name,
        samples=samples_seen,
        frechet=distance.value,
        frechet_error=distance.error,
        attributes=found.value,
        attributes_error=found.error,
    )


def told(row: Row) -> str:
    """As a line of the table."""
    return (
        f"| {row['samples']} | {row['frechet']:.0f} ± {row['frechet_error']:.0f} "
        f"| {100 * row['attributes']:.1f} ± {100 * row['attributes_error']:.1f} % |"
    )


if __name__ == "__main__":
    try:
        main()
    except (UserError, OSError, ValueError) as error:
        sys.exit(f"Error: {error}")
    except KeyboardInterrupt:
        sys.exit("Stopped.")
