"""Prompts of any length, and layers of the text encoder."""

import copy
import json
import shutil
from dataclasses import replace

import pytest
import torch
from trial.small_teachers import make_teacher

from training.config import TeacherConfig
from training.stopping import TrainingError
from training.teacher import Prompts, load
from training.unet_teacher import check_clip_skip

LONG = "a lighthouse, " * 12  # each letter is a token of the small tokenizer
LONGER = "the sea at night, " * 15


OWN = [(768, -1, -2, -2, -1), (1024, -2, -3, -3, -2), (2048, -2, -1, -2, -1)]


@pytest.fixture(scope="module")
def teacher_of(tmp_path_factory, teacher_folder):
    """Small ones by the width of their text embeddings."""
    base, made = tmp_path_factory.mktemp("teachers"), {}

    def teacher(width: int):
        if width not in made:
            folder = teacher_folder if width == 768 else make_teacher(base / f"{width}", width)
            made[width] = load(TeacherConfig(path=str(folder)), 64)
        return made[width]

    return teacher


@pytest.mark.parametrize("width", [768, 1024, 2048])
def test_prompts_up_to_77_tokens_are_the_pipelines(teacher_of, width):
    teacher = teacher_of(width)
    texts = ["a house", "", "c" * 75]
    theirs = teacher.pipeline.encode_prompt(
        texts, device="cpu", num_images_per_prompt=1, do_classifier_free_guidance=False
    )
    embeddings, pooled = teacher.encode_prompts(texts)
    assert torch.equal(embeddings, theirs[0])
    assert torch.equal(pooled, theirs[2]) if width == 2048 else pooled.shape == (3, 0)


@pytest.mark.parametrize("width", [768, 2048])
def test_chunks_of_75_are_encoded_alone(teacher_of, width):
    teacher = teacher_of(width)
    one, two = "x" * 30, "y" * 40
    texts = ["a house", one * 2 + "z" * 15 + two, ""]
    embeddings, pooled = teacher.encode_prompts(texts)
    assert embeddings.shape[:2] == (3, 154)
    # The small tokenizer marks the end of a word: letters within one and at its end are other tokens.
    tokens = teacher.pipeline.tokenizer(texts[1], add_special_tokens=False).input_ids
    assert len(tokens) == 115
    parts = [teacher.pipeline.tokenizer.decode(tokens[start : start + 75]) for start in (0, 75)]
    assert "".join(parts) == texts[1]
    second = teacher.encode_prompts([parts[1]])
    assert (embeddings[1, 77:] - second.embeddings[0]).abs().max() < 1e-5
    alone = teacher.encode_prompts([texts[1]])
    assert (embeddings[1] - alone.embeddings[0]).abs().max() < 1e-5
    assert (pooled[1] - alone.pooled[0]).abs().max() < 1e-5 if width == 2048 else pooled.shape == (3, 0)
    assert Prompts(embeddings, pooled).counted.sum(1).tolist() == [77, 154, 77]


@pytest.mark.parametrize(("width", "own", "other", "first", "last"), OWN)
def test_clip_skip_counts_as_comfyui(teacher_of, width, own, other, first, last):
    """Of encoders with 2 layers; diffusers leaves out the last one of SD2.x. 0 is the model's own."""
    teacher = teacher_of(width)
    usual, same, found = (
        replace(teacher, clip_skip=number).encode_prompts(["a house"]).embeddings for number in (0, own, other)
    )
    assert torch.equal(same, usual)
    ids = teacher.pipeline.tokenizer("a house", padding="max_length", return_tensors="pt").input_ids
    encoder = copy.deepcopy(teacher.text_encoders[0])
    inner = getattr(encoder, "text_model", encoder)
    if width == 2048:
        assert torch.equal(inner.final_layer_norm(found[..., :768]), encoder(ids).last_hidden_state)
    else:
        del inner.encoder.layers[-1]
        assert torch.equal(found, encoder(ids).last_hidden_state)
    for number in (first, last, 0):
        check_clip_skip(replace(teacher, clip_skip=number))
    for wrong in {first - 1, last + 1} - {0}:
        with pytest.raises(TrainingError, match=rf"clip_skip is {wrong}, expected {first} to {last}"):
            check_clip_skip(replace(teacher, clip_skip=wrong))


def test_a_prompts_output_does_not_depend_on_its_batch(teacher_of):
    """Of teacher and student, with guidance and without."""
    teacher = teacher_of(768)
    texts, empty = ["a house", LONG, LONGER], teacher.encode_prompts([""])
    together = teacher.encode_prompts(texts)
    assert together.counted.sum(1).tolist() == [77, 2 * 77, 3 * 77]
    z, T = torch.randn(3, 4, 8, 8, generator=torch.Generator().manual_seed(0)), torch.tensor([900.0, 500.0, 20.0])
    for guided in (None, empty):
        outputs = teacher.network(teacher.unet, together, guided, torch.float32)(z, T)
        for i, text in enumerate(texts):
            alone = teacher.network(teacher.unet, teacher.encode_prompts([text]), guided, torch.float32)
            for out, own in zip(outputs, alone(z[i : i + 1], T[i : i + 1]), strict=True):
                assert (out[i] - own[0]).abs().max() < 1e-5
    cut = Prompts(together.embeddings[1:2, :77], together.pooled[1:2])
    short = teacher.network(teacher.unet, cut, None, torch.float32)(z[1:2], T[1:2])[0]
    assert (short[0] - teacher.network(teacher.unet, together, None, torch.float32)(z, T)[0][1]).abs().max() > 1e-4


def test_a_run_with_long_captions(run, latents_file, tmp_path):
    """The store gives what the text encoder makes; end points, steps, previews and a held-out loss work."""
    path = shutil.copy(latents_file, tmp_path / "long.safetensors")
    captions = ["a house", LONG, LONGER, "a boat"] * 5
    (tmp_path / "long.json").write_text(json.dumps(captions))
    sheets = {"every": 1, "reference_steps": 1, "teacher_steps": 1, "student_steps": [4]}
    trained = run(
        data={"path": str(path)}, teacher={"guidance": 2.0, "clip_skip": -2}, validation={"held_out": 2, "every": 1},
        optimizer={"steps": 1}, preview=sheets | {"prompts": [LONG, "a"]},
        cache={"prompts_memory_gb": 1e-6 * 900},
    )  # fmt: skip
    texts = ["a house", LONGER, LONG, ""]
    expected = trained.teacher.encode_prompts(texts).embeddings
    for _ in range(2):
        assert (trained.prompts.embed(texts).embeddings - expected).abs().max() < 1e-5
    assert trained.prompts.embed(["a house"]).embeddings.shape == (1, 77, 768)
    assert 0 < len(trained.prompts.memory) < 4
    trained.train()
    assert all(torch.isfinite(torch.tensor(trained.losses)))
    used = trained.prompts.disk.execute("SELECT sum(length(row)) FROM prompts").fetchone()[0]
    assert trained.prompts.used == used
