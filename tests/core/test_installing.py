"""Environments from lists of packages: by a real uv, from an index of one small package on this disk."""

import hashlib
import os
import subprocess
import zipfile

import installing
import pytest
from environment import UserError

WHEEL = "perflow_tiny-1.0-py3-none-any.whl"
CONTENT = {
    "perflow_tiny.py": "",
    "perflow_tiny-1.0.dist-info/METADATA": "Metadata-Version: 2.1\nName: perflow-tiny\nVersion: 1.0\n",
    "perflow_tiny-1.0.dist-info/WHEEL": "Wheel-Version: 1.0\nGenerator: us\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    "perflow_tiny-1.0.dist-info/RECORD": "perflow_tiny.py,,\n",
}


@pytest.fixture(scope="module")
def first():
    """pip and uv, as the scripts have them."""
    return installing.installers()


@pytest.fixture
def pip_settings(monkeypatch, tmp_path):
    """The user's settings for pip, and none for uv."""
    for name in list(os.environ):
        if name.startswith(("PIP_", "UV_")) or name in installing.PIP_TO_UV.values():
            monkeypatch.delenv(name)
    settings = tmp_path / "pip.conf"
    monkeypatch.setenv("PIP_CONFIG_FILE", str(settings))
    return settings


@pytest.fixture
def lock_file(first, monkeypatch, tmp_path, pip_settings):
    """A lock file for one package; pip is told to look for it on this disk."""
    package = tmp_path / "simple" / "perflow-tiny"
    package.mkdir(parents=True)
    with zipfile.ZipFile(package / WHEEL, "w") as wheel:
        for name, text in CONTENT.items():
            wheel.writestr(name, text)
    (package / "index.html").write_text(f'<a href="{WHEEL}">{WHEEL}</a>')
    pip_settings.write_text(f"[global]\nindex-url = {(tmp_path / 'simple').as_uri()}\nfind-links = /no/such/folder\n")
    monkeypatch.setenv("PERFLOW_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(installing, "installers", lambda: first)
    path = tmp_path / "tiny.txt"
    path.write_text(f"perflow-tiny==1.0 --hash=sha256:{hashlib.sha256((package / WHEEL).read_bytes()).hexdigest()}\n")
    return path


def test_made_once_from_a_lock_file(lock_file, capsys):
    python = installing.locked_environment(lock_file)
    subprocess.run([python, "-c", "import perflow_tiny"], check=True)
    assert "Making a Python environment" in capsys.readouterr().out
    assert installing.locked_environment(lock_file) == python
    assert not capsys.readouterr().out


def test_an_interrupted_one_starts_afresh(lock_file, capsys):
    folder = installing.locked_environment(lock_file).parent.parent
    (folder / "complete").unlink()
    (folder / "half").touch()
    assert installing.locked_environment(lock_file).exists()
    assert not (folder / "half").exists()
    assert "Removing the unfinished" in capsys.readouterr().out


def test_a_package_with_another_hash_is_refused(lock_file):
    lock_file.write_text(f"perflow-tiny==1.0 --hash=sha256:{64 * '0'}\n")
    with pytest.raises(UserError, match=r"could not be filled: Failed to download.* Hash mismatch") as error:
        installing.locked_environment(lock_file)
    assert "\n" not in str(error.value)


def test_uv_is_told_what_pip_was_told(first, pip_settings, monkeypatch, tmp_path):
    """From pip's files and from its variables, which come first; more than one index, and folders that are there."""
    pip_settings.write_text("[global]\nindex-url = https://a/simple\ntimeout = 3\n[install]\ntimeout = 4\n")
    monkeypatch.setenv("PIP_INDEX_URL", "https://b/simple")
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", "https://c/simple https://d/simple")
    monkeypatch.setenv("PIP_FIND_LINKS", f"{tmp_path} /no/such/folder https://e/")
    monkeypatch.setenv("PIP_TRUSTED_HOST", "b")
    told = installing.uv_settings(first)
    assert told["UV_DEFAULT_INDEX"] == "https://b/simple"
    assert told["UV_INDEX"] == "https://c/simple https://d/simple"
    assert told["UV_FIND_LINKS"] == f"{tmp_path},https://e/"
    assert told["UV_INSECURE_HOST"] == "b"
    assert told["UV_HTTP_TIMEOUT"] == "4"
