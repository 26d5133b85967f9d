"""The program that takes pictures of the graphs, with one of them."""

import contextlib
import shutil

from programs import run

TITLE = "InstaFlow one step"  # the small trained model is not needed for its thumbnail


def test_one_graph(server, browser, repository, monkeypatch, tmp_path):
    import comfy_page
    import screenshots
    from PIL import Image

    shutil.copy(repository / "workflows" / f"{TITLE}.json", tmp_path)
    monkeypatch.setattr(screenshots, "WORKFLOWS", tmp_path)
    monkeypatch.setattr(screenshots, "server", lambda comfyui: contextlib.nullcontext(server))
    monkeypatch.setattr(comfy_page, "open_browser", lambda: contextlib.nullcontext(browser))
    run(monkeypatch, "scripts/screenshots.py", "--thumbnails", "--out", str(tmp_path / "large"))
    assert max(Image.open(tmp_path / f"{TITLE}.jpg").size) == screenshots.THUMBNAIL
    assert {path.name for path in (tmp_path / "large").iterdir()} >= {f"{TITLE} classic.png", f"{TITLE} nodes2.png"}
