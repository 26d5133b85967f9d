"""The pack is called PeRFlow in the template browser, whatever its folder is called."""

import json
import os
import sys

import pytest

LANGUAGES = ("en", "ja", "zh")
TRANSLATED = ("ja", "zh")


@pytest.fixture
def category(comfyui):
    return comfyui.module("nodes.comfyui.template_category")


@pytest.fixture
def pack(tmp_path):
    """A folder of another name, with the languages that have texts in the repository."""
    pack = tmp_path / "ComfyUI-PeRFlow.v2"
    for language in TRANSLATED:
        (pack / "locales" / language).mkdir(parents=True)
    return pack


def names(pack):
    files = sorted((pack / "locales").rglob("*.*"))
    assert [file.name for file in files] == ["main.json"] * len(LANGUAGES)
    return [json.loads(file.read_text(encoding="utf-8"))["templateWorkflows"]["category"] for file in files]


def test_the_folder_that_it_is_in(category, pack):
    category.write_name(pack)
    assert names(pack) == [{"ComfyUI-PeRFlow_v2": "PeRFlow"}] * 3


def test_once(category, pack):
    category.write_name(pack)
    before = [os.stat(path).st_mtime_ns for path in pack.rglob("main.json")]
    category.write_name(pack)
    assert [os.stat(path).st_mtime_ns for path in pack.rglob("main.json")] == before


def test_two_links_to_one_folder(category, pack):
    link = pack.parent / "another"
    try:
        link.symlink_to(pack, target_is_directory=True)
    except OSError:
        pytest.skip("This system makes no links.")
    category.write_name(pack)
    category.write_name(link)
    assert names(pack) == [{"ComfyUI-PeRFlow_v2": "PeRFlow", "another": "PeRFlow"}] * 3


@pytest.mark.parametrize("damaged", ["", "{}", '{"templateWorkflows": 3}', "[1"])
def test_a_damaged_file_is_written_anew(category, pack, damaged):
    (pack / "locales" / "ja" / "main.json").write_text(damaged)
    category.write_name(pack)
    assert names(pack) == [{"ComfyUI-PeRFlow_v2": "PeRFlow"}] * 3


@pytest.mark.skipif(sys.platform == "win32" or os.geteuid() == 0, reason="Nothing is forbidden here.")
def test_where_nothing_can_be_written(category, pack):
    (pack / "locales" / "ja").chmod(0o500)
    category.write_name(pack)


def test_where_there_are_no_languages(category, tmp_path):
    category.write_name(tmp_path)


def test_what_comfyui_answers(comfyui):
    from app.custom_node_manager import CustomNodeManager
    from trial.installed_pack import FOLDER

    for language in CustomNodeManager().build_translations().values():
        assert language["templateWorkflows"]["category"][FOLDER] == "PeRFlow"
