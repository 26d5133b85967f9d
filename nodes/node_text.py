"""Say on the node itself what it did."""

from comfy_api.latest import io
from server import PromptServer


def show(node: type[io.ComfyNode], text: str) -> dict[str, list[str]]:
    """Show the text on the running node, and return it as `ui` output, which API callers find in /history."""
    server = getattr(PromptServer, "instance", None)  # ComfyUI can be embedded without one
    if server is not None and node.hidden is not None and node.hidden.unique_id:
        lines = text.replace("\n", "  \n")  # classic nodes show it as HTML, "Nodes 2.0" as Markdown: this breaks both
        server.send_progress_text(lines, node.hidden.unique_id)
    return {"text": [text]}
