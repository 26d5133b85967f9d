"""What demo, tests and benchmarks try the pack on: a ComfyUI as a server or in this process, and small models."""

import sys

from environment import PACK

# small_model/ and perflow_core/; last, since the pack's nodes/ must not hide ComfyUI's nodes.py.
sys.path.append(str(PACK))
