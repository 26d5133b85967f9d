"""Chooses the prompts of the README, the demo and the gallery by a rule, so that they show what is usual.

    python small_model/choose_prompts.py [--prompts N]

For each subject, the candidates are the first N prompts of the quality table that name it and do not ask for what the
demo's negative prompt keeps away. Each is sampled from the
noise of its row by the base model in 4 and 25 steps and by PeRFlow in 4. The ratio is PeRFlow's difference to the 25
steps (root mean square), divided by that of the base's 4 steps; below 1, PeRFlow is nearer. The prompt with the median
ratio is chosen.
"""

from __future__ import annotations

import argparse
import itertools
import sys
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parent.parent
sys.path += [str(REPOSITORY / "scripts"), str(REPOSITORY)]

import environment  # noqa: E402
from demo import model_paths, run_folder, small_model  # noqa: E402
from demo_options import SMALL  # noqa: E402
from environment import UserError, say  # noqa: E402
from user_cache import run_program  # noqa: E402

SUBJECTS = ("lighthouse", "house", "castle", "balloon")  # one for each row


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--prompts", type=int, default=9, metavar="N", help="for each subject (default: 9)")
    options = parser.parse_args()
    if options.prompts < 1:
        raise UserError(f"--prompts is {options.prompts}: it must be 1 or more.")
    comfyui = environment.enter()
    from sampled_sheet import Sheet, differences
    from trial.picture_graph import CFG, MANY, PictureGraph
    from trial.server import ComfyServer

    checkpoint, delta = small_model(comfyui)
    with run_folder() as base:
        arguments = ["--extra-model-paths-config", str(model_paths(base, checkpoint, delta))]
        with ComfyServer(comfyui, base, arguments=arguments) as server:
            for row, subject in enumerate(SUBJECTS):
                graph = PictureGraph(checkpoint.name, delta.name, negative=SMALL["negative"])
                sampled = {
                    text: [
                        graph.sampled(graph.base(), text, 4, CFG, scheduler="normal", row=row),
                        graph.many(text, row=row),
                        graph.windowed(text, 4, CFG, row=row),
                    ]
                    for text in candidates(subject, options.prompts)
                }
                columns = ["base, 4 steps", f"base, {MANY} steps", "PeRFlow, 4 steps"]
                pictures = Sheet(subject, "", columns, sampled, to=1).sampled(server, graph)
                apart = [differences([picture], to=1) for picture in pictures]
                ratios = sorted((ours / base4, text) for (base4, _, ours), text in zip(apart, sampled, strict=True))
                for ratio, text in ratios:
                    say(f"{ratio:.2f} {text}")
                say(f"The median: {ratios[len(ratios) // 2][1]}")


def candidates(subject: str, count: int) -> list[str]:
    """The first prompts of the quality table that name the subject and nothing that is to be avoided."""
    from small_model.scenes.picture import caption

    avoided = words_of(SMALL["negative"])
    texts = map(caption, itertools.count())
    naming = (text for text in texts if subject in words_of(text) and avoided.isdisjoint(words_of(text)))
    return list(itertools.islice(naming, count))


def words_of(text: str) -> set[str]:
    return set(text.replace(",", " ").split())


if __name__ == "__main__":
    run_program(main)
