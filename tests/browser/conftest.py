"""ComfyUI's own web page in a headless Chromium; where there is none, a line at the end says how to get one."""

import contextlib
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from chromium import HOW_TO_GET, find_chromium
from environment import DEFAULT, UserError, lock_for, newest_page
from trial.installed_pack import FOLDER

pytest.register_assert_rewrite("graph_on_page")
sys.path.append(str(Path(__file__).parent))  # test_newest_page.py runs tests of the other files again

RENDERINGS = ("classic", "nodes2")
MISSING = "there is no Chromium"
LONGEST = ("graphs", "newest_page", "run", "screenshots", "help")
SIZE = 1280, 800  # of the window; Chromium paints without a GPU here


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items):
    """Files with such tests last: Playwright keeps an event loop running, and ComfyUI here needs one of its own.

    Those that take longest come first among them, so that both processes end at about the same time.
    """
    files = {item.path for item in items if needs_browser(item)}  # whole ones: a process is given files, not tests
    order = {f"test_{name}": place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: (item.path in files, order.get(item.path.stem, len(order))))
    try:
        missing = not find_chromium()
    except UserError as error:
        raise pytest.UsageError(error) from None
    if missing:
        skip = pytest.mark.skip(reason=MISSING)
        for item in filter(needs_browser, items):
            item.add_marker(skip)


def needs_browser(item):
    return "browser" in getattr(item, "fixturenames", ())


def pytest_terminal_summary(terminalreporter):
    if any(MISSING in str(report.longrepr) for report in terminalreporter.stats.get("skipped", [])):
        terminalreporter.section("no Chromium", yellow=True)
        terminalreporter.line(f"The tests in ComfyUI's web page were not run: there is no Chromium. {HOW_TO_GET}.")


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item, call):
    """When a test fails, keep a picture of the page as it was, and let the next one have a fresh page."""
    report = yield
    page = getattr(item, "funcargs", {}).get("page")
    if report.failed and page:
        page.stale = True
        path = item.config._tmp_path_factory.getbasetemp() / (re.sub(r"\W+", "-", item.name) + ".png")
        with contextlib.suppress(Exception):  # the page can be past that, and the report is what counts
            report.sections.append(("page", f"A picture of the page as it was: {page.picture(path)}"))
    return report


@pytest.fixture(scope="session")
def browser():
    from comfy_page import open_browser

    with open_browser() as browser:
        yield browser


@pytest.fixture(scope="session")
def open_pages(browser, server):
    yield from pages_of(browser, server)


def pages_of(browser, server):
    """rendering -> its one page; opening it takes longer than most tests."""
    from comfy_page import ComfyPage

    pages: dict[str, ComfyPage] = {}

    def get(rendering):
        if rendering not in pages:
            pages[rendering] = ComfyPage(browser, server.port, nodes2=rendering == "nodes2", size=SIZE)
        return pages[rendering]

    yield get
    for page in pages.values():
        page.close()


@pytest.fixture(scope="session", params=RENDERINGS)
def shared_page(request, open_pages):
    return open_pages(request.param)


@pytest.fixture(scope="module", params=RENDERINGS)
def ipadapter_page(request, browser, ipadapter_server):
    """A page of a server that has ComfyUI_IPAdapter_plus."""
    from comfy_page import ComfyPage

    page = ComfyPage(browser, ipadapter_server.port, nodes2=request.param == "nodes2")
    yield page
    page.close()


@pytest.fixture(scope="module")
def newest_page_server(comfyui_path, start_server, tmp_path_factory):
    """A server with the newest of ComfyUI's web pages, where that is not too new for it."""
    lock_file = lock_for(comfyui_path / "requirements.txt")
    if lock_file and lock_file.stem != DEFAULT:
        pytest.skip("The newest page is for a newer ComfyUI.")
    yield from start_server(tmp_path_factory.mktemp("newest_page"), "--front-end-root", str(newest_page()))


@pytest.fixture(scope="module")
def open_newest_pages(browser, newest_page_server):
    yield from pages_of(browser, newest_page_server)


@pytest.fixture
def page(shared_page):
    """The page, with nothing open in it; one for all tests of a rendering."""
    shared_page.tidy()
    return shared_page


@pytest.fixture(scope="session")
def our_nodes(object_info) -> dict[str, Any]:
    return {kind: info for kind, info in object_info.items() if info["python_module"].endswith(f".{FOLDER}")}
