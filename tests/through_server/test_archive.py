"""What the registry gets: `comfy node validate` and `comfy node pack` on the files that git tracks."""

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from shipped_graphs import TITLES


@pytest.fixture(scope="module")
def checkout(repository, tmp_path_factory):
    """The tracked files as they are now, in a repository of their own."""
    target = tmp_path_factory.mktemp("archive") / "perflow"
    tracked = subprocess.check_output(["git", "ls-files"], cwd=repository, text=True).splitlines()
    for name in tracked:
        if (repository / name).is_file():
            (target / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(repository / name, target / name)
    subprocess.run(["git", "init", "-q"], cwd=target, check=True)
    subprocess.run(["git", "add", "-A"], cwd=target, check=True)
    return target


def comfy(*arguments: str, cwd: Path) -> str:
    quiet = {"DO_NOT_TRACK": "1", "COMFY_CLI_NO_REMOTE_REFRESH": "1", "COMFY_OUTPUT": "pretty"}
    command = [sys.executable, "-m", "comfy_cli", "--skip-prompt", *arguments]
    result = subprocess.run(command, cwd=cwd, env=os.environ | quiet, capture_output=True, text=True)
    assert result.returncode == 0, result.stdout + result.stderr
    return result.stdout + result.stderr


def test_validate(checkout):
    text = comfy("node", "validate", cwd=checkout)
    assert "warning" not in text.lower()


def test_pack(checkout):
    comfy("node", "pack", cwd=checkout)
    with zipfile.ZipFile(checkout / "node.zip") as archive:
        names = set(archive.namelist())
    top = {name.split("/")[0] for name in names}
    assert top == {
        "__init__.py", "nodes", "perflow_core", "workflows", "pyproject.toml", "requirements.txt",
        "README.md", "CHANGELOG.md", "LICENSE", "web", "locales",
    }  # fmt: skip
    assert "nodes/apply_delta.py" in names
    assert {"web/docs/PeRFlowApplyDelta.md", "web/node_texts.js"} <= names
    assert TITLES
    assert {f"workflows/{title}.{kind}" for title in TITLES for kind in ("json", "jpg")} <= names


def test_oldest_version_is_the_oldest_tested(repository):
    import environment

    oldest = min(environment.VERSIONS, key=lambda version: [int(part) for part in version.split(".")])
    assert f'requires-comfyui = ">={oldest}"' in (repository / "pyproject.toml").read_text()


def test_nothing_in_it_that_the_registry_flags(repository):
    """Network, subprocess and eval get a version flagged, and users then silently keep the old one."""
    flagged = ("subprocess", "os.system", "urllib", "requests", "socket", "eval(", "exec(", ".connect(", ".bind(")
    files = [repository / "__init__.py", *(repository / "nodes").rglob("*.py"), *repository.glob("perflow_core/*.py")]
    files += [*repository.glob("web/*.js")]
    assert len(files) > 20
    for file in files:
        text = file.read_text()
        assert not [word for word in flagged if word in text], file
