"""What the registry gets: `comfy node validate` and `comfy node pack` on the files that git tracks."""

import os
import posixpath
import re
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path
from urllib.parse import unquote

import pytest
from shipped_graphs import TITLES

RELATIVE_LINK = re.compile(r"\]\((?![a-z]+:|#)([^)\s#]+)[^)\s]*\)")
COMMAND = re.compile(r"python (\w+/\S+\.py)")
SAID = re.compile(r"\brepository\b")
HELP_PAGES = "web/docs"


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


@pytest.fixture(scope="module")
def packed(checkout):
    """The archive's files: name -> bytes."""
    comfy("node", "pack", cwd=checkout)
    with zipfile.ZipFile(checkout / "node.zip") as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def test_pack(packed):
    names = set(packed)
    top = {name.split("/")[0] for name in names}
    assert top == {
        "__init__.py", "nodes", "perflow_core", "workflows", "pyproject.toml", "requirements.txt",
        "README.md", "CHANGELOG.md", "LICENSE", "web", "locales", "docs",
    }  # fmt: skip
    assert "nodes/apply_delta.py" in names
    assert {"web/docs/PeRFlowApplyDelta.md", "web/node_texts.js", "locales/zh/nodeDefs.json"} <= names
    assert TITLES
    assert {f"workflows/{title}.{kind}" for title in TITLES for kind in ("json", "jpg")} <= names


def test_its_pages_lead_somewhere(packed):
    """To a file in the archive, or the paragraph says that it is in the repository only; commands as well."""
    pages = {name: content.decode() for name, content in packed.items() if name.endswith(".md")}
    assert {"README.md", "docs/method.md", "docs/quality.md", f"{HELP_PAGES}/PeRFlowApplyDelta.md"} <= pages.keys()
    lost = []
    for name, text in pages.items():
        # ComfyUI resolves the links of a help page from web/docs, in every language.
        folder = HELP_PAGES if name.startswith(HELP_PAGES) else posixpath.dirname(name)
        for paragraph in paragraphs(text):
            linked = [
                posixpath.normpath(posixpath.join(folder, unquote(link))) for link in RELATIVE_LINK.findall(paragraph)
            ]
            if not SAID.search(paragraph):
                lost += [(name, target) for target in linked + COMMAND.findall(paragraph) if target not in packed]
    assert not lost


def paragraphs(text: str) -> list[str]:
    """A list and a block of code belong to the paragraph that introduces them."""
    found: list[str] = []
    for block in re.split(r"\n\s*\n", text):
        introduced = found and block.startswith(("- ", "```")) and found[-1].endswith(":")
        found[-1:] = [f"{found[-1]}\n{block}"] if introduced else [*found[-1:], block]
    return found


def test_it_is_small(packed):
    """Pictures are most of it; every user downloads them."""
    assert sum(map(len, packed.values())) < 5_000_000


def test_what_the_manager_reads_of_it(checkout):
    """Environment :: GPU lines make its page say "Conflicting" to everybody: it compares CUDA with NVIDIA CUDA."""
    from comfy_cli.registry.config_parser import extract_node_configuration

    found = extract_node_configuration(str(checkout / "pyproject.toml"))
    assert found.project.supported_os == ["OS Independent"]
    assert found.project.supported_accelerators == []
    assert found.project.license.text == "Apache-2.0"


def test_oldest_version_is_the_oldest_tested(repository):
    import environment

    oldest = min(environment.VERSIONS, key=lambda version: [int(part) for part in version.split(".")])
    assert f'requires-comfyui = ">={oldest}"' in (repository / "pyproject.toml").read_text()


def test_nothing_in_it_that_the_registry_flags(repository):
    """Network, subprocess and eval get a version flagged, and users then silently keep the old one."""
    flagged = ("subprocess", "os.system", "urllib", "requests", "socket", "eval(", "exec(", ".connect(", ".bind(")
    files = [
        repository / "__init__.py",
        *(repository / "nodes").rglob("*.py"),
        *(repository / "perflow_core").rglob("*.py"),
    ]
    files += [*repository.glob("web/*.js")]
    assert len(files) > 20
    for file in files:
        text = file.read_text()
        assert not [word for word in flagged if word in text], file
