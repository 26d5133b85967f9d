"""The names that ComfyUI's web page gives its nodes, read from the page's own locales in its package."""

import re
from importlib.resources import files

TEXT = r"`((?:[^`\\]|\\.)*)`"
NAMED = re.compile(r"([\w$]+)=\{(?:description:" + TEXT + r",)?display_name:" + TEXT)
EXPORTED = re.compile(r"([\w$]+) as ([\w$]+)")
# How to tell a file's language: by the name of a node whose name no other language shares.
KNOWN = {"zh": "K采样器", "ja": "Kサンプラー"}


def page_names(language: str) -> dict[str, str]:
    """Node id -> the name on the page; empty where the installed page stores its locales otherwise."""
    assets = files("comfyui_frontend_package") / "static" / "assets"
    for file in assets.iterdir():
        if file.name.startswith("nodeDefs") and file.name.endswith(".js"):
            names = names_in(file.read_text(encoding="utf-8"))
            if names.get("KSampler") == KNOWN[language]:
                return names
    return {}


def names_in(script: str) -> dict[str, str]:
    """Of one file: a variable for each node, and at the end which node's it is."""
    variables = {variable: name for variable, _, name in NAMED.findall(script)}
    return {node: variables[variable] for variable, node in EXPORTED.findall(script) if variable in variables}
