"""Text on the node itself: what it did.

A node that shows text has `**shows_text()` in its schema.
`web/node_texts.js` keeps the text on the page when the run is over.
"""

from typing import Any, NamedTuple

from comfy.model_patcher import ModelPatcher
from comfy_api.latest import io
from comfy_execution.progress import get_progress_state
from server import PromptServer

SHOWN = "perflow_shown"  # a MODEL's attachment


class Shown(NamedTuple):
    """What stands on the node that a MODEL comes from."""

    node_id: str
    node_type: str | None
    text: str


def shows_text() -> dict[str, Any]:
    """What the schema of a node with text needs; another list for each, since ComfyUI adds to it.

    By `not_idempotent` ComfyUI's cache keeps nodes of different ids apart. Otherwise a graph could get the MODEL of
    another graph's node, with that node's id in it.
    """
    return {"hidden": [io.Hidden.unique_id], "not_idempotent": True}


def show(node: type[io.ComfyNode], text: str) -> dict[str, list[str]]:
    """Show the text on the running node, and return it as `ui` output, which API callers find in /history."""
    if node.hidden is not None and node.hidden.unique_id:
        _send(node.hidden.unique_id, text)
    return {"text": [text]}


def show_with_steps(node: type[io.ComfyNode], text: str, model: ModelPatcher) -> dict[str, list[str]]:
    """The same for the node that gives `model`; when that is sampled, `add_steps` shows its steps there too."""
    if node.hidden is not None and node.hidden.unique_id:
        node_id = node.hidden.unique_id
        model.set_attachments(SHOWN, Shown(node_id, _type_in_this_run(node_id), text))
    return show(node, text)


def add_steps(model: ModelPatcher, steps: str | None) -> None:
    """Show a line below the text of the node that gave `model`, or that text alone: the line of the last run goes.

    Nothing is shown where another node has that id now: other packs keep a MODEL from one graph to the next.
    """
    shown = model.get_attachment(SHOWN)
    if shown is not None and _type_in_this_run(shown.node_id) == shown.node_type:
        _send(shown.node_id, f"{shown.text}\n{steps}" if steps else shown.text)


def _type_in_this_run(node_id: str) -> str | None:
    """The type of the node that has this id in the graph that runs; None where there is none."""
    graph = get_progress_state().dynprompt
    return graph.get_node(node_id)["class_type"] if graph.has_node(node_id) else None


def _send(node_id: str, text: str) -> None:
    """To the page that started the run, and to no other: there the id is another node's."""
    server = getattr(PromptServer, "instance", None)  # ComfyUI can be embedded without one
    if server is not None and server.client_id is not None:
        lines = text.replace("\n", "  \n")  # classic nodes show it as HTML, "Nodes 2.0" as Markdown: this breaks both
        server.send_progress_text(lines, node_id, server.client_id)
