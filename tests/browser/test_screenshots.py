"""The program that takes pictures of graphs, help pages and the template browser, with one graph and one page."""

import contextlib
import shutil

import pytest
from programs import run

NODE = "PeRFlowSampler"
TITLE = "01 SD1.5 text to image"


@pytest.fixture
def open_page(open_pages, monkeypatch):
    """What opens a page, for the program: gives it those of the other tests, since one more takes seconds."""
    from comfy_page import ComfyPage

    sizes = {}

    def get(browser, port, *, nodes2, size):
        page = open_pages("nodes2" if nodes2 else "classic")
        assert page.address.endswith(f":{port}")
        page.tidy()
        sizes.setdefault(page, page.page.viewport_size)
        page.page.set_viewport_size(dict(zip(("width", "height"), size, strict=True)))
        return page

    monkeypatch.setattr(ComfyPage, "close", lambda page: None)
    yield get
    for page, before in sizes.items():
        page.page.set_viewport_size(before)


def test_screenshots(server, browser, open_page, repository, monkeypatch, tmp_path):
    import comfy_page
    import screenshots
    from PIL import Image

    shutil.copy(repository / "workflows" / f"{TITLE}.json", tmp_path)
    monkeypatch.setattr(screenshots, "WORKFLOWS", tmp_path)
    help_page = tmp_path / "web" / "docs" / f"{NODE}.md"  # that there is one says of which node it takes pictures
    help_page.parent.mkdir(parents=True)
    help_page.touch()
    monkeypatch.setattr(screenshots, "PACK", tmp_path)
    monkeypatch.setattr(screenshots, "server", lambda comfyui: contextlib.nullcontext(server))
    monkeypatch.setattr(comfy_page, "ComfyPage", open_page)
    monkeypatch.setattr(comfy_page, "open_browser", lambda: contextlib.nullcontext(browser))
    for size in ("LARGE", "WIDE"):  # each frame of a large page takes a second here
        monkeypatch.setattr(screenshots, size, (900, 600))
    monkeypatch.setattr(screenshots, "README", tmp_path / "docs" / "first-graph.jpg")
    screenshots.README.parent.mkdir()
    run(monkeypatch, "scripts/screenshots.py", "--readme", "--out", str(tmp_path / "large"))
    assert Image.open(screenshots.README).width > 700
    expected = {f"{TITLE} classic.png", f"{TITLE} nodes2.png", f"help {NODE}.png", "templates.png"}
    assert {path.name for path in (tmp_path / "large").iterdir()} == expected
