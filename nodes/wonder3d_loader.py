"""Load Wonder3D: the published UNet file as a MODEL."""

import folder_paths
from comfy_api.latest import io

from .comfyui import folders
from .comfyui.advice import with_advice
from .comfyui.wonder3d.model import load_wonder3d

KEY = "diffusion_models"


class Wonder3DLoader(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="Wonder3DLoader",
            display_name="Load Wonder3D",
            category="PeRFlow",
            description="Loads Wonder3D's UNet, which draws an object from six sides, as normals and as colours. The "
            "sampler needs the conditioning and the latent of Wonder3D Conditioning.",
            search_aliases=["wonder3d", "multi-view", "multiview", "image to 3d", "novel view", "normal map", "unet"],
            inputs=[
                io.Combo.Input(
                    "unet_name",
                    options=folder_paths.get_filename_list(KEY),
                    tooltip="Wonder3D's UNet in models/diffusion_models: unet/diffusion_pytorch_model of "
                    "wonder3d-v1.0, as .bin or .safetensors. Nothing in a .bin file is run.",
                )
            ],
            outputs=[io.Model.Output()],
        )

    @classmethod
    def fingerprint_inputs(cls, unet_name: str | None = None) -> object:
        """The file's, so that one replaced under the same name is read again."""
        return folders.fingerprint(unet_name, KEY)

    @classmethod
    def execute(cls, unet_name: str) -> io.NodeOutput:
        with with_advice():
            return io.NodeOutput(load_wonder3d(folder_paths.get_full_path_or_raise(KEY, unet_name)))
