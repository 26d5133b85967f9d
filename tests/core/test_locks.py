"""The lock files of scripts/locks: complete, for everybody, and what this environment was made from."""

import re
from importlib import metadata

import environment
import pytest
from installing import LOCKS, TOOLS, TRAINING
from packaging.requirements import Requirement
from packaging.version import Version

FILES = sorted(LOCKS.glob("*.txt"))


def requirements(path):
    """What a list of packages asks for, without the hashes."""
    lines = path.read_text(encoding="utf-8").splitlines()
    return [Requirement(line.partition(" \\")[0]) for line in lines if line and not line.startswith((" ", "#"))]


def test_every_version_has_one():
    assert {path.stem for path in FILES} == {"uv", "page", "training", *environment.VERSIONS}


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_everything_in_it_is_pinned_by_hash(path):
    text = path.read_text(encoding="utf-8")
    found = requirements(path)
    assert found
    assert all(re.fullmatch("==[^*]+", str(requirement.specifier)) for requirement in found)
    assert len(re.findall(r"^\S+==.*\\\n    --hash=sha256:", text, re.MULTILINE)) == len(found)


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_it_names_no_machine(path):
    assert not re.search(r"://|\bfile:|^-|[\\/]\w+[\\/]", path.read_text(encoding="utf-8"), re.MULTILINE)


def test_the_newest_page_is_newer_than_those_of_the_versions():
    def page(name):
        pins = [entry for entry in requirements(LOCKS / f"{name}.txt") if entry.name == "comfyui-frontend-package"]
        return Version(str(pins[0].specifier).removeprefix("=="))

    assert page("page") > max(map(page, environment.VERSIONS))


@pytest.mark.parametrize("version", environment.VERSIONS)
def test_the_tools_are_in_it(version):
    pins = {}
    for requirement in requirements(LOCKS / f"{version}.txt"):
        pins.setdefault(requirement.name, []).append(str(requirement.specifier).removeprefix("=="))
    for tool in requirements(TOOLS) + requirements(TRAINING):
        assert all(pin in tool.specifier for pin in pins.get(tool.name, ()))
        assert tool.name in pins


def test_this_environment_is_what_its_lock_says(comfyui_path):
    lock_file = environment.lock_for(comfyui_path / "requirements.txt")
    if not lock_file:
        pytest.skip(f"There is no lock file for the ComfyUI in {comfyui_path}.")
    wanted = [entry for entry in requirements(lock_file) if not entry.marker or entry.marker.evaluate()]
    assert len(wanted) > 100
    assert not [entry for entry in wanted if metadata.version(entry.name) not in entry.specifier]
