"""Steps and CFG for a user: what the file says, otherwise the authors' settings for the family."""

import pytest

from perflow_core.weights.delta_settings import learned_guidance, settings_text
from perflow_core.weights.weights_file import WeightsFile

AUTHORS = {"SD1.5": "CFG 4.5 to 7.5", "SDXL": "CFG 1.5 to 2.5", "SD2.x": "CFG 7.5", "SD3": "CFG as in its training"}


def file(**metadata):
    return WeightsFile("delta.safetensors", {}, {}, metadata, 0, None)


@pytest.mark.parametrize(("guidance", "learned"), [("2.5", 2.5), ("7.5", 7.5), ("1", None), ("cfg_sync", None)])
def test_learned_guidance(guidance, learned):
    assert learned_guidance(file(guidance=guidance)) == learned


@pytest.mark.parametrize("odd", ["", "inf", "nan", "-3", "two", "1e999"])
def test_odd_metadata_says_nothing(odd):
    assert learned_guidance(file(guidance=odd)) is None
    assert settings_text(file(guidance=odd), "SD1.5", 4) == "4 steps or more, CFG as in its training"


@pytest.mark.parametrize("family", AUTHORS)
def test_settings(family):
    assert settings_text(file(), family, 4) == f"4 steps or more, {AUTHORS[family]}"
    assert settings_text(file(guidance="3"), family, 1) == "1 step or more, CFG 1 to 2.5"
    assert settings_text(file(guidance="cfg_sync"), family, 2) == "2 steps or more, CFG as without the delta"
