"""The texts that ComfyUI's page shows in place of the schemas': zh and ja leave nothing out, en needs none."""

import re

import pytest
from schema_texts import flat, schema_texts

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


@pytest.fixture(scope="module")
def english(comfyui):
    """The schemas' own texts in the form of nodeDefs.json: path -> text."""
    nodes = {node.GET_SCHEMA().node_id: node.GET_NODE_INFO_V1() for node in comfyui.module("nodes").NODES}
    return dict(flat(schema_texts(nodes)))


def test_languages(served):
    assert set(served) == {"en", *TRANSLATIONS}


def test_english_is_the_schemas_own(served):
    assert set(served["en"]) == {"templateWorkflows"}


@pytest.mark.parametrize("language", TRANSLATIONS)
def test_nothing_is_missing_and_nothing_left_over(served, english, language):
    assert [path for path, _ in flat(served[language]["nodeDefs"])] == list(english)


@pytest.mark.parametrize("language", TRANSLATIONS)
def test_translated(served, language):
    same = SAME_IN_CHINESE if language == "zh" else set()
    untranslated = {text for _, text in flat(served[language]["nodeDefs"]) if not HAN_OR_KANA.search(text)}
    assert untranslated <= same


@pytest.mark.parametrize("language", TRANSLATIONS)
def test_numbers_and_the_words_of_code_are_kept(served, english, language):
    for path, text in flat(served[language]["nodeDefs"]):
        if path[-1] != "name":
            assert set(FACTS.findall(english[path])) <= set(FACTS.findall(text)), path


@pytest.mark.parametrize("language", TRANSLATIONS)
def test_nothing_that_vue_i18n_reads_as_code(served, language):
    for path, text in flat(served[language]):
        assert not SYNTAX & set(text), path
