"""The part of a graph that sets it apart from the others: what fits a small square picture of it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any

Json = dict[str, Any]
Box = Sequence[float]  # left, top, right, bottom
EDGE = 15  # units of the graph around what is shown


def users_of_types(graphs: Iterable[Json]) -> Counter[str]:
    """Node type -> how many graphs have it."""
    return Counter(kind for graph in graphs for kind in {node["type"] for node in graph["nodes"]})


def find(nodes: list[Json], groups: list[Json], used_by: Counter[str]) -> Box:
    """The box around neighbouring groups in which there is most, for its size, that few other graphs have."""
    nodes = [node for node in nodes if "Note" not in node["type"]]
    loose = [node for node in nodes if not any(inside(node["box"], group["box"]) for group in groups)]
    parts = sorted(part["box"] for part in (*groups, *loose))
    boxes = [around(parts[i : j + 1]) for i in range(len(parts)) for j in range(i + 1, len(parts))]

    def worth(box: Box) -> float:
        rare = sum(1 / used_by[node["type"]] for node in nodes if inside(node["box"], box))
        return rare / max(box[2] - box[0], box[3] - box[1])

    return max(boxes or [around(parts)], key=worth)


def around(boxes: Sequence[Box]) -> Box:
    """The box around them all, with an edge."""
    lefts, tops, rights, bottoms = zip(*boxes, strict=True)
    return [min(lefts) - EDGE, min(tops) - EDGE, max(rights) + EDGE, max(bottoms) + EDGE]


def inside(box: Box, frame: Box) -> bool:
    return box[0] >= frame[0] and box[1] >= frame[1] and box[2] <= frame[2] and box[3] <= frame[3]
