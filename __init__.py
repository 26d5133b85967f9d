"""PeRFlow for ComfyUI: pictures in four steps."""

from comfy_api.latest import ComfyExtension, io

from .nodes import NODES
from .nodes.comfyui import folders, template_category

WEB_DIRECTORY = "web"  # help pages, web/docs/<node id>.md, and what keeps the texts on the nodes


class PeRFlowExtension(ComfyExtension):
    async def on_load(self) -> None:
        folders.register()
        template_category.write_name()

    async def get_node_list(self) -> list[type[io.ComfyNode]]:
        return NODES


async def comfy_entrypoint() -> PeRFlowExtension:
    return PeRFlowExtension()
