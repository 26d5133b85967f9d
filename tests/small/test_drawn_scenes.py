"""The drawn pictures of small_model and their captions."""

import re
from dataclasses import asdict
from itertools import product

import numpy as np
import pytest

from small_model.scenes.picture import SIZE, TRAINING, draw, picture
from small_model.scenes.words import (
    ATTRIBUTES,
    COLOURS,
    PLACES,
    SUBJECTS,
    TIMES,
    WEATHERS,
    Scene,
    caption_of,
    random_caption,
    random_scene,
)
from small_model.trainers import dataset

CAPTION = re.compile(
    rf"an? (?:(?P<size>small|large) )?(?:(?P<colour>{'|'.join(COLOURS)}) )?(?P<subject>{'|'.join(SUBJECTS)}) "
    rf"(?:on|in|above) (?:a|the) (?P<place>{'|'.join(PLACES)}) at (?P<time>{'|'.join(TIMES)})"
    rf"(?:, (?P<weather>{'|'.join(WEATHERS)}))?(?:, (?:in|on) the (?P<side>left|middle|right))?"
)


def said(caption: str) -> dict[str, str]:
    """The attributes that a caption names."""
    found = CAPTION.fullmatch(caption)
    assert found, caption
    return {name: word for name, word in found.groupdict().items() if word}


def test_every_full_caption_says_its_whole_scene_and_no_other():
    scenes = [Scene(*words) for words in product(*ATTRIBUTES.values())]
    captions = [caption_of(scene) for scene in scenes]
    for scene, caption in zip(scenes, captions, strict=True):
        assert {"size": "medium"} | said(caption) == asdict(scene)
        assert caption.startswith("an ") == (caption.split()[1][0] in "aeiou")
    assert len(set(captions)) == len(scenes) == 7 * 6 * 4 * 4 * 7 * 3 * 3


def test_a_random_caption_says_a_part_of_its_scene():
    random = np.random.default_rng(0)
    silent = dict.fromkeys(ATTRIBUTES, 0)
    for _ in range(2000):
        scene = random_scene(random)
        told = said(random_caption(scene, random))
        assert told.items() <= asdict(scene).items()
        for name in silent.keys() - told.keys():
            silent[name] += name != "size" or scene.size != "medium"
    assert silent["subject"] == silent["place"] == silent["time"] == 0
    assert all(400 < silent[name] < 600 for name in ("colour", "weather", "side"))  # a quarter
    assert 260 < silent["size"] < 410  # a quarter of the two thirds that are not medium


def test_a_boat_is_where_boats_are():
    random = np.random.default_rng(1)
    places = {scene.place for scene in (random_scene(random) for _ in range(2000)) if scene.subject == "boat"}
    assert places == {"sea", "beach"}


def test_one_seed_is_one_picture():
    (pixels, caption), (again, caption_again) = picture(TRAINING), picture(TRAINING)
    assert pixels.shape == (SIZE, SIZE, 3)
    assert np.array_equal(pixels, again)
    assert caption == caption_again


def test_several_processes_draw_the_same_pictures(tmp_path, monkeypatch):
    monkeypatch.setattr(dataset, "PART", 2)
    for _ in range(2):  # drawn, then read
        pictures, captions = dataset.pictures_of(tmp_path, 5)
        wanted = [picture(seed) for seed in range(TRAINING, TRAINING + 5)]
        assert np.array_equal(pictures, np.stack([pixels for pixels, _ in wanted]))
        assert captions == [caption for _, caption in wanted]


def test_no_two_pictures_are_alike():
    pictures = {picture(seed)[0].tobytes() for seed in range(100)}
    scene = Scene("lighthouse", "cliff", "sunset", "clear", "red", "medium", "middle")
    pictures |= {draw(scene, np.random.default_rng(seed)).tobytes() for seed in range(100)}
    assert len(pictures) == 200


@pytest.mark.parametrize("subject", SUBJECTS)
def test_the_picture_shows_the_words(subject):
    """What differs between two scenes that differ in one word, in what the eye would see."""

    def pixels(**words: str) -> np.ndarray:
        usual = dict(place="sea", time="noon", weather="clear", colour="red", size="medium", side="middle")
        scene = Scene(subject, **(usual | words))
        return np.stack([np.asarray(draw(scene, np.random.default_rng(i)), float) for i in range(4)])

    assert pixels(time="night").mean() < 0.6 * pixels().mean()
    left, right = (pixels(colour="purple", side=side) for side in ("left", "right"))
    purple = [(views[..., 2] + views[..., 0] - 2 * views[..., 1]).clip(60) - 60 for views in (left, right)]
    centres = [(amount.sum((0, 1)) * np.arange(SIZE)).sum() / amount.sum() for amount in purple]
    assert centres[0] < 54
    assert centres[1] > 74
