"""The example graphs as programs: `python scripts/draw_graphs.py` writes them to workflows/.

`drawing` turns nodes named by type, with inputs named as in their schema, into ComfyUI's saved form. `files` names the
model files. Each of the other modules draws the graphs of one theme, each of them a function under `@graph`.
"""

from __future__ import annotations

import importlib
import pkgutil

from .drawing import GRAPHS

__all__ = ["GRAPHS"]

for module in pkgutil.iter_modules(__path__):
    importlib.import_module(f"{__name__}.{module.name}")
