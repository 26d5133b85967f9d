"""The parts of the benchmarks are imported from their folder, as the benchmarks themselves do."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[2] / "benchmarks"))
