"""A run from nothing to the delta, and what lies on disk then."""

import json
import shutil

import pytest
import safetensors.torch
import torch
from accelerate.utils import is_wandb_available
from PIL import Image
from training_results import read, scalars, sheets_shown

from perflow_core.weights.lowrank import nearest_of_rank
from training.stopping import TrainingError


def test_from_nothing_to_the_delta(run):
    trained = run(
        optimizer={"steps": 24}, preview={"every": 12, "reference_steps": 8, "teacher_steps": 3}, save={"every": 12}
    )
    base = {key: weight.clone() for key, weight in trained.base.items()}
    path = trained.train()

    assert path.name == "perflow-000024.safetensors"
    delta, metadata = read(path)
    assert delta.keys() == base.keys()
    average = dict(zip(base, trained.ema.shadow_params, strict=True))
    for key, dW in delta.items():
        assert (dW - (average[key] - base[key])).abs().max() < 1e-7, key
    assert (metadata["prediction_type"], metadata["base_prediction"]) == ("ddim_eps", "noise")
    assert metadata["guidance"] == "cfg_sync"
    assert (metadata["windows"], metadata["architecture"], metadata["rank"]) == ("4", "SD1.5", "full")
    assert (metadata["steps"], metadata["samples"]) == ("24", "96")
    assert {file.name for file in path.parent.iterdir()} == {"perflow-000012.safetensors", path.name}

    assert sum(trained.losses[-8:]) < sum(trained.losses[:8])
    shown = scalars(trained.config.output)
    assert shown["loss"] == pytest.approx(trained.losses, rel=1e-5)
    by_window = [shown[f"loss by window/{w}"] for w in range(4)]
    assert all(len(losses) > 5 for losses in by_window)
    assert len(shown["paired error/4 steps"]) == 3
    assert sheets_shown(trained.config.output) == [0, 12, 24]
    sheets = sorted((path.parent.parent / "previews").iterdir())
    assert [sheet.name for sheet in sheets] == [f"step-{step:08}.png" for step in (0, 12, 24)]
    with Image.open(sheets[-1]) as sheet:
        assert sheet.size == (3 * 68 + 4, 16 + 64 + 16 + 4)

    states = path.parent.parent / "states"
    assert [state.name for state in states.iterdir()] == ["step-00000024"]
    # 2 rounds of 16 rows are kept at most: those that the last state needs.
    assert len(list((path.parent.parent / "endpoints").glob("*/round-*"))) <= 2


class Guided(torch.nn.Module):
    """A student that has learned a guidance completely."""

    def __init__(self, unet, empty, guidance: float):
        super().__init__()
        self.unet, self.empty, self.guidance = unet, empty, guidance

    def forward(self, z, T, encoder_hidden_states, return_dict):
        without = self.unet(z, T, encoder_hidden_states=self.empty.expand_as(encoder_hidden_states)).sample
        return (
            torch.lerp(without, self.unet(z, T, encoder_hidden_states=encoder_hidden_states).sample, self.guidance),
        )


@pytest.mark.parametrize("guidance", ["cfg_sync", 2.5])
def test_the_paired_error_is_that_to_what_is_learned(run, guidance):
    """In many steps a student that does what is learned has none; the first one, or one of another guidance, has."""
    steps = {"student_steps": [40], "reference_steps": 40, "teacher_steps": 1}
    trained = run(teacher={"guidance": guidance}, preview=steps)
    with torch.no_grad():
        for name, weight in trained.teacher.unet.named_parameters():
            if "attn2" in name:
                weight *= 5  # the small teacher hears little of its prompts
    empty = trained.prompts.embed([""]).embeddings

    def error(learned: float) -> float:
        return trained.preview.sheet(Guided(trained.teacher.unet, empty, learned))[1][40]

    right = 1.0 if guidance == "cfg_sync" else guidance
    errors = {learned: error(learned) for learned in (1.0, 2.5, 4.5)}
    assert errors.pop(right) < min(errors.values()) / 3


def test_an_untrained_student_is_its_teacher(run):
    trained = run(optimizer={"steps": 1, "learning_rate": 1e-12})
    delta, _ = read(trained.train())
    assert max(dW.abs().max() for dW in delta.values()) < 1e-7


def test_a_student_that_begins_with_a_delta(run, tmp_path):
    first = run(optimizer={"steps": 8}).train()
    begun = run(output=str(tmp_path / "further"), student={"delta": str(first)}, optimizer={"learning_rate": 1e-12})
    before, _ = read(first)
    after, _ = read(begun.train())
    assert max(dW.abs().max() for dW in before.values()) > 1e-4
    assert max((after[key] - dW).abs().max() for key, dW in before.items()) < 1e-6


def test_a_student_that_begins_with_a_few_directions_of_a_delta(run, tmp_path):
    first = run(optimizer={"steps": 8}).train()
    some = {"delta": str(first), "delta_rank": 3}
    begun = run(output=str(tmp_path / "further"), student=some, optimizer={"learning_rate": 1e-12})
    before, _ = read(first)
    after, _ = read(begun.train())
    for key, dW in before.items():
        expected = nearest_of_rank(dW, 3) if dW.ndim > 1 else dW
        assert (after[key] - expected).abs().max() < 1e-6
    assert max((after[key] - dW).abs().max() for key, dW in before.items()) > 1e-4


def test_low_rank_of_a_full_student(run):
    delta, metadata = read(run(save={"rank": 4}).train())
    assert metadata["rank"] == "4"
    assert delta["lora_unet_mid_block_resnets_0_conv1.lora_down.weight"].shape == (4, 64, 3, 3)
    assert delta["lora_unet_conv_out.diff"].shape == (4, 32, 3, 3)  # in two factors it would be larger
    assert "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn2_to_k.lora_up.weight" in delta


def test_the_delta_is_what_was_written(run):
    """Other [save] after the end, and another training in the same folder: new files, and no old one is named."""
    whole = run(optimizer={"steps": 2}).train()
    before = whole.read_bytes()
    low = run(optimizer={"steps": 2}, save={"rank": 4}).train()
    half = run(optimizer={"steps": 2}, save={"rank": 4, "precision": "float16"}).train()
    assert [path.stem for path in (whole, low, half)] == ["perflow-000002", "perflow-000002-2", "perflow-000002-3"]
    assert read(low)[1]["rank"] == read(half)[1]["rank"] == "4"
    assert {dW.dtype for key, dW in read(half)[0].items() if "lora_up" in key} == {torch.float16}

    assert run(optimizer={"steps": 2}).train() == whole
    assert run(optimizer={"steps": 2}, save={"rank": 4}).train() == low
    shutil.rmtree(whole.parent.parent / "states")
    again = run(seed=1, optimizer={"steps": 2})
    path = again.train()
    assert path.stem == "perflow-000002-4"
    average = dict(zip(again.base, again.ema.shadow_params, strict=True))
    assert all(torch.equal(dW, average[key] - again.base[key]) for key, dW in read(path)[0].items())
    assert whole.read_bytes() == before


def test_the_last_deltas_and_states_are_kept(run):
    """Of this run, also over a continuation; another run's stay, as does a file that is none."""
    few = {"every": 1, "keep_deltas": 2, "keep_states": 2}
    other = run(seed=1, optimizer={"steps": 1}).train()
    (other.parent / "perflow-notes.safetensors").write_text("mine")
    shutil.rmtree(other.parent.parent / "states")
    run(optimizer={"steps": 2}, save=few).train()
    path = run(optimizer={"steps": 3}, save=few).train()
    names = {file.stem for file in path.parent.iterdir()}
    assert names == {other.stem, "perflow-notes", "perflow-000002", path.stem}
    assert path.stem == "perflow-000003"
    states = path.parent.parent / "states"
    assert {state.name for state in states.iterdir()} == {"step-00000002", "step-00000003"}
    shutil.rmtree(states / "step-00000003")
    assert run(optimizer={"steps": 3}, save=few).step == 2


def test_lora_student(run):
    trained = run(student={"method": "lora", "rank": 4}, optimizer={"steps": 8})
    teacher = trained.teacher
    frozen = {name: weight for name, weight in trained.unet.named_parameters() if not weight.requires_grad}
    base = {name: weight.clone() for name, weight in frozen.items()}
    X, i = torch.randn(2, 4, 8, 8), torch.tensor([500, 20])
    prompts, empty = trained.prompts.embed(["a house", "a boat"]), trained.prompts.embed([""])
    eps = teacher.derivative(trained.segments.reflow.trajectory, prompts, empty, 1.0)
    before = eps(X, i)
    delta, metadata = read(trained.train())

    assert metadata["rank"] == "4"
    assert all(key.endswith((".lora_up.weight", ".lora_down.weight", ".alpha")) for key in delta)
    module = "mid_block_attentions_0_transformer_blocks_0_attn2_to_k"
    assert delta[f"lora_unet_{module}.lora_up.weight"].abs().max() > 0
    names = [name for name, weight in trained.unet.named_parameters() if weight.requires_grad]
    average = dict(zip(names, trained.ema.shadow_params, strict=True))
    key = "mid_block.attentions.0.transformer_blocks.0.attn2.to_k.lora_B.default.weight"
    assert torch.equal(delta[f"lora_unet_{module}.lora_up.weight"], average[key])
    assert all(torch.equal(weight, base[name]) for name, weight in frozen.items())
    assert torch.equal(eps(X, i), before)  # the teacher has not learned
    state = next((trained.segments.folder.parent / "states").iterdir()) / "model.safetensors"
    assert len(safetensors.torch.load_file(state)) == 2 * len([key for key in delta if key.endswith(".alpha")])


def test_cached_segments_are_the_teachers(run):
    """What the student is shown lies on the segment from the noised data to where the teacher's trajectory ends."""
    trained = run(data={"prompt_dropout": 0.5}, cache={"precision": "float32"})
    cache, reflow = trained.segments, trained.segments.reflow
    rows = [batch for step in range(cache.rounds.steps) for batch in cache.batches(step)]
    assert len(rows) == cache.rounds.steps == 8
    for use in (rows[:4], rows[4:]):  # every row once a use, with other timesteps
        x0 = torch.cat([batch.segment.x0 for batch in use])
        assert len({tuple(row.flatten().tolist()) for row in x0}) == 16
    assert {T.item() for batch in rows for T in batch.T} <= set(reflow.points.T.flatten().tolist())
    texts = [text for batch in rows for text in batch.prompts]
    assert 0 < texts.count("") < len(texts)

    segment, prompts = rows[0].segment, trained.prompts.embed(rows[0].prompts)
    edge = (reflow.chord.s / reflow.chord.c).float()
    X_s, X_e = (segment.x0 + edge[segment.w + end][:, None, None, None] * segment.eps for end in (0, 1))
    eps = trained.teacher.derivative(reflow.trajectory, prompts, trained.prompts.embed([""]), 1.0)
    assert (reflow.trajectory(eps, X_s, segment.w) - X_e).abs().max() < 1e-4


def test_prompts_in_memory_are_those_on_disk(run, tmp_path):
    on_disk = run().prompts
    room = 3.5 * 4 * on_disk.row / 1e9
    in_memory = run(output=str(tmp_path / "another"), cache={"prompts_memory_gb": room}).prompts
    asked = [["a house", "a boat"], ["a boat", "a tree", "a castle", "a boat"], ["a castle", "a house"], [""]]
    for texts in asked:
        assert torch.equal(in_memory.embed(texts).embeddings, on_disk.embed(texts).embeddings)
    assert list(in_memory.memory) == ["a house", "a boat", "a tree"]
    in_memory.disk.close()
    assert in_memory.embed(["a tree", "a house"]).embeddings.shape == (2, *in_memory.shape)  # not read


@pytest.mark.parametrize(("precision", "kept_in"), [("no", torch.float32), ("bf16", torch.float16)])
def test_prompts_are_kept_in_the_precision_of_the_run(run, precision, kept_in):
    trained = run(optimizer={"precision": precision})
    texts = ["a house", "a boat"]
    own, kept = trained.teacher.encode_prompts(texts).embeddings.float(), trained.prompts.embed(texts).embeddings
    assert torch.equal(kept, own.to(kept_in).float())
    assert not torch.equal(own.to(torch.float16).float(), own) or precision == "bf16"


def test_the_oldest_prompts_make_room_on_disk(run, tmp_path, monkeypatch):
    from training import prompts as module

    monkeypatch.setattr(module, "BATCH", 1)
    trained = run()
    store = module.PromptStore(trained.teacher, tmp_path / "prompts", max_gb=2.5 * 4 * trained.prompts.row / 1e9)
    encoded, encode = [], trained.teacher.encode_prompts
    monkeypatch.setattr(trained.teacher, "encode_prompts", lambda texts: encoded.extend(texts) or encode(texts))
    first = store.embed(["a house"]).embeddings
    for texts in (["a boat", "a house"], ["a tree"], ["a tree", "a boat"], ["a house"]):
        again = store.embed(texts).embeddings[-1:]
    assert encoded == ["a house", "a boat", "a tree", "a house"]
    assert torch.equal(again, first)
    store.disk.close()
    reopened = module.PromptStore(trained.teacher, tmp_path / "prompts", max_gb=1.0)
    encoded.clear()
    assert torch.equal(reopened.embed(["a tree", "a house"]).embeddings[1:], first)
    assert encoded == []


def test_fixed_guidance(run):
    """The teacher is guided and never sees the dropped prompts; the student does."""
    trained = run(teacher={"guidance": 5.0}, data={"prompt_dropout": 1.0}, cache={"precision": "float32"})
    (batch,) = trained.segments.batches(0)
    assert set(batch.prompts) == {""}
    files = sorted(trained.segments.folder.glob("*/*/*.safetensors"))
    assert json.loads(read(files[0])[1]["prompts"]) == [""] * 8
    plain = run(output=trained.config.output + "2", data={"prompt_dropout": 1.0}, cache={"precision": "float32"})
    (other,) = plain.segments.batches(0)
    assert torch.equal(other.segment.w, batch.segment.w)
    assert (other.segment.eps - batch.segment.eps).abs().max() > 1e-3


def test_no_tracker(run, tmp_path):
    run(tracking={"trackers": []}, optimizer={"steps": 1}).train()
    assert not (tmp_path / "run" / "tensorboard").exists()


@pytest.mark.skipif(is_wandb_available(), reason="wandb is installed")
def test_wandb_that_is_not_installed(run, tmp_path):
    with pytest.raises(TrainingError, match=r'tracking\.trackers has "wandb", which is not installed'):
        run(tracking={"trackers": ["wandb"]})
    assert not (tmp_path / "run").exists()


@pytest.mark.skipif(not is_wandb_available(), reason="wandb is not installed")
def test_wandb(run, tmp_path, monkeypatch):
    """Losses and a sheet, and a continuation in the same run; without its server."""
    monkeypatch.setenv("WANDB_MODE", "offline")
    few = {"every": 1, "reference_steps": 2, "teacher_steps": 2}
    for steps in (1, 2):
        run(tracking={"trackers": ["wandb"]}, optimizer={"steps": steps}, preview=few).train()
    folders = sorted((tmp_path / "run" / "wandb").glob("offline-run-*"))
    assert len({folder.name.rpartition("-")[2] for folder in folders}) == 1
    sheets = [path.name.split("_")[1] for folder in folders for path in folder.rglob("preview_*.png")]
    assert sorted(sheets) == ["0", "1", "2"]
