"""ComfyUI's own nodes have the names in our translations that they have on its page in that language."""

import json
import re

import environment
import pytest
from page_names import page_names
from schema_texts import flat, schema_texts

OURS = "PeRFlow"  # the category of our nodes begins so
LANGUAGES = ["zh", "ja"]
CAMEL = re.compile(r"(?<=[a-z])(?=[A-Z])")  # "FlipSigmas" is also quoted as "Flip Sigmas"
MORE_THAN_A_WORD = re.compile(r".[A-Z ]")  # a node may be called Text or Seed, which are words first
FIRST_CELL = re.compile(r"^\|.*?(?<!\\)\|", re.M)  # of a table: our inputs, or what a node says, which stays English


@pytest.fixture(scope="module")
def quoted(object_info):
    """English name -> the ids of ComfyUI's nodes that may be meant."""
    found: dict[str, set[str]] = {}
    for node, info in object_info.items():
        if not info["category"].startswith(OURS):
            shown = info["display_name"] or node
            for name in (shown, node, CAMEL.sub(" ", node), shown.partition(" (")[0]):
                found.setdefault(name, set()).add(node)
    return {name: ids for name, ids in found.items() if MORE_THAN_A_WORD.search(name)}


@pytest.fixture(scope="module")
def quotes(quoted, object_info, repository):
    """(where, English name, its text in zh and ja) for every stock node that an English text names."""
    longest_first = sorted(quoted, key=len, reverse=True)
    pattern = re.compile(r"(?<![\w-])(?:" + "|".join(map(re.escape, longest_first)) + r")(?!\w)")
    return [
        (where, name, translations)
        for where, english, translations in [*pages(repository), *node_texts(object_info, repository)]
        for name in sorted(set(pattern.findall(english)))
    ]


def pages(repository):
    for path in sorted((repository / "web" / "docs").glob("*.md")):
        folder = path.with_suffix("")
        translations = {language: (folder / f"{language}.md").read_text(encoding="utf-8") for language in LANGUAGES}
        yield path.name, FIRST_CELL.sub("", path.read_text(encoding="utf-8")), translations


def node_texts(object_info, repository):
    ours = {node: info for node, info in object_info.items() if info["category"].startswith(OURS)}
    translations = {
        language: dict(flat(json.loads((repository / "locales" / language / "nodeDefs.json").read_text("utf-8"))))
        for language in LANGUAGES
    }
    for where, english in flat(schema_texts(ours)):
        yield where, english, {language: translations[language][where] for language in LANGUAGES}


@pytest.mark.parametrize("language", LANGUAGES)
def test_names_are_the_pages_own(server, quoted, quotes, language):
    if server.get("/system_stats")["system"]["comfyui_version"] != environment.DEFAULT:
        pytest.skip(f"The texts name nodes as the page of ComfyUI {environment.DEFAULT} does.")
    names = page_names(language)
    assert {"KSampler", "FlipSigmas", "LoraLoader", "DisableNoise", "ConditioningConcat"} <= names.keys()
    assert len(quotes) > 40
    wrong = [
        (where, english, sorted({names[node] for node in quoted[english] if node in names}))
        for where, english, translations in quotes
        if not any(names.get(node, node) in translations[language] for node in quoted[english])
    ]
    assert not wrong
