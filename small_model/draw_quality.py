"""Draws docs/quality.png from the rows that `measure_quality.py --json FILE` wrote, and prints their table.

`python small_model/draw_quality.py FILE [--flow] [--out PICTURE]` needs Python and nothing else. The table is Markdown.
With --flow the rows are the flow model's and the picture is docs/quality-flow.png.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path += [str(REPOSITORY / "scripts"), str(REPOSITORY)]

import environment  # noqa: E402
from draw_method import BAND, BASE, FAINT, PERFLOW, RESOLUTION, STRAY, house_pyplot, shrink  # noqa: E402
from environment import PACK, UserError, say  # noqa: E402
from user_cache import run_program  # noqa: E402

from small_model.quality.cells import END_POINT  # noqa: E402

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PICTURE, FLOW_PICTURE = PACK / "docs" / "quality.png", PACK / "docs" / "quality-flow.png"
SIZE = (8, 4.4)
GREEN, PURPLE, ORANGE, SKY = "#009e73", "#cc79a7", "#e69f00", "#56b4e9"  # Okabe and Ito's, as the other colours

Row = dict[str, Any]
COLUMNS = {"frechet": "Fréchet distance", "attributes": "attributes found", "paired": "to the 100-step end point"}
COUNTS = {"steps": "steps", "calls": "model calls", "passes": "passes"}
Curves = tuple[tuple[str, str, str, str], ...]  # model, sampler, colour, style
CURVES: Curves = (
    ("base", "euler", STRAY, "--s"),
    ("base", "DPM++ 2M Karras", BASE, "--^"),
    ("base", "UniPC", GREEN, "--v"),
    ("PeRFlow", "euler", PERFLOW, "-o"),
)
FLOW_CURVES: Curves = (
    ("base", "euler", STRAY, "--s"),
    ("base", "euler beta", ORANGE, "--x"),
    ("base", "DPM++ 2M", BASE, "--^"),
    ("base", "UniPC", GREEN, "--v"),
    ("base", "res_multistep", PURPLE, "--d"),
    ("plain reflow", "euler", FAINT, "-X"),
    ("PeRFlow without alignment", "euler", SKY, "-P"),
    ("PeRFlow", "euler", PERFLOW, "-o"),
)


def main() -> None:
    environment.enter()  # from here on inside our environment
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("rows", type=Path)
    parser.add_argument("--flow", action="store_true", help="the rows are the flow model's")
    parser.add_argument("--out", type=Path)
    options = parser.parse_args()
    rows, picture = read(options.rows), options.out or (FLOW_PICTURE if options.flow else PICTURE)
    print(table(rows))
    draw(rows, picture, FLOW_CURVES if options.flow else CURVES)
    say(f"\n{picture} ({picture.stat().st_size / 1000:.0f} kB)")


def read(file: Path) -> list[Row]:
    """Raises UserError for a file that is not the benchmark's."""
    try:
        rows = json.loads(file.read_text(encoding="utf-8"))
        if rows and all({"model", "sampler", "steps", "calls", "frechet"} <= row.keys() for row in rows):
            return list(rows)
    except (ValueError, AttributeError, TypeError):
        pass
    raise UserError(
        f"{file} holds no rows of the table, expected the --json of small_model/measure_quality.py: make it again."
    )


def table(rows: Sequence[Row]) -> str:
    """Markdown, each number with its error, sorted by model and calls; of several samplers the best is bold."""
    best = {(row["model"], row["calls"]): row["which"] for row in rows if "which" in row}
    shown = [row for row in rows if "which" not in row]
    order = list(dict.fromkeys(row["model"] for row in shown))
    shown.sort(key=lambda row: (order.index(row["model"]), row["calls"], row["sampler"]))
    lines = ["| model | sampler | " + " | ".join([*COUNTS.values(), *COLUMNS.values()]) + " | pictures |"]
    lines.append("|---|---|" + "--:|" * (len(COUNTS) + len(COLUMNS) + 1))
    for row in shown:
        sampler = row["sampler"]
        if best.get((row["model"], row["calls"])) == sampler:
            sampler = f"**{sampler}**"
        numbers = [*(row.get(name) or "" for name in COUNTS), *(number(row, column) for column in COLUMNS)]
        lines.append("| " + " | ".join(map(str, [row["model"], sampler, *numbers, row["pictures"]])) + " |")
    return "\n".join(lines)


def number(row: Row, column: str) -> str:
    """A value with its error; shares in percent; nothing where there is no value."""
    value, error = row.get(column), row.get(f"{column}_error")
    if value is None or error is None:
        return ""
    if column == "attributes":
        return f"{100 * value:.1f} ± {100 * error:.1f} %"
    digits = max(0, 1 - int(f"{error:e}".partition("e")[2])) if error else 3
    return f"{value:.{digits}f} ± {error:.{digits}f}"


def draw(rows: Sequence[Row], picture: Path, lines: Curves = CURVES) -> None:
    """Fréchet distance and found attributes over model calls, with error bars of two standard deviations."""
    plt = house_pyplot()
    figure, (left, right) = plt.subplots(1, 2, figsize=SIZE, layout="constrained")
    curves(left, rows, lines, "frechet", 1)
    left.set(ylabel="Fréchet distance to held-out drawings")
    left.set_title("Lower is better", loc="left")
    curves(right, rows, lines, "attributes", 100)
    right.set(ylabel="attributes of the prompt found, %")
    right.set_title("Higher is better", loc="left")
    figure.legend(*right.get_legend_handles_labels(), loc="outside lower center", ncols=3, frameon=False, fontsize=9.5)
    figure.savefig(picture, dpi=RESOLUTION)
    shrink(picture)


def curves(axes: Axes, rows: Sequence[Row], lines: Curves, column: str, factor: float) -> None:
    """One line a sampler, and a band where drawings through the autoencoder lie: the best that there can be."""
    ticks = set[int]()
    for model, sampler, colour, style in lines:
        line = sorted(points(rows, model, sampler), key=lambda row: row["calls"])
        calls, values, errors = ([row[name] for row in line] for name in ("calls", column, f"{column}_error"))
        label = f"{model}, {sampler}"
        bars = [2 * factor * error for error in errors]
        axes.errorbar(calls, [factor * v for v in values], bars, fmt=style, color=colour, lw=1.8, ms=5, label=label)
        ticks |= set(calls)
    for row in rows:
        if row["model"].endswith("through the autoencoder"):
            middle, half = factor * row[column], 2 * factor * row[f"{column}_error"]
            axes.axhspan(middle - half, middle + half, color=BAND, lw=0, zorder=0)
            axes.axhline(middle, color=FAINT, lw=0.8, ls=":", label="drawings through the autoencoder")
    axes.set(xscale="log", xlabel="model calls a picture")
    axes.set_xticks(sorted(ticks), [str(tick) for tick in sorted(ticks)])
    axes.minorticks_off()


def points(rows: Sequence[Row], model: str, sampler: str) -> list[Row]:
    """The rows of a curve; the base's end point has few pictures and is on none."""
    same = (row for row in rows if (row["model"], row["sampler"]) == (model, sampler))
    return [row for row in same if (row["sampler"], row["steps"]) != END_POINT]


if __name__ == "__main__":
    run_program(main)
