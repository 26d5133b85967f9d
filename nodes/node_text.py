"""Say on the node itself what it did."""

from comfy_api.latest import io
from server import PromptServer


def show(node: type[io.ComfyNode], text: str) -> dict[str, list[str]]:
    """Show the text on the running node, and return it as `ui` output, which API callers find in /history."""
    server = getattr(PromptServer, "instance", None)  # ComfyUI can be embedded without one
    if server is not None and node.hidden is not None and node.hidden.unique_id:
        server.send_progress_text(text, node.hidden.unique_id)
    return {"text": [text]}
