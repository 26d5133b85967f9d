"""The loss on what is held out."""

import json

import pytest
import safetensors.torch
import torch
from training_results import scalars

from training.stopping import TrainingError


@pytest.fixture
def drawings(tmp_path):
    """Latents whose captions are their numbers."""
    path = tmp_path / "numbered.safetensors"
    latents = torch.randn(9, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    safetensors.torch.save_file({"latents": latents}, path)
    path.with_suffix(".json").write_text(json.dumps([str(i) for i in range(9)]))
    return latents, {"kind": "latents", "path": str(path), "prompt_dropout": 0.0}


def test_what_is_held_out_is_not_trained_on(run, drawings):
    latents, data = drawings
    trained = run(data=data, validation={"held_out": 3})
    ((x0, held),) = trained.source.held
    shown = {text for rows in trained.segments.batches(0) for text in rows.prompts} | set(trained.segments.texts)
    assert len(held) == 3
    assert shown == {str(i) for i in range(9)} - set(held)
    assert torch.equal(x0, latents[[int(text) for text in held]])
    with pytest.raises(TrainingError, match=r'validation\.held_out is 2 with data\.kind "webdataset"'):
        run(data={"kind": "webdataset", "path": "none.tar"}, validation={"held_out": 2})
    with pytest.raises(TrainingError, match=r"validation\.held_out is 9 of 9 examples, expected fewer"):
        run(data=data, validation={"held_out": 9})


def test_the_loss_is_of_every_window_and_the_same_each_time(run, drawings, tmp_path):
    """Whatever the batches are, and in the trackers."""
    _, data = drawings
    tried = run(data=data, validation={"held_out": 3})
    losses = tried.validation.losses(tried.unet)
    assert losses.rows.tolist() == [3, 3, 3, 3]
    other = run(
        output=str(tmp_path / "other"), data=data, validation={"held_out": 3, "every": 1},
        cache={"teacher_batch": 5}, optimizer={"batch_size": 7, "steps": 2, "learning_rate": 1e-12},
    )  # fmt: skip
    assert other.validation.losses(other.unet).mean == pytest.approx(losses.mean, rel=1e-4)
    other.train()
    shown = scalars(other.config.output)
    assert shown["validation loss"] == pytest.approx([losses.mean] * 2, rel=1e-4)
    assert shown["validation loss by window/2"] == pytest.approx([losses.by_window[2]] * 2, rel=1e-4)


def test_a_student_that_does_what_is_learned_has_none(run, drawings):
    """It sees each row's latent at its timestep, with its own prompt."""
    _, data = drawings
    tried = run(data=data, validation={"held_out": 3}, optimizer={"batch_size": 4})
    rows = iter(tried.validation._batches(4))
    reflow = tried.validation.reflow

    class Perfect(torch.nn.Module):
        def forward(self, z, T, encoder_hidden_states, return_dict):
            from perflow_core.training.reflow import training_target

            batch = next(rows)
            target = training_target(reflow.prediction_type, reflow.chord, batch.segment, batch.T.float())
            assert torch.equal(z, target.z)
            assert torch.equal(encoder_hidden_states, tried.prompts.embed(batch.prompts).embeddings)
            return (target.m,)

    assert tried.validation.losses(Perfect()).mean == 0
