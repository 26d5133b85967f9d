"""Where the browser of these tests comes from, and what is said when there is none."""

import shutil
import sys

import chromium
import pytest
from environment import UserError


def test_the_variable_comes_first(monkeypatch):
    monkeypatch.setenv("CHROMIUM", sys.executable)
    assert str(chromium.find_chromium()) == sys.executable
    monkeypatch.setenv("CHROMIUM", "/no/such/program")
    with pytest.raises(UserError, match="CHROMIUM is /no/such/program, which is not a program"):
        chromium.find_chromium()


@pytest.fixture
def nowhere(monkeypatch):
    monkeypatch.delenv("CHROMIUM", raising=False)
    monkeypatch.setattr(chromium, "PLACES", {})
    monkeypatch.setenv("PATH", "")


def test_none_is_found_where_there_is_none(nowhere):
    assert chromium.find_chromium() is None


def test_installation_without_apt_get(nowhere):
    with pytest.raises(UserError, match="works where apt-get is"):
        chromium.install_chromium()


@pytest.mark.parametrize("root", [True, False])
def test_installation(nowhere, monkeypatch, root):
    """With root's rights or by sudo; the name that Ubuntu has when Debian's does not work."""
    commands = []
    monkeypatch.setattr(shutil, "which", lambda name: f"/bin/{name}" if name in ("apt-get", "sudo") else None)
    monkeypatch.setattr(chromium, "is_root", lambda: root)
    monkeypatch.setattr(chromium, "run", lambda command: commands.append(command) or command[-1] == "chromium-browser")
    with pytest.raises(UserError, match="apt-get installed no Chromium"):
        chromium.install_chromium()
    apt_get = ["/bin/apt-get"] if root else ["/bin/sudo", "/bin/apt-get"]
    install = [*apt_get, "install", "--yes", "--no-install-recommends"]
    assert commands == [[*apt_get, "update"], [*install, "chromium"], [*install, "chromium-browser"]]
