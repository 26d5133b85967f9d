"""Making deltas: of two models, and by training."""

from __future__ import annotations

from typing import Any

from . import files
from .drawing import Graph, Node, graph
from .parts import decode, empty_latent, ksampler, prompts


@graph("26 Make an SDXL delta")
def make(g: Graph) -> None:
    g.column(420)
    g.note(f"""## Make an SDXL delta

{files.file_list(files.SDXL_PERFLOW, files.SDXL)}

PeRFlow's authors publish SDXL with PeRFlow merged in, and no delta. The difference between that UNet and SDXL's own
is a delta, and it works on every SDXL checkpoint.

**Full** saves the full difference: 5.1 GB. **Low-rank** saves each layer at rank 64. That file is smaller, and the node
says how much of the difference it keeps. Bypass the one you do not want (Ctrl+B).

The files are saved in `output/perflow`. Press R, and *Apply PeRFlow Delta* lists them. They keep the licence of the
weights ({files.NON_COMMERCIAL}).
""")
    g.column(400, "1  With PeRFlow")
    perflow = g.add("UNETLoader", unet_name=files.SDXL_PERFLOW)["MODEL"]
    g.group("2  Without")
    base = g.add("CheckpointLoaderSimple", ckpt_name=files.SDXL)["MODEL"]
    g.column(420, "3  Full")
    name = "perflow-sdxl-delta"
    g.add("PeRFlowExtractDelta", tall=350, model_perflow=perflow, model_base=base, filename_prefix=name)
    g.group("4  Low-rank")
    name = "perflow-sdxl-delta-rank64"
    g.add("PeRFlowExtractDelta", tall=560, model_perflow=perflow, model_base=base, filename_prefix=name, rank=64)


@graph("24 Train a delta")
def train(g: Graph) -> None:
    g.head(
        f"""## Train a delta of your own model

{files.file_list(files.SD15)}

The base model makes 16 pictures, and *Train PeRFlow Delta* learns to make such pictures in four steps. Two 4-step
pictures of one seed then show the effect: one without the delta, one with it.

Run it. It takes about as long as 100 pictures of 25 steps, and little more memory than sampling. The node shows a
four-step picture every 25 steps. If you interrupt it, it saves what was trained. If you run the graph again, the
training is not repeated while its inputs stay the same. In other graphs, use the file with *Apply PeRFlow Delta*
(press R to see it in the list).

200 steps of 4 pictures show that it works; a good delta takes many thousands of steps and more varied pictures. Add
more prompts, or train on your own pictures: Load Image-Text (from Folder) and Make Training Dataset give `latents` and
`positive`. To continue training a file, choose it in *resume_from*.
""",
        758,  # the two columns below it
    )
    g.column(380, "1  Model and prompts")
    checkpoint = g.add("CheckpointLoaderSimple", ckpt_name=files.SD15)
    base, vae = checkpoint["MODEL"], checkpoint["VAE"]
    positive, negative = prompts(g, checkpoint["CLIP"])
    empty = g.add("CLIPTextEncode", title="Empty prompt", tall=100, clip=checkpoint["CLIP"], text="")["CONDITIONING"]
    g.column(330, "2  Pictures to learn from")
    latent = empty_latent(g, 512, batch_size=16)
    pictures = ksampler(g, base, positive, negative, latent, title="By the base", steps=25, cfg=7.5)
    g.column(400, "3  Train")
    inputs: dict[str, Any] = {"model": base, "latents": pictures, "positive": positive, "negative": empty}
    trained = g.add("PeRFlowTrainDelta", tall=760, **inputs, steps=200, filename_prefix="my-perflow")
    g.group("4  Size of the two pictures")
    empty_latents = empty_latent(g, 512)
    g.column(330, "5  Without, 4 steps")
    image = decode(g, ksampler(g, base, positive, negative, empty_latents, steps=4, cfg=4.5), vae)
    g.add("SaveImage", tall=340, images=image, filename_prefix="my-perflow-without")
    loss_by_window(g, 7, trained)
    g.column(330, "6  With, 4 steps")
    image = decode(g, ksampler(g, trained["accelerated"], positive, negative, empty_latents, steps=4, cfg=4.5), vae)
    g.add("SaveImage", tall=340, images=image, filename_prefix="my-perflow-with")
    loss_by_step(g, 8, trained, "my-perflow")


def loss_by_window(g: Graph, number: int, trained: Node) -> None:
    """How the loss went, below what the column holds."""
    g.group(f"{number}  Loss by window")
    g.add("PreviewImage", tall=250, images=trained["loss_by_window"])


def loss_by_step(g: Graph, number: int, trained: Node, prefix: str) -> None:
    """The same in one line for all windows."""
    g.group(f"{number}  Loss by step")
    g.add("LossGraphNode", tall=250, loss=trained["loss_map"], filename_prefix=f"{prefix}-loss")


@graph("25 Make my model fast")
def make_fast(g: Graph) -> None:
    g.head(
        f"""## Make my model fast

{files.file_list(files.SD15, files.BLINDBOX, files.SD15_DELTA)}

A delta works on every checkpoint of its family, and best on the one that it was trained on. This graph makes one for
*your* model: put your checkpoint into *Load Checkpoint*, and your LoRA into *Load LoRA* (or bypass it, Ctrl+B).
*Train PeRFlow Delta* begins with the delta in *start_from*, and your model with the LoRA is its teacher.

Run it. Your model makes 16 pictures and learns from them. Three pictures of one seed then show the effect: your model
in 25 steps, with the first delta in 4, and with its own in 4. The file is saved in `output/perflow`. Use it **in place
of** the first delta, on this model with this LoRA (press R, and *Apply PeRFlow Delta* lists it).

200 steps of 4 pictures show how it goes, and are too few for a delta to keep: the help of *Train PeRFlow Delta* has
what was measured. Use more and more varied pictures and prompts then: Load Image-Text (from Folder) and Make Training
Dataset give `latents` and `positive`. To go on with the file that you have made, choose it in *resume_from* and set
*start_from* to none.

The prompts and CFG are those of your graphs: with *guidance* 0 the delta takes the CFG that your model takes, in four
steps best about 4.5.
""",
        1106,  # the three columns below it
    )
    g.column(362, "1  Your model and prompts")
    checkpoint = g.add("CheckpointLoaderSimple", ckpt_name=files.SD15)
    lora = g.add("LoraLoader", model=checkpoint["MODEL"], clip=checkpoint["CLIP"], lora_name=files.BLINDBOX)
    yours, clip, vae = lora["MODEL"], lora["CLIP"], checkpoint["VAE"]
    positive, negative = prompts(g, clip)
    empty = g.add("CLIPTextEncode", title="Empty prompt", tall=100, clip=clip, text="")["CONDITIONING"]
    g.column(278, "2  Pictures to learn from")
    latent = empty_latent(g, 512, batch_size=16)
    pictures = ksampler(g, yours, positive, negative, latent, title="By your model", steps=25, cfg=7.5)
    g.column(370, "3  Train")
    inputs: dict[str, Any] = {"model": yours, "latents": pictures, "positive": positive, "negative": empty}
    how: dict[str, Any] = {"steps": 200, "start_from": files.SD15_DELTA, "filename_prefix": "my-fast-model"}
    trained = g.add("PeRFlowTrainDelta", tall=790, **inputs, **how)
    g.column(280, "4  Your model, 25 steps")
    empty_latents = empty_latent(g, 512)
    image = decode(g, ksampler(g, yours, positive, negative, empty_latents, steps=25, cfg=7.5), vae)
    g.add("SaveImage", tall=340, images=image, filename_prefix="my-fast-model-25")
    g.column(310, "5  With the first delta, 4 steps")
    first = g.add("PeRFlowApplyDelta", tall=300, model=yours, delta_name=files.SD15_DELTA)["MODEL"]
    image = decode(g, ksampler(g, first, positive, negative, empty_latents, steps=4, cfg=4.5), vae)
    g.add("SaveImage", tall=340, images=image, filename_prefix="my-fast-model-before")
    g.column(280, "6  With its own, 4 steps")
    image = decode(g, ksampler(g, trained["accelerated"], positive, negative, empty_latents, steps=4, cfg=4.5), vae)
    g.add("SaveImage", tall=340, images=image, filename_prefix="my-fast-model-after")
