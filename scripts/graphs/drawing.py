"""A graph in the form ComfyUI's page saves (version 0.4), drawn from left to right in columns of groups."""

from __future__ import annotations

import math
import re
import uuid
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from .files import File, Own

Json = dict[str, Any]

SPACE = uuid.UUID("0f6a5c52-6a43-4d0e-8f0b-3a1f6f3d9f11")  # graph ids hang on the title, so that they stay the same
TITLE, GAP, ACROSS, MARGIN = 30, 24, 20, 14  # a title bar, the room between nodes, between columns, a group's border
FRAME, SLOT, WIDGET = 24, 24, 32  # what "Nodes 2.0" of ComfyUI 0.26 needs; other pages need less
HEAD, SHORT_HEAD, LONG_HEAD = 834, 778, 1216  # widths of the first note: two columns, two narrower ones, three
GROUP_HEAD = 50  # a group's title, above the first node's
GREEN = {"color": "#232", "bgcolor": "#353"}  # our own nodes
DARK = {"color": "#222", "bgcolor": "#000"}  # notes: inline code is unreadable on the usual yellow
BYPASSED = 4
DYNAMIC = "COMFY_DYNAMICCOMBO_V3"  # a choice that may bring widgets of its own
CORE_PACKS = {"nodes", "comfy_extras", "comfy_api_nodes"}
VIEWERS = {"SaveGLB": ""}  # the page adds a viewer to these and saves a value for it behind the others
# Other packs, by the folder they are in: what ComfyUI's Manager writes for one of the registry, and for a checkout.
OTHER_PACKS = {
    "comfyui_ipadapter_plus": {"cnr_id": "comfyui_ipadapter_plus", "ver": "2.0.0"},
    "ComfyUI-Flowty-TripoSR": {
        "aux_id": "flowtyone/ComfyUI-Flowty-TripoSR",
        "ver": "a0c94ac60a7cc062604f61aeeea6d0d493521de3",
    },
}


GRAPHS: dict[str, Callable[[Graph], None]] = {}


def graph(title: str, *, new_seeds: bool = False) -> Callable[[Callable[[Graph], None]], Callable[[Graph], None]]:
    """Put a function that draws into GRAPHS. The title is the file's name and what the template browser shows.

    The browser can sort by it, so it begins with a number. new_seeds: each run takes another seed, for playing.
    """

    def put(draw: Callable[[Graph], None]) -> Callable[[Graph], None]:
        def drawn(g: Graph) -> None:
            g.after_run = "randomize" if new_seeds else "fixed"
            draw(g)

        GRAPHS[title] = drawn
        return draw

    return put


class Socket(NamedTuple):
    """An output that other nodes' inputs can be set to."""

    node: Node
    slot: int


class Node:
    def __init__(self, saved: Json) -> None:
        self.saved = saved

    def __getitem__(self, output: str | int) -> Socket:
        names = [entry["name"] for entry in self.saved["outputs"]]
        return Socket(self, output if isinstance(output, int) else names.index(output))


class Graph:
    """`column`, `group` and `add` in the order of reading; inputs are values, files or other nodes' sockets."""

    def __init__(self, title: str, object_info: Json, versions: dict[str, str]) -> None:
        self.title = title
        self.after_run = "fixed"  # what becomes of seeds
        self._info, self._versions = object_info, versions
        self._nodes: list[Node] = []
        self._links: list[list[Any]] = []
        self._groups: list[Json] = []
        self._x, self._y, self._width = 0.0, 0.0, 0.0
        self._below_head = (0.0, 0.0)  # columns that begin left of the first number start at the second
        self._group: Json | None = None

    def column(self, width: float, group: str | None = None) -> None:
        """Start a new column to the right of everything so far, and a group in it."""
        self._close_group()
        self._x += self._width + 2 * MARGIN + ACROSS if self._width else 0
        right, below = self._below_head
        self._y, self._width = below if self._x < right else 0.0, width
        if group:
            self.group(group)

    def group(self, title: str) -> None:
        """Start a group below what the column holds."""
        if self._group:
            self._close_group()
            self._y += GAP
        self._group = {"title": title, "bounding": [self._x - MARGIN, self._y, self._width + 2 * MARGIN, 0.0]}
        self._y += GROUP_HEAD

    def head(self, text: str, width: float = HEAD) -> None:
        """The note that is read first: above the first columns, as wide as two or three of them to be short."""
        self._width = width
        self.note(text)
        self._below_head = (width, self._y)
        self._y, self._width = 0.0, 0.0

    def note(self, text: str, title: str = "Read me") -> Node:
        """Markdown; lines are joined to paragraphs, since the page would show every line break."""
        text = re.sub(r"(?<=\S)\n(?=[^\s|#-])(?!\d+\. )", " ", text.strip())
        return self.add("MarkdownNote", title=title, tall=_note_height(text, self._width), text=text)

    def add(
        self,
        kind: str,
        *,
        title: str | None = None,
        tall: float | None = None,
        bypassed: bool = False,
        **inputs: Any,
    ) -> Node:
        """A node below the last one. `tall`, in pixels, is for nodes that show a picture or a text.

        Inputs go by their ids.
        """
        saved = self._saved(kind, inputs)
        slots = max(len(saved["inputs"]), len(saved["outputs"]))
        size = tall or FRAME + SLOT * slots + WIDGET * len(saved["widgets_values"])
        self._y += TITLE
        saved |= {"pos": [self._x, self._y], "size": [self._width, size], "title": title or saved["title"]}
        saved["mode"] = BYPASSED if bypassed else 0
        self._y += size + GAP
        node = Node(saved)
        self._nodes.append(node)
        self.connect(node, **inputs)
        return node

    def save(self) -> Json:
        """The finished graph."""
        self._close_group()
        nodes = [node.saved for node in self._nodes]
        for number, saved in enumerate(nodes):
            saved["order"] = number
            if saved["title"] is None:
                del saved["title"]
        groups = [
            {"id": number + 1, **group, "color": "#3f789e", "font_size": 24, "flags": {}}
            for number, group in enumerate(self._groups)
        ]
        return {
            "id": str(uuid.uuid5(SPACE, self.title)),
            "revision": 0,
            "last_node_id": len(nodes),
            "last_link_id": len(self._links),
            "nodes": nodes,
            "links": self._links,
            "groups": groups,
            "config": {},
            "extra": {"ds": {"scale": 0.6, "offset": [100, 100]}, "frontendVersion": self._versions["frontend"]},
            "version": 0.4,
        }

    def _close_group(self) -> None:
        if self._group:
            x, y, width, _ = self._group["bounding"]
            self._y -= GAP - MARGIN
            self._group["bounding"] = [x, y, width, self._y - y]
            self._groups.append(self._group)
            self._group = None

    def _saved(self, kind: str, inputs: Json) -> Json:
        if kind == "MarkdownNote":
            return self._node(kind, {}, [inputs["text"]], {}) | DARK
        info = self._info[kind]
        entries = {
            name: entry for part in ("required", "optional") for name, entry in info["input"].get(part, {}).items()
        }
        if unknown := inputs.keys() - entries.keys():
            raise ValueError(f"{kind} has no input {', '.join(sorted(unknown))}: it has {', '.join(entries)}.")
        sockets = {name: entry[0] for name, entry in entries.items() if not _is_widget(entry)}
        widgets = [
            value
            for name, entry in entries.items()
            if _is_widget(entry)
            for value in _value(name, entry, inputs, self.after_run)
        ]
        widgets += [VIEWERS[kind]] if kind in VIEWERS else []
        properties = {**self._pack(info), "Node name for S&R": kind}
        models = [value.saved for value in inputs.values() if isinstance(value, File)]
        node = self._node(kind, sockets, widgets, properties | ({"models": models} if models else {}))
        names, kinds = info["output_name"], info["output"]
        node["outputs"] = [
            {"name": name, "type": kind, "links": [], "slot_index": slot}
            for slot, (name, kind) in enumerate(zip(names, kinds, strict=True))
        ]
        return node | (GREEN if properties.get("cnr_id") == "perflow" else {})

    def _node(self, kind: str, sockets: Json, widgets: list[Any], properties: Json) -> Json:
        entries = [{"name": name, "type": kind, "link": None} for name, kind in sockets.items()]
        return {
            "id": len(self._nodes) + 1,
            "type": kind,
            "pos": [],
            "size": [],
            "flags": {},
            "order": 0,
            "mode": 0,
            "inputs": entries,
            "outputs": [],
            "properties": properties,
            "title": None,
            "widgets_values": widgets,
        }

    def _pack(self, info: Json) -> Json:
        """Where the node comes from, as ComfyUI's Manager writes it: its pack and the version."""
        top, _, folder = info["python_module"].partition(".")
        if top in CORE_PACKS:
            return {"cnr_id": "comfy-core", "ver": self._versions["comfy-core"]}
        if folder == "perflow":
            return {"cnr_id": "perflow", "ver": self._versions["perflow"]}
        return dict(OTHER_PACKS[folder])

    def connect(self, node: Node, **inputs: Any) -> None:
        """Set those of its inputs that are sockets; for a node that was added before what it is connected to."""
        for name, value in inputs.items():
            if not isinstance(value, Socket):
                continue
            entries = node.saved["inputs"]
            place = next((i for i, entry in enumerate(entries) if entry["name"] == name), None)
            output = value.node.saved["outputs"][value.slot]
            if place is None:  # a widget that is fed by a link keeps its place among the values
                place = len(entries)
                entries.append({"name": name, "type": output["type"], "widget": {"name": name}, "link": None})
            number = len(self._links) + 1
            self._links.append([number, value.node.saved["id"], value.slot, node.saved["id"], place, output["type"]])
            output["links"].append(number)
            entries[place]["link"] = number


def _note_height(text: str, width: float) -> float:
    """Just enough for the text in either rendering, by what the pages of ComfyUI 0.16, 0.30 and 0.33 need."""
    height = 20.0
    for line in re.sub(r"\]\([^)]*\)", "]", text).splitlines():
        shown = re.sub(r"[][*`]", "", line)
        item = line.startswith("- ")
        rows = max(1, math.ceil(5.8 * len(shown) / (width - (60 if item else 40))))
        height += 30 if line.startswith("#") else 24 if line.startswith("|") else 19 * rows + 10 * item if line else 4
    return height


def _is_widget(entry: Sequence[Any]) -> bool:
    kind, options = entry[0], entry[1] if len(entry) > 1 else {}
    return not options.get("forceInput") and (
        isinstance(kind, list) or kind in ("INT", "FLOAT", "STRING", "BOOLEAN", "COMBO", DYNAMIC)
    )


def _value(name: str, entry: Sequence[Any], inputs: Json, after_run: str) -> list[Any]:
    """What the page saves for one widget: mostly one value, two where it adds a widget of its own."""
    kind, options = entry[0], entry[1] if len(entry) > 1 else {}
    choices = kind if isinstance(kind, list) else options.get("options", [])
    if kind == DYNAMIC:
        choices = [choice["key"] for choice in choices]
    value = inputs.get(name)
    if value is None or isinstance(value, Socket):
        value = options.get("default", choices[0] if choices else {"INT": 0, "FLOAT": 0.0, "STRING": ""}.get(kind))
    if isinstance(value, File):
        value = value.name
    elif isinstance(value, Own):
        value = str(value)
    elif choices and value not in choices and not options.get("image_upload"):
        raise ValueError(f"{name} is {value}, expected one of {', '.join(map(str, choices))}.")
    if name in ("seed", "noise_seed") or options.get("control_after_generate"):
        return [value, after_run]
    return [value, "image"] if options.get("image_upload") else [value]
