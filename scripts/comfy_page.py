"""ComfyUI's web page in a headless Chromium, driven as a user drives it: for the browser tests and the screenshots."""

from __future__ import annotations

import contextlib
import io
import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from chromium import HOW_TO_GET, find_chromium
from environment import UserError
from PIL import Image
from playwright.sync_api import Browser, ConsoleMessage, Locator, Request, TimeoutError, sync_playwright

Json = dict[str, Any]
Box = Sequence[float]  # left, top, right, bottom
MARGIN = {"left": 80, "top": 140, "right": 30, "bottom": 70}  # what the page puts over the canvas
PATIENCE = 180  # seconds; only a broken page takes as long, and a busy machine comes near
SETTINGS = {
    "Comfy.TutorialCompleted": True,  # else a new user gets the template browser first
    "Comfy.Workflow.Persist": False,
    "Comfy.Minimap.Visible": False,
    "Comfy.Graph.CanvasInfo": False,
    "Comfy.Workflow.ShowMissingModelsWarning": True,  # off by default in the oldest version
    "LiteGraph.Canvas.MinFontSizeForLOD": 0,  # text stays text, however small
    "LiteGraph.Canvas.LowQualityRenderingZoomThreshold": 0.05,  # the same in older versions
}
# Dialogs, toasts, and the report at the top right of newer versions.
NOTICES = (
    "[role=dialog], .p-dialog, [role=alertdialog], .comfy-modal, .p-toast-message, [data-testid*=toast], "
    "[data-testid=error-overlay]"
)
# No other server is found: routes of Playwright's would take a second of each load of the page.
ARGUMENTS = ["--disable-gpu", "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1"]
RESULT = "[data-testid=result-item], li.p-autocomplete-option"  # of the node search; newer and older versions


@contextlib.contextmanager
def open_browser() -> Iterator[Browser]:
    path = find_chromium()
    if not path:
        raise UserError(f"There is no Chromium: {HOW_TO_GET}.")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=ARGUMENTS, timeout=PATIENCE * 1000)
        try:
            yield browser
        finally:
            browser.close()


class ComfyPage:
    """One page. `nodes2` chooses between the classic canvas and the rendering that ComfyUI calls Nodes 2.0."""

    def __init__(self, browser: Browser, port: int, *, nodes2: bool, size: tuple[int, int] = (1600, 1000)) -> None:
        self.address, self.nodes2 = f"http://127.0.0.1:{port}", nodes2
        self.stale = False  # set by who leaves it in a bad state
        self.errors: list[str] = []  # the console's, since open(), tidy() or load(); not about other servers
        self._fetching: set[Request] = set()
        context = browser.new_context(viewport={"width": size[0], "height": size[1]})
        self.page = context.new_page()
        self.page.set_default_timeout(PATIENCE * 1000)
        settings = SETTINGS | {"Comfy.VueNodes.Enabled": nodes2}
        script = Path(__file__).with_name("comfy_page.js").read_text(encoding="utf-8")
        self.page.add_init_script(f"{script}\ncomfyPage.settings({json.dumps(settings)})")
        self.page.on("console", self._hear)
        self.page.on("pageerror", lambda error: self.errors.append(str(error)))
        self.page.on("request", lambda request: self._fetching.add(request))
        self.page.on("requestfinished", lambda request: self._fetching.discard(request))
        self.page.on("requestfailed", lambda request: self._fetching.discard(request))
        self.open()

    def _hear(self, message: ConsoleMessage) -> None:
        text = f"{message.text} ({message.location.get('url', '')})"
        if message.type == "error" and "https://" not in text:
            self.errors.append(text)

    def open(self) -> None:
        """Load the page itself, afresh."""
        self.stale = False
        self.page.goto(self.address, wait_until="domcontentloaded")
        self.page.wait_for_function("() => window.comfyPage.ready()")
        self.settle()
        self.errors.clear()  # a new user's settings files are not there yet, and the page says so

    def tidy(self) -> None:
        """Close what was left open; where that does not help, load the page afresh."""
        if self.notices():
            self.page.keyboard.press("Escape")
            self.settle()
        panel = self.page.get_by_test_id("properties-panel")
        if panel.is_visible():
            panel.get_by_role("button", name="Toggle properties panel").click()
        if self.stale or self.notices():
            self.open()
        self.errors.clear()  # what is shown next has nothing to do with them

    def close(self) -> None:
        self.page.context.close()

    def settle(self) -> None:
        """Wait until nothing is being fetched and the layout stands still."""
        quiet, end = 0, time.monotonic() + PATIENCE
        while quiet < 2:
            still = self.page.evaluate("() => comfyPage.still(3)")
            quiet = quiet + 1 if still and not self._fetching else 0
            if time.monotonic() > end:
                urls = [request.url for request in self._fetching]
                raise UserError(
                    f"The page did not come to rest within {PATIENCE} s; it waits for {urls or 'its layout'}."
                )

    def load(self, graph: Json, name: str = "graph") -> None:
        """Open a graph, with all of it in view."""
        self._load(graph, name)
        self.settle()
        if graph["nodes"]:
            self.fit()

    def first_sight(self, graph: Json, name: str) -> float:
        """Open a graph as the page itself shows all of it; returns the scale that a window 1600 wide would have."""
        self._load(graph, name)
        self.page.evaluate("() => app.extensionManager.command.execute('Comfy.Canvas.FitView')")
        self.settle()
        scale: float = self.page.evaluate("() => app.canvas.ds.scale")
        return scale * 1600 / self.page.evaluate("() => innerWidth")

    def _load(self, graph: Json, name: str) -> None:
        self.errors.clear()
        self.page.evaluate("([graph, name]) => app.loadGraphData(graph, true, true, name)", [graph, name])

    def nodes(self) -> list[Json]:
        """The nodes as they stand on the page: id, type, title, missing, box, widgets, pictures."""
        return self.page.evaluate("() => comfyPage.nodes()")

    def groups(self) -> list[Json]:
        return self.page.evaluate("() => comfyPage.groups()")

    def saved(self) -> Json:
        """The graph as the page would save it now."""
        return json.loads(self.page.evaluate("() => JSON.stringify(app.graph.serialize())"))

    def fit(self, boxes: Sequence[Box] = (), margin: Json = MARGIN, largest: float = 1.5) -> Json:
        """Bring these boxes, or all nodes and groups, into view; returns where they are on the screen."""
        boxes = boxes or [item["box"] for item in (*self.nodes(), *self.groups())]
        found = self.page.evaluate("([b, m, l]) => comfyPage.fit(b, m, l)", [boxes, margin, largest])
        self.settle()
        return dict(zip(("x", "y", "width", "height"), found, strict=True))

    def notices(self) -> list[str]:
        """The texts of the dialogs, toasts and reports that are open."""
        visible = "found => found.filter(one => one.checkVisibility()).map(one => one.innerText.trim())"
        return self.page.locator(NOTICES).evaluate_all(visible)

    def missing_report(self) -> str:
        """What the page says is missing, with all details shown."""
        details = self.page.get_by_test_id("error-overlay-see-errors")
        self.page.locator("[role=dialog]").or_(details).first.wait_for()
        report = self.notices()
        if details.count():  # newer versions have a panel for it
            groups = self.page.locator("[data-testid^=error-group-missing]")
            self._click(details, groups.first)
            for expand in groups.get_by_role("button", name="Expand", exact=True).all():
                expand.click()
            self.settle()
            report += groups.all_inner_texts()
        return "\n".join(report)

    def run(self, shows: Sequence[str], only: Json | None = None, patience: float = 300) -> None:
        """Press Run, or queue one node with what it needs; wait until the nodes of these types show pictures."""
        if only:
            self.page.evaluate("id => app.queuePrompt(0, 1, [String(id)])", only["id"])
        else:
            self.page.get_by_test_id("queue-button").click()
        self.page.wait_for_function(
            "kinds => kinds.every(kind => comfyPage.nodes().some(node => node.type == kind && node.pictures))",
            arg=list(shows),
            timeout=patience * 1000,
        )
        self.settle()

    def cut_texts(self) -> list[str]:
        """The titles of the nodes whose text has to be scrolled, as notes on the canvas can."""
        return self.page.evaluate("() => comfyPage.cutTexts()")

    def texts(self) -> Json:
        """node id -> the text that stands below its widgets."""
        return self.page.evaluate("() => comfyPage.texts()")

    def show_text(self, node_id: int, text: str) -> None:
        """Show a text on a node, as when the server sends one for a node that runs."""
        detail = {"nodeId": str(node_id), "text": text.replace("\n", "  \n")}
        self.page.evaluate("detail => app.api.dispatchCustomEvent('progress_text', detail)", detail)

    def node_help(self, node: Json) -> Locator:
        """Select a node by its title and open its info panel; returns the panel's text."""
        where = self.fit([node["box"]], largest=1.0)
        button = self.page.get_by_test_id("info-button")
        for _ in range(10):
            self.page.mouse.click(where["x"] + where["width"] / 2, where["y"] + 12)  # a busy page can miss one
            with contextlib.suppress(TimeoutError):
                button.wait_for(timeout=5000)
                break
        button.click()
        text = self.page.locator(".node-help-content")
        text.wait_for()
        self.settle()
        return text

    def search(self, words: str) -> Locator:
        """Double-click the empty canvas, unless the search is open already, and type; returns the results."""
        field = self.page.locator("[role=dialog] input[role=combobox], .p-dialog input[role=combobox]").first
        results = self.page.locator(RESULT)
        for _ in range(10):
            if field.is_visible():
                break
            self.page.mouse.dblclick(900, 700)  # on a busy machine too slow for a double click now and then
            with contextlib.suppress(TimeoutError):
                field.wait_for(timeout=2000)
        field.fill("zzzzzzzz")
        results.first.wait_for(state="detached")  # the results of the words before are gone
        field.fill(words)
        return results

    def open_templates(self, category: str) -> Locator:
        """Open the template browser at a category; returns its cards."""
        browser = self.page.get_by_role("dialog")
        # Newer versions have a hidden button too.
        names = browser.get_by_text(category, exact=True).filter(visible=True)
        self._click(self.page.get_by_role("button", name="Templates").first, names.first)
        self._click(names.first, names.nth(1))  # now it is the title above the cards too
        self.settle()
        return browser.locator("[data-testid^='template-workflow-']")

    def _click(self, button: Locator, shown: Locator) -> None:
        """Click, again where a busy page missed it, until what it shows is there."""
        for _ in range(10):
            with contextlib.suppress(TimeoutError):
                button.click(timeout=5000)  # what came up meanwhile can lie over it
            with contextlib.suppress(TimeoutError):
                return shown.wait_for(timeout=5000)
        shown.wait_for()

    def picture(self, path: Path, clip: Json | None = None) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.page.screenshot(path=path, clip=clip)  # type: ignore[arg-type]
        return path

    def shot(self, clip: Json) -> Image.Image:
        """That part of the page."""
        return Image.open(io.BytesIO(self.page.screenshot(clip=clip))).convert("RGB")  # type: ignore[arg-type]
