"""Delta files made to be wrong: a header over zeros that cost no disk, with the names and shapes of a small UNet."""

import json
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any

import torch

Shape = tuple[int, ...]
Header = dict[str, Any]

BITS = {"BOOL": 8, "F4": 4, "F6_E2M3": 6, "C64": 64, "BF16": 16}  # others say it in their names
TORCH = {
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F32": torch.float32,
    "F64": torch.float64,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
}


@dataclass
class Draft:
    """A .safetensors file before it is written: name -> dtype and shape, the numbers that are not zero, metadata."""

    tensors: dict[str, tuple[str, Shape]]
    numbers: dict[str, tuple[int, list[float]]] = field(default_factory=dict)  # name -> where they start, and they
    metadata: dict[str, str] | None = None

    @classmethod
    def of(cls, shapes: Mapping[str, Shape], dtype: str = "F16", metadata: dict[str, str] | None = None) -> "Draft":
        return cls({name: (dtype, tuple(shape)) for name, shape in shapes.items()}, {}, metadata)

    def with_names(self, rename: Callable[[str], str]) -> "Draft":
        tensors = {rename(name): what for name, what in self.tensors.items()}
        return Draft(tensors, {rename(name): what for name, what in self.numbers.items()}, self.metadata)

    def with_shape(self, name: str, *shape: int) -> "Draft":
        return self.changed(name, self.tensors[name][0], shape)

    def with_dtype(self, name: str, dtype: str) -> "Draft":
        return self.changed(name, dtype, self.tensors[name][1])

    def changed(self, name: str, dtype: str, shape: Shape) -> "Draft":
        return Draft({**self.tensors, name: (dtype, shape)}, self.numbers, self.metadata)

    def with_shapes(self, shapes: Mapping[str, Shape], dtype: str = "F16") -> "Draft":
        """With more tensors."""
        return Draft({**self.tensors, **Draft.of(shapes, dtype).tensors}, self.numbers, self.metadata)

    def without(self, *names: str) -> "Draft":
        return Draft({name: what for name, what in self.tensors.items() if name not in names}, {}, self.metadata)

    def with_number(self, name: str, value: float, where: float = 0.5) -> "Draft":
        """With one number in a tensor, where 0 is its first and 1 its last."""
        index = round(where * (prod(self.tensors[name][1]) - 1))
        return Draft(self.tensors, {**self.numbers, name: (index, [value])}, self.metadata)

    def filled(self, name: str, value: float) -> "Draft":
        """With every number of a tensor the same."""
        numbers = [value] * prod(self.tensors[name][1])
        return Draft(self.tensors, {**self.numbers, name: (0, numbers)}, self.metadata)

    def header(self) -> Header:
        """As the format wants it."""
        header: Header = {} if self.metadata is None else {"__metadata__": dict(self.metadata)}
        end = 0
        for name, (dtype, shape) in self.tensors.items():
            start, end = end, end + size(dtype, shape)
            header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [start, end]}
        return header

    def write(self, path: Path, header: Header | bytes | None = None, length: int | None = None) -> Path:
        """Write it, with another header or another header length where one is given."""
        true = self.header()
        text = header if isinstance(header, bytes) else json.dumps(true if header is None else header).encode()
        data = 8 + len(text)
        with path.open("xb") as file:
            file.write(struct.pack("<Q", len(text) if length is None else length) + text)
            file.truncate(data + sum(size(*what) for what in self.tensors.values()))
            for name, (index, values) in self.numbers.items():
                dtype = self.tensors[name][0]
                file.seek(data + true[name]["data_offsets"][0] + index * size(dtype, (1,)))
                file.write(
                    torch.tensor(values, dtype=torch.float64).to(TORCH[dtype]).view(torch.uint8).numpy().tobytes()
                )
        return path


def size(dtype: str, shape: Shape) -> int:
    """Bytes of a tensor."""
    bits = BITS.get(dtype) or int(dtype[1:].partition("_")[0])
    return (prod(shape) * bits + 7) // 8


def lora(module: str, out: int, inner: int, rank: int = 4, up: str = "lora_up.weight", down: str = "lora_down.weight"):
    """The shapes of one pair; up and down follow the module's name after a dot."""
    return {f"{module}.{up}": (out, rank), f"{module}.{down}": (rank, inner)}


def as_diff(name: str) -> str:
    """A tensor's name in a file with LoRA keys."""
    module, _, kind = name.rpartition(".")
    return f"{module}.diff" if kind == "weight" else f"{module}.diff_b"
