"""Say on the node itself what it did."""

from typing import NamedTuple

from comfy.model_patcher import ModelPatcher
from comfy_api.latest import io
from server import PromptServer

SHOWN = "perflow_shown"  # a MODEL's attachment


class Shown(NamedTuple):
    """What stands on the node that a MODEL comes from."""

    node_id: str
    text: str


def show(node: type[io.ComfyNode], text: str) -> dict[str, list[str]]:
    """Show the text on the running node, and return it as `ui` output, which API callers find in /history."""
    if node.hidden is not None and node.hidden.unique_id:
        _send(node.hidden.unique_id, text)
    return {"text": [text]}


def show_with_steps(node: type[io.ComfyNode], text: str, model: ModelPatcher) -> dict[str, list[str]]:
    """The same for the node that gives `model`; when that is sampled, `add_steps` tells its steps there too."""
    if node.hidden is not None and node.hidden.unique_id:
        model.set_attachments(SHOWN, Shown(node.hidden.unique_id, text))
    return show(node, text)


def add_steps(model: ModelPatcher, steps: str | None) -> None:
    """Show a line below the text of the node that gave `model`, or that text alone: the line of the last run goes."""
    shown = model.get_attachment(SHOWN)
    if shown is not None:
        _send(shown.node_id, f"{shown.text}\n{steps}" if steps else shown.text)


def _send(node_id: str, text: str) -> None:
    server = getattr(PromptServer, "instance", None)  # ComfyUI can be embedded without one
    if server is not None:
        lines = text.replace("\n", "  \n")  # classic nodes show it as HTML, "Nodes 2.0" as Markdown: this breaks both
        server.send_progress_text(lines, node_id)
