"""What the documents say is there: links, pictures, files, commands and their options, and the numbers of method.md."""

import re
from pathlib import Path
from urllib.parse import unquote

import pytest
import torch
import yaml

from perflow_core.sampling.schedule import window_schedule
from perflow_core.sampling.windows import Windows, by_window

WINDOWS = Windows.even(4)
REPOSITORY = Path(__file__).resolve().parent.parent.parent
HELP_PAGES = REPOSITORY / "web" / "docs"
METHOD = REPOSITORY / "docs" / "method.md"
PICTURE_LIMIT = 150_000  # bytes
ROOMS = "perflow_core|nodes|workflows|web|locales|docs|tests|scripts|benchmarks|training|small_model|.github"

FENCED, INLINE_CODE = re.compile(r"^```.*?^```", re.S | re.M), re.compile(r"`[^`\n]+`")
LINK = re.compile(r"\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ (.+)$", re.M)
COMMAND = re.compile(r"python ((?:scripts|benchmarks|small_model)/\w+\.py)([^\n`|&]*)")
IMPORTED = re.compile(r"^(?:import|from) (\w+)", re.M)  # a program's options may be in a module beside it
OPTION = re.compile(r"(?<!\S)\[?(--?[a-z][\w-]*)")
IN_THE_REPOSITORY = re.compile(rf"`((?:{ROOMS})/[^`<]*)`")


def documents() -> list[Path]:
    """Every Markdown file outside of hidden folders (tools keep their own there)."""
    paths = (path.relative_to(REPOSITORY) for path in REPOSITORY.rglob("*.md"))
    return sorted(path for path in paths if not any(part.startswith(".") for part in path.parts))


def read(path: Path) -> str:
    return (REPOSITORY / path).read_text(encoding="utf-8")


def anchors(path: Path) -> set[str]:
    """What GitHub makes of the headings: small letters, hyphens for spaces, no punctuation."""
    headings = HEADING.findall(FENCED.sub("", path.read_text(encoding="utf-8")))
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_there_are_documents():
    assert {Path("README.md"), Path("CONTRIBUTING.md"), Path("docs/method.md")} <= set(documents())


@pytest.mark.parametrize("document", documents(), ids=str)
def test_links_lead_somewhere(document):
    """ComfyUI resolves those of a help page from web/docs, in every language."""
    absolute = REPOSITORY / document
    folder = HELP_PAGES if HELP_PAGES in absolute.parents else absolute.parent
    for link in LINK.findall(INLINE_CODE.sub("", FENCED.sub("", read(document)))):
        if re.match("[a-z]+:", link):
            continue
        name, _, anchor = unquote(link).partition("#")
        target = folder / name if name else absolute
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link


@pytest.mark.parametrize("document", documents(), ids=str)
def test_files_it_names_are_in_the_repository(document):
    for name in IN_THE_REPOSITORY.findall(FENCED.sub("", read(document))):
        assert next(REPOSITORY.glob(name.rstrip("/")), None), name


@pytest.mark.parametrize("document", [*documents(), Path(".github/workflows/test.yml")], ids=str)
def test_commands_have_these_options(document, pytestconfig):
    """A script's own, for scripts/test.py pytest's, for scripts/train.py anything that accelerate launch takes."""
    for script, arguments in COMMAND.findall(read(document)):
        source = read(Path(script))
        parts = [(REPOSITORY / script).with_name(f"{module}.py") for module in IMPORTED.findall(source)]
        source += "".join(part.read_text(encoding="utf-8") for part in parts if part.is_file())
        for option in OPTION.findall(arguments):
            if f'"{option}"' not in source and script != "scripts/train.py":  # it hands on what accelerate takes
                assert script == "scripts/test.py", (script, option)
                pytestconfig.getoption(option)  # ValueError: pytest has no such option


def test_github_runs_the_oldest_and_the_newest():
    import environment

    (job,) = yaml.safe_load(read(Path(".github/workflows/test.yml")))["jobs"].values()
    cells = {(cell["comfyui"], cell["python"]) for cell in job["strategy"]["matrix"]["include"]}
    versions = sorted(environment.VERSIONS, key=lambda version: [int(part) for part in version.split(".")])
    (oldest_python,) = re.findall(r'requires-python = ">=(.+)"', read(Path("pyproject.toml")))
    assert {comfyui for comfyui, _ in cells} == {versions[0], versions[-1]}
    assert (versions[0], oldest_python) in cells


def test_the_methods_window_constants(chord):
    rows = re.findall(r"^\| (?:\d+ to \d+|the end, 0) \|(.+)\|$", METHOD.read_text(encoding="utf-8"), re.M)
    table = [[cell.strip() for cell in row.split("|")] for row in rows]
    ratios = [f"{r:.5f}" for r in chord.at((chord.s / chord.c)[:-1]).r.tolist()]
    columns = [[f"{value:.5f}" for value in values.tolist()] for values in (chord.c, chord.s, chord.s / chord.c)]
    assert table == [list(row) for row in zip(*columns, [*ratios, ""], strict=True)]


def test_the_methods_other_numbers(chord, alphas_cumprod):
    text = " ".join(METHOD.read_text(encoding="utf-8").split())
    on_the_chord = chord.sigma(torch.tensor(875.0, dtype=torch.float64))
    in_the_table = ((1 - alphas_cumprod[874]) / alphas_cumprod[874]).sqrt()
    assert f"sigma is {on_the_chord:.3f} at T = 875, where the table has {in_the_table:.3f}" in text
    assert f"six steps are {by_window(WINDOWS.timesteps(6), WINDOWS).replace(' |', '')}" in text
    assert f"two steps are {by_window(WINDOWS.timesteps(2), WINDOWS).replace(' |', '')}" in text
    assert 99 in WINDOWS.timesteps(20)
    assert "20 steps visit 99, not 100" in text
    assert f"sigma {window_schedule(chord, 4, end='reference')[-1]:.4f}" in text


def test_the_methods_files_are_the_cores():
    table = METHOD.read_text(encoding="utf-8").partition("file in `perflow_core/`")[2]
    rows = [re.findall(r"`([\w/]+\.py)`", line) for line in table.splitlines()]
    names = [Path(first).parent / Path(name).name for first, *more in filter(None, rows) for name in (first, *more)]
    assert len(names) > 10
    assert all((REPOSITORY / "perflow_core" / name).is_file() for name in names)


def test_what_the_methods_picture_shows(chord):
    import method_example as example

    found = example.paths()
    assert torch.equal(found.sigmas, chord.s / chord.c)
    check_pixel(found, curved=[2, 3], by=0.1)


def test_what_the_methods_other_picture_shows():
    import method_example as example

    found = example.flow_paths()
    assert found.sigmas.tolist() == pytest.approx([1, 0.9, 0.75, 0.5, 0])
    check_pixel(found, curved=[2], by=0.08)


def check_pixel(found, curved: list[int], by: float):
    """The exact path ends bright, so do four steps of PeRFlow, and four steps of the base model end on a grey.

    curved: the windows where the eye sees that the path is not straight, by so much.
    """
    import method_example as example

    at_edges = found.base[:: example.FINE]
    assert (found.perflow_steps - at_edges).abs().max() < 1e-9
    assert (example.BRIGHT - at_edges[-1]).abs() < 2 * example.SPREAD
    assert example.DARK + 5 * example.SPREAD < found.base_steps[-1] < example.BRIGHT - 3 * example.SPREAD
    share = torch.arange(example.FINE, dtype=torch.float64) / example.FINE
    straight = torch.lerp(at_edges[:-1, None], at_edges[1:, None], share)
    paths = found.base[:-1].reshape(example.WINDOWS, example.FINE)
    assert ((paths - straight).abs().amax(dim=1)[curved] > by).all()


def test_the_methods_picture_keeps_straight_lines_straight(chord):
    from draw_method import place

    edges = chord.s / chord.c
    assert place(edges, edges).tolist() == [0, 1, 2, 3, 4]
    middle = (edges[1:] + edges[:-1]) / 2
    assert place(middle, edges).tolist() == pytest.approx([0.5, 1.5, 2.5, 3.5])


@pytest.mark.parametrize("name", ["method", "method-flow"])
def test_the_methods_pictures_are_small_and_sharp(name):
    from PIL import Image

    path = METHOD.with_name(f"{name}.png")
    assert path.stat().st_size < PICTURE_LIMIT
    with Image.open(path) as picture:
        assert picture.width >= 1600  # shown at half of that


@pytest.mark.parametrize(("name", "size"), [("icon", (400, 400)), ("banner", (1260, 540))])
def test_the_registrys_pictures_are_their_drawings(name, size):
    """The registry asks for a square of at most 400 pixels, and for 21:9; the text has the same font everywhere."""
    import io

    import matplotlib
    import numpy as np
    import resvg_py
    from PIL import Image

    file, fonts = REPOSITORY / "docs" / "registry" / f"{name}.svg", f"{matplotlib.get_data_path()}/fonts/ttf"
    drawn = resvg_py.svg_to_bytes(
        svg_path=str(file), resources_dir=str(file.parent), font_dirs=[fonts], skip_system_fonts=True
    )
    stored, rendered = (Image.open(found).convert("RGB") for found in (file.with_suffix(".png"), io.BytesIO(drawn)))
    assert stored.size == rendered.size == size
    apart = np.abs(np.asarray(stored, float) - np.asarray(rendered, float)).mean()
    assert apart < 2, f"docs/registry/{name}.png is not {name}.svg: render it as docs/development.md says"
