"""The judge of drawn pictures: captions read back, and attributes found in drawings that it was not trained on."""

import numpy as np
import pytest
import torch
from PIL import Image

from small_model.quality.classifier import WEIGHTS, classifier
from small_model.scenes import picture as drawn
from small_model.scenes.picture import picture
from small_model.scenes.styles import STYLES
from small_model.scenes.words import ATTRIBUTES, caption_of, named_attributes

COUNT = 150


@pytest.fixture(scope="module")
def drawings():
    return [picture(number)[0] for number in range(COUNT)]


def judged(pictures) -> list[dict[str, str]]:
    x = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2).float() / 255
    network = classifier()
    words = network.words(network.features(x))
    return [{name: words[name][i] for name in ATTRIBUTES} for i in range(len(pictures))]


def share(pictures) -> float:
    """Of the attributes that captions name, those found."""
    found = judged(pictures)
    said = [named_attributes(drawn.caption(number)) for number in range(COUNT)]
    right = [found[i][name] == word for i, words in enumerate(said) for name, word in words.items()]
    return sum(right) / len(right)


def test_captions_are_those_of_the_drawings():
    assert all(drawn.caption(number) == picture(number)[1] for number in range(20))


def test_captions_are_read_back():
    for number in range(200):
        scene = drawn.scene(number)
        whole, partly = named_attributes(caption_of(scene)), named_attributes(drawn.caption(number))
        expected = {name: getattr(scene, name) for name in ATTRIBUTES}
        if scene.size == "medium":  # which goes without saying
            del expected["size"]
        assert whole == expected
        assert partly.items() <= expected.items()


def test_the_attributes_of_drawings_are_found(drawings):
    assert share(drawings) > 0.97


def test_the_attributes_of_other_pictures_are_not(drawings):
    assert share(drawings[1:] + drawings[:1]) < 0.4
    noise = np.random.default_rng(0).integers(0, 256, (COUNT, 128, 128, 3), dtype=np.uint8)
    assert share(noise) < 0.4


@pytest.mark.parametrize("style", STYLES)
def test_styles_keep_what_a_picture_shows(drawings, style):
    styled = [np.asarray(STYLES[style](Image.fromarray(drawing))) for drawing in drawings]
    assert np.abs(np.stack(styled).astype(float) - np.stack(drawings)).mean() > 15
    assert share(styled) > 0.9


def test_pictures_of_other_sizes_are_seen_alike(drawings):
    """It looks at 64 pixels."""
    half = [np.asarray(Image.fromarray(drawing).reduce(2)) for drawing in drawings]
    same = [a == b for a, b in zip(judged(drawings), judged(half), strict=True)]
    assert sum(same) / len(same) > 0.97


def test_its_file_is_small():
    assert WEIGHTS.stat().st_size < 1_000_000
