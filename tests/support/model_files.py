"""What is in a 3D file: the mesh of a .glb (glTF 2.0), the number of splats of an .spz."""

import gzip
import json
import struct

import numpy as np

_TYPES = {5123: np.dtype("<u2"), 5125: np.dtype("<u4"), 5126: np.dtype("<f4")}
_NUMBERS = {"SCALAR": 1, "VEC3": 3}


def read_glb(content: bytes) -> tuple[np.ndarray, np.ndarray]:
    """Vertices [N, 3] and triangles [M, 3] of a file's one mesh, read by its chunks, accessors and views alone."""
    magic, version, length = struct.unpack_from("<4sII", content)
    assert (magic, version, length) == (b"glTF", 2, len(content))
    chunks, place = {}, 12
    while place < length:
        size, kind = struct.unpack_from("<I4s", content, place)
        assert size % 4 == 0
        chunks[kind] = content[place + 8 : place + 8 + size]
        place += 8 + size
    scene, data = json.loads(chunks[b"JSON"]), chunks[b"BIN\0"]
    assert scene["buffers"][0]["byteLength"] == len(data)
    (mesh,) = scene["meshes"]
    (part,) = mesh["primitives"]
    assert part["mode"] == 4  # triangles
    vertices = _read(scene, data, part["attributes"]["POSITION"])
    return vertices, _read(scene, data, part["indices"]).reshape(-1, 3)


def _read(scene: dict, data: bytes, number: int) -> np.ndarray:
    accessor = scene["accessors"][number]
    view = scene["bufferViews"][accessor["bufferView"]]
    kind, width = _TYPES[accessor["componentType"]], _NUMBERS[accessor["type"]]
    start = view.get("byteOffset", 0) + accessor.get("byteOffset", 0)
    count = accessor["count"] * width
    assert count * kind.itemsize <= view["byteLength"]
    values = np.frombuffer(data, kind, count, start).reshape(-1, width)
    for end, of in (("min", np.min), ("max", np.max)):
        assert end not in accessor or np.allclose(of(values, axis=0), accessor[end])
    return values


def splats_in(content: bytes) -> int:
    """How many splats an .spz file says it has."""
    magic, _, count = struct.unpack_from("<4sII", gzip.decompress(content))
    assert magic == b"NGSP"
    return count
