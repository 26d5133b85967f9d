"""Making a delta of two models."""

from __future__ import annotations

from . import files
from .drawing import Graph


def make(g: Graph) -> None:
    g.column(420)
    g.note(
        f"""## Make an SDXL delta

{files.file_list(files.SDXL_PERFLOW, files.SDXL)}

The authors publish SDXL with PeRFlow merged in, and no delta. The difference of that UNet and SDXL's own is one, and
it works on every SDXL checkpoint.

**Full** keeps every number: 5.1 GB. **Low-rank** keeps the strongest directions of each layer: smaller, and the node
says how much of the difference was kept. Bypass the one you do not want (Ctrl+B).

The files land in `output/perflow`. Press R, and *Apply PeRFlow Delta* lists them. The weights' licence
({files.NON_COMMERCIAL}) goes with them.
""",
    )
    g.column(400)
    g.group("1  With PeRFlow")
    perflow = g.add("UNETLoader", unet_name=files.SDXL_PERFLOW)["MODEL"]
    g.group("2  Without")
    base = g.add("CheckpointLoaderSimple", ckpt_name=files.SDXL)["MODEL"]
    g.column(420)
    g.group("3  Full")
    name = "perflow-sdxl-delta"
    g.add("PeRFlowExtractDelta", tall=350, model_perflow=perflow, model_base=base, filename_prefix=name)
    g.group("4  Low-rank")
    name = "perflow-sdxl-delta-rank64"
    g.add("PeRFlowExtractDelta", tall=560, model_perflow=perflow, model_base=base, filename_prefix=name, rank=64)
