"""The texts that ComfyUI's page shows in place of the schemas': en says what they say, zh and ja leave nothing out."""

import re

import pytest

TRANSLATIONS = ["zh", "ja"]
SYNTAX = set("@{}|%")  # code to vue-i18n. Escaped it would not do either: newer pages show tooltips as they are.
HAN_OR_KANA = re.compile("[\u3040-\u30ff\u4e00-\u9fff]")
SAME_IN_CHINESE = {"Sigmas", "Latent"}  # ComfyUI's own zh has it so
FACTS = re.compile(r"[0-9]+(?:\.[0-9]+)?|[a-z0-9]+_[a-z_]+")  # numbers and the words of code


@pytest.fixture(scope="module")
def served(comfyui):
    """What ComfyUI answers at /i18n: language -> texts."""
    from app.custom_node_manager import CustomNodeManager

    return CustomNodeManager().build_translations()


def texts(tree, path=()):
    """(path, text) of every text in it."""
    for key, value in tree.items():
        if isinstance(value, dict):
            yield from texts(value, (*path, key))
        else:
            yield (*path, key), value


def in_schema(node) -> dict:
    """A node's texts as its schema has them, in the form of nodeDefs.json."""
    info = node.GET_NODE_INFO_V1()
    inputs = {}
    for kind in ("required", "optional"):
        for key, (_, *options) in info["input"].get(kind, {}).items():
            said = options[0] if options else {}
            inputs[key] = {"name": said.get("display_name") or key, "tooltip": said.get("tooltip")}
            if said.get("control_after_generate"):
                inputs["control_after_generate"] = {"name": "control after generate"}
    outputs = {}
    for i, (kind, name, tooltip) in enumerate(
        zip(info["output"], info["output_name"], info["output_tooltips"], strict=True)
    ):
        named = {"name": name} if name != kind else {}  # a name that is the type is translated by ComfyUI itself
        explained = {"tooltip": tooltip} if tooltip else {}
        if named or explained:
            outputs[str(i)] = named | explained
    texts = {"display_name": info["display_name"], "description": info["description"], "inputs": inputs}
    return texts | ({"outputs": outputs} if outputs else {})


def test_languages(served):
    assert set(served) == {"en", *TRANSLATIONS}


def test_english_is_what_the_schemas_say(comfyui, served):
    ours = {node.GET_SCHEMA().node_id: in_schema(node) for node in comfyui.module("nodes").NODES}
    assert served["en"]["nodeDefs"] == ours


@pytest.mark.parametrize("language", TRANSLATIONS)
def test_nothing_is_missing_and_nothing_left_over(served, language):
    assert [path for path, _ in texts(served[language])] == [path for path, _ in texts(served["en"])]


@pytest.mark.parametrize("language", TRANSLATIONS)
def test_translated(served, language):
    same = SAME_IN_CHINESE if language == "zh" else set()
    untranslated = {text for _, text in texts(served[language]["nodeDefs"]) if not HAN_OR_KANA.search(text)}
    assert untranslated <= same


@pytest.mark.parametrize("language", TRANSLATIONS)
def test_numbers_and_the_words_of_code_are_kept(served, language):
    english = dict(texts(served["en"]["nodeDefs"]))
    for path, text in texts(served[language]["nodeDefs"]):
        if path[-1] != "name":
            assert set(FACTS.findall(english[path])) <= set(FACTS.findall(text)), path


@pytest.mark.parametrize("language", ["en", *TRANSLATIONS])
def test_nothing_that_vue_i18n_reads_as_code(served, language):
    for path, text in texts(served[language]):
        assert not SYNTAX & set(text), path
