"""How a script goes on inside its environment."""

import os
import subprocess
import sys

PROGRAM = """
import os, pathlib, sys
import environment
if "PERFLOW_INSIDE" not in os.environ:
    sys.exit(environment.relaunch(pathlib.Path(sys.executable), pathlib.Path("comfyui")))
print(sys.argv[1], os.environ["PERFLOW_COMFYUI"], sys.dont_write_bytecode, sys.pycache_prefix)
sys.exit(3)
"""


def test_the_script_runs_again_and_keeps_bytecode_in_the_cache(repository, tmp_path):
    script = tmp_path / "script.py"
    script.write_text(PROGRAM)
    ours = ("PERFLOW_INSIDE", "PERFLOW_COMFYUI", "PYTHONPYCACHEPREFIX")
    settings = {name: value for name, value in os.environ.items() if name not in ours}
    settings |= {
        "PYTHONPATH": str(repository / "scripts"),
        "PERFLOW_CACHE": str(tmp_path),
        "PYTHONDONTWRITEBYTECODE": "1",
    }
    done = subprocess.run([sys.executable, str(script), "word"], env=settings, capture_output=True, text=True)
    assert done.returncode == 3, done.stderr
    assert done.stdout.split() == ["word", "comfyui", "False", str(tmp_path / "bytecode")]
