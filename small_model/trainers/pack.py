"""Store what was trained in small_model/weights, where the demo finds it, and say what few bits cost.

`python -m small_model.trainers.pack FOLDER --tokenizer FOLDER --student DELTA`: the first folder holds autoencoder.pt
and teacher.pt, whose averages are stored; the tokenizer is CLIP-L's, as for train_teacher; DELTA is what training/
saved of the student. Without --student only the first two are stored. What is stored as delta is the student's
difference to the teacher as stored, so that rounding the teacher does not move the student.

With --flow the folder holds autoencoder.pt and flow.pt, and the names begin with flow_. Its delta is the low-rank one
that Train PeRFlow Delta wrote for the stored model, so with --student the delta alone is stored: the model stays.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, get_args

import numpy as np
import torch
from torch import Tensor
from transformers import CLIPTokenizer

from perflow_core.weights.lora_file import DOWN, UP

from ..networks.flow_transformer import flow_transformer
from ..networks.storage import WEIGHTS, Bits, averaged, pack, read, unpack, write
from ..networks.unet import narrow_unet
from ..scenes.picture import picture
from .dataset import trained_autoencoder
from .devices import as_tensor, placed
from .train_flow import FlowBatches, velocity
from .train_teacher import BATCH, Batch, Batches, predicted

Tensors = dict[str, Tensor]


class Kind(NamedTuple):
    """prefix: of the stored names; state: what the teacher's training left."""

    prefix: str
    state: str
    network: Callable[[], Any]
    batches: type[Batches]
    predicted: Callable[[Any, Batch], Tensor]
    autoencoder_bits: Bits


# The bits are chosen by the table that this program prints; README.md says why.
SD15 = Kind("", "teacher.pt", narrow_unet, Batches, predicted, autoencoder_bits=16)
FLOW = Kind("flow_", "flow.pt", flow_transformer, FlowBatches, velocity, autoencoder_bits=8)
TEACHER_BITS: Bits = 8
DELTA_BITS: Bits = 8


@torch.no_grad()
def main(folder: Path, tokenizer: Path, student: Path | None, flow: bool = False) -> None:
    print("file              bits      MB   error of the weights   of the output, relative")
    if flow and student:
        delta, metadata = read_low_rank(student)
        store("flow_delta", delta, DELTA_BITS, changes, metadata)
        return
    kind = FLOW if flow else SD15
    encoder, decoder = trained_autoencoder(folder)
    both = torch.nn.ModuleDict({"encoder": encoder, "decoder": decoder})
    drawn = [picture(seed) for seed in range(BATCH)]  # held out
    x = as_tensor(np.stack([pixels for pixels, _ in drawn]))
    captions = [caption for _, caption in drawn]
    batch = kind.batches.of_captions(encoder(x), captions, CLIPTokenizer.from_pretrained(tokenizer))[0]
    network = placed(kind.network())

    def pictures(weights: Tensors) -> Tensor:
        both.load_state_dict(weights)
        return decoder(encoder(x))

    def prediction(weights: Tensors) -> Tensor:
        network.load_state_dict(weights)
        return kind.predicted(network, batch)

    drawing = {name: tensor.cpu().clone() for name, tensor in both.state_dict().items()}
    store(f"{kind.prefix}autoencoder", drawing, kind.autoencoder_bits, pictures)
    (teacher,) = averaged(folder / kind.state, "unet")
    stored = store(f"{kind.prefix}teacher", teacher, TEACHER_BITS, prediction)
    if student:
        delta, metadata = read_delta(student, teacher)
        learned = added(teacher, delta)
        difference = {name: learned[name] - stored[name] for name in teacher}
        store("delta", difference, DELTA_BITS, lambda change: prediction(added(stored, change)), metadata)
        print(f"The delta moves the UNet's output by {relative(prediction(learned), prediction(teacher)):.2e}.")


def store(
    name: str,
    tensors: Tensors,
    bits: Bits,
    output: Callable[[Tensors], Tensor],
    metadata: dict[str, str] | None = None,
) -> Tensors:
    """Write the file, tell what each number of bits costs, and return the tensors as stored."""
    exact = output(tensors)
    flat = torch.cat([tensor.flatten() for tensor in tensors.values()])
    for choice in get_args(Bits):
        packed = pack(tensors, choice)
        found = unpack(packed)
        size = sum(tensor.nbytes for tensor in packed.values()) / 1e6
        error = relative(torch.cat([tensor.flatten() for tensor in found.values()]), flat)
        mark = "stored" if choice == bits else ""
        print(f"{name:16} {choice:5} {size:7.1f} {error:22.2e} {relative(output(found), exact):16.2e}  {mark}")
    write(tensors, WEIGHTS / f"{name}.safetensors", bits, metadata)
    return unpack(pack(tensors, bits))


def read_delta(file: Path, teacher: Tensors) -> tuple[Tensors, dict[str, str]]:
    """A full delta with diffusers' names, in float32, and its metadata."""
    delta, metadata = read(file)
    if delta.keys() != teacher.keys():
        raise SystemExit(
            f"{file.name} has {len(delta)} tensors, expected the teacher's {len(teacher)} by diffusers' names: train "
            "the student with method full, and save it with rank 0."
        )
    return delta, metadata


def read_low_rank(file: Path) -> tuple[Tensors, dict[str, str]]:
    """The pairs of a delta of Train PeRFlow Delta's, in float32, and its metadata; the alphas are the ranks."""
    tensors, metadata = read(file)
    pairs = {name: tensor for name, tensor in tensors.items() if name.endswith((UP, DOWN))}
    if "edges" not in metadata or not pairs:
        raise SystemExit(
            f"{file.name} has {len(pairs)} low-rank tensors and windows at the sigmas {metadata.get('edges')}, "
            "expected a flow model's delta that Train PeRFlow Delta wrote: train it with that node."
        )
    return pairs, metadata


def changes(delta: Tensors) -> Tensor:
    """What a low-rank delta adds to the weights, which stands for the output here."""
    downs = {name.removesuffix(DOWN): down for name, down in delta.items() if name.endswith(DOWN)}
    return torch.cat([(delta[name + UP].flatten(1) @ down.flatten(1)).flatten() for name, down in downs.items()])


def added(a: Tensors, b: Tensors) -> Tensors:
    return {name: tensor + b[name] for name, tensor in a.items()}


def relative(found: Tensor, wanted: Tensor) -> float:
    return float((found - wanted).norm() / wanted.norm())


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--tokenizer", type=Path, required=True)
    parser.add_argument("--student", type=Path, metavar="DELTA")
    parser.add_argument("--flow", action="store_true", help="the flow model")
    main(**vars(parser.parse_args()))
