"""Write what follows from the nodes' schemas: titles and input lists of the help pages, new entries in the contract.

The Chinese and Japanese words come from locales/. A node without pages gets them, with its description to go on from.

`python scripts/describe_nodes.py [--check]` needs Python and nothing else.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

from environment import PACK, UserError
from interface_files import Json, write_files
from user_cache import run_program

DOCS, LOCALES = PACK / "web" / "docs", PACK / "locales"
CONTRACT = PACK / "tests" / "node_contract.json"
LARGEST_SEED = 0xFFFFFFFFFFFFFFFF
ENGLISH = "en"
LANGUAGES = (ENGLISH, "zh", "ja")
WORDS = {  # what the lists need, in each of these
    "head": ("**Inputs**", "**输入**", "**入力**"),
    "colon": (": ", "：", "："),
    "range": ("{} to {}", "{} 到 {}", "{}～{}"),
    "default": ("default {}", "默认：{}", "既定：{}"),
    "optional": ("optional", "可选", "任意"),
    "advanced": ("advanced input", "高级输入", "詳細入力"),
    "file": ("a file", "文件", "ファイル"),
    "or file": ("{} or a file", "{} 或文件", "{} またはファイル"),
    "text": ("text", "文本", "テキスト"),
    "empty": ("empty", "空", "空"),
    "on": ("on", "打开", "オン"),
    "off": ("off", "关闭", "オフ"),
    "between choices": (", ", "、", "、"),
    "between parts": ("; ", "；", "。"),
}
Words = dict[str, str]  # those of one language


def main() -> int:
    return write_files(__doc__, described)


def described(info: Json) -> dict[Path, str]:
    """Every help page and the contract, file -> text; `info` is /object_info.

    Raises UserError for an input that locales/ does not have.
    """
    ours = {node: interface for node, interface in info.items() if interface["category"].startswith("PeRFlow")}
    texts = {
        page_file(node, language): page(node, interface, language)
        for node, interface in ours.items()
        for language in LANGUAGES
    }
    return texts | {CONTRACT: contract(ours)}


def page_file(node: str, language: str) -> Path:
    return DOCS / f"{node}.md" if language == ENGLISH else DOCS / node / f"{language}.md"


def page(node: str, interface: Json, language: str) -> str:
    """A help page as it is in its file, the title and the list of inputs made anew.

    A list that is not there yet goes below the first paragraph; move it below the example.
    """
    shown = interface if language == ENGLISH else translated(node, interface, language)
    title = f"# {interface['display_name']}"
    if language != ENGLISH:
        title = f"# {shown['display_name']} / {interface['display_name']}"
    path = page_file(node, language)
    text = path.read_text(encoding="utf-8") if path.is_file() else f"{title}\n\n{shown['description']}\n"
    parts = [title, *text.removesuffix("\n").split("\n\n")[1:]]
    place = next((i for i, part in enumerate(parts) if part.startswith(WORDS["head"])), None)
    if place is None:
        place = 2
        parts.insert(place, "")
    parts[place] = list_of_inputs(interface, shown, language)
    return "\n\n".join(parts) + "\n"


def translated(node: str, interface: Json, language: str) -> Json:
    path = LOCALES / language / "nodeDefs.json"
    texts: Json = json.loads(path.read_text(encoding="utf-8")).get(node, {})
    for name, *_ in inputs(interface):
        if name not in texts.get("inputs", {}):
            raise UserError(
                f"{path} has no text for {name} of {node}, expected a name and a tooltip for each input: add them."
            )
    return texts


def list_of_inputs(interface: Json, shown: Json, language: str) -> str:
    """The inputs in the schema's order. No table: in ComfyUI's narrow panel a long name would take half of it."""
    words = {word: translations[LANGUAGES.index(language)] for word, translations in WORDS.items()}
    lines = [words["head"]]
    for name, kind, options in inputs(interface):
        head, tooltip = f"`{name}`", options["tooltip"]
        if language != ENGLISH:
            head, tooltip = f"{shown['inputs'][name]['name']} {head}", shown["inputs"][name]["tooltip"]
        lines.append(f"- {head}{words['colon']}{tooltip} *{values(kind, options, words)}*")
    return "\n".join(lines)


def inputs(interface: Json) -> Iterator[tuple[str, str, Json]]:
    """(name, type, options), the optional ones last."""
    for group in ("required", "optional"):
        for name, (kind, options) in interface["input"].get(group, {}).items():
            yield name, kind, options | {"optional": group == "optional"}


def values(kind: str, options: Json, words: Words) -> str:
    """What an input takes, and its default."""
    parts = [allowed(kind, options, words)]
    if options.get("default") is not None:
        parts.append(words["default"].format(worded(options["default"], words)))
    elif options["optional"]:
        parts.append(words["optional"])
    if options.get("advanced"):
        parts.append(words["advanced"])
    return words["between parts"].join(parts)


def allowed(kind: str, options: Json, words: Words) -> str:
    """Range or choices, or the type. A choice with an ending is a file of this machine, which is not named."""
    if kind == "COMBO":
        # Neither files nor the entry that says what to do where there is none.
        fixed = [choice for choice in options["options"] if not Path(choice).suffix and ": " not in choice]
        if len(fixed) > 1:
            return words["between choices"].join(fixed)
        return words["or file"].format(*fixed) if fixed else words["file"]
    if kind in ("INT", "FLOAT"):
        return words["range"].format(number(options["min"]), number(options["max"]))
    if kind == "BOOLEAN":
        return words["between choices"].join((words["on"], words["off"]))
    return words["text"] if kind == "STRING" else kind


def worded(default: str | float, words: Words) -> str:
    if isinstance(default, bool):
        return words["on" if default else "off"]
    return (default or words["empty"]) if isinstance(default, str) else number(default)


def number(value: float) -> str:
    """Without an exponent, but for the largest seed."""
    return "2^64 - 1" if value == LARGEST_SEED else f"{Decimal(str(value)).normalize():f}"


def contract(ours: Json) -> str:
    """The contract with an entry for each node that it does not have; no entry that it has changes."""
    known = json.loads(CONTRACT.read_text(encoding="utf-8"))
    entries = {node: known.get(node) or contract_entry(interface) for node, interface in ours.items()}
    return json.dumps(entries | known, indent=1) + "\n"


def contract_entry(interface: Json) -> Json:
    """Inputs in order, types, defaults and outputs: what saved graphs rely on."""
    entries = {name: {"type": kind, "default": options.get("default")} for name, kind, options in inputs(interface)}
    return {"inputs": entries, "outputs": list(interface["output"])}


if __name__ == "__main__":
    run_program(main)
