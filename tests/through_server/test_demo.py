"""The first of the two commands, as a user types it; the environment is the one the tests run in."""

import subprocess
import sys
from pathlib import Path

import pytest


def demo(repository, *arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, str(repository / "scripts" / "demo.py"), *arguments]
    return subprocess.run(command, cwd=cwd, capture_output=True, text=True, timeout=400)


def test_demo(repository, tmp_path):
    from PIL import Image

    (tmp_path / "perflow-demo.png").write_bytes(b"mine")
    result = demo(repository, "--size", "64x128", "--steps", "6", "--seed", "3", cwd=tmp_path)
    assert result.returncode == 0, result.stdout + result.stderr
    lines = result.stdout.splitlines()
    path = Path(lines[-1])
    assert Image.open(path).size == (64, 128)
    assert path.parent == tmp_path
    assert (tmp_path / "perflow-demo.png").read_bytes() == b"mine"  # never over another file
    assert any("1000 875 | 750 625 | 500 | 250" in line for line in lines)
    assert any("s a step" in line for line in lines)
    assert any("abstract" in line for line in lines)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--size", "100"], "--size is 100: it must be N or WxH with multiples of 8"),
        (["--checkpoint", "gone.safetensors", "--delta", "gone.safetensors"], "which is not a file"),
        (["--delta", "x.safetensors"], "both files are needed, or neither"),
        (["--steps", "0"], "--steps is 0"),
    ],
)
def test_bad_options_are_one_sentence(repository, tmp_path, arguments, sentence):
    result = demo(repository, *arguments, cwd=tmp_path)
    assert result.returncode != 0
    assert sentence in result.stderr
    assert "Traceback" not in result.stderr
