"""PeRFlow for ComfyUI: Stable Diffusion pictures in four steps."""

from comfy_api.latest import ComfyExtension, io

from .nodes import NODES
from .nodes.comfyui import folders

WEB_DIRECTORY = "web"  # help pages, web/docs/<node id>.md


class PeRFlowExtension(ComfyExtension):
    async def on_load(self) -> None:
        folders.register()

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return NODES


async def comfy_entrypoint() -> PeRFlowExtension:
    return PeRFlowExtension()
