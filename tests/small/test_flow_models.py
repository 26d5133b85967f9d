"""The flow model's table at toy length: its checkpoint of random weights by ComfyUI's loader, with deltas on it."""

import flow_files
import pytest
import torch

from small_model.quality import flow_models, sampling
from small_model.quality.cells import BASE, DELTA, FLOW, REFLOW, UNALIGNED, Cell, Guidance, Model
from small_model.quality.drawn_judge import DrawnJudge
from small_model.quality.table import Amounts, Table

PROMPTS = ["a small red house on a hill at dawn, snowy, on the left", "a boat in the sea at noon"]
DELTAS = [DELTA, UNALIGNED, REFLOW]


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    return flow_files.store(tmp_path_factory.mktemp("flow"))


@pytest.fixture(scope="module")
def models(comfyui, weights):
    return flow_models.FlowModels(comfyui, weights)


@pytest.fixture(scope="module")
def texts(comfyui, models):
    return models.texts()


@pytest.fixture
def sampled(comfyui, models, texts):
    """cell -> LATENT samples of one picture, at CFG 3 for the base and 1 for the others."""

    def sample(cell: Cell) -> torch.Tensor:
        told = models.noise(range(1)), texts(PROMPTS[:1]), texts([""]), Guidance(3.0, 1.0).of(cell.model)
        return sampling.sample(comfyui.nodes, models[cell.model], cell, *told, FLOW)

    return sample


def test_what_a_folder_has(comfyui, models, weights, tmp_path):
    assert (models.roots(), models.deltas()) == ([BASE], DELTAS)
    (tmp_path / "flow_teacher.safetensors").symlink_to(weights / "flow_teacher.safetensors")
    without = flow_models.FlowModels(comfyui, tmp_path)
    assert (without.roots(), without.deltas()) == ([BASE], [])
    with pytest.raises(FileNotFoundError, match=r"has no flow_autoencoder\.safetensors or \.pt"):
        without.file("autoencoder")


def test_captions_cut_short_give_what_clip_text_encode_gives(comfyui, models, texts):
    """All places after the 25th are alike, so that one of them, counted 53 times, stands for them."""
    import comfy.sd

    checkpoint = models.checkpoint(comfyui.base / "models" / "checkpoints" / "flow-as-users-have-it.safetensors")
    model, clip, _, _ = comfy.sd.load_checkpoint_guess_config(str(checkpoint))
    checkpoint.unlink()
    encode = comfyui.nodes["CLIPTextEncode"]().encode
    positive = [sampling.together([encode(clip, text)[0][0] for text in PROMPTS])]
    assert positive[0][0].shape == (2, 77, 4096)
    noise, cell = models.noise(range(2)), Cell(Model(BASE), "euler", 2)
    told = noise, positive, encode(clip, "")[0], 3.0, FLOW
    wanted = sampling.sample(comfyui.nodes, model, cell, *told)
    assert texts(PROMPTS)[0][0].shape == (2, 25, 4096)
    told = noise, texts(PROMPTS), texts([""]), 3.0, FLOW
    found = sampling.sample(comfyui.nodes, models[Model(BASE)], cell, *told)
    moved = float((wanted - sampling.sample(comfyui.nodes, model, cell, noise, *told[1:])).norm())
    assert float((found - wanted).norm()) < 1e-3 * float(wanted.norm())
    assert float((found - wanted).norm()) < 0.05 * moved  # uncounted, they give something else


@pytest.mark.parametrize(
    ("model", "sampler", "steps"),
    [(Model(BASE), sampler, 4) for sampler in FLOW.samplers]
    + [(Model(BASE, DELTA), "euler", 6), (Model(BASE, UNALIGNED), "euler beta", 4), (Model(BASE, REFLOW), "euler", 4)],
)
def test_calls_are_as_planned(sampled, model, sampler, steps):
    """`sample` counts them."""
    assert sampled(Cell(model, sampler, steps)).isfinite().all()


def test_the_deltas_are_on_the_model(sampled):
    """Alignment matters where the scheduler's steps are elsewhere; those of simple are on the windows."""
    off, on = (sampled(Cell(Model(BASE, delta), "euler beta", 4)) for delta in (UNALIGNED, DELTA))
    reflow, base = (sampled(Cell(Model(BASE, delta), "euler", 4)) for delta in (REFLOW, ""))
    alike = [sampled(Cell(Model(BASE, delta), "euler", 4)) for delta in (UNALIGNED, DELTA)]
    assert not torch.allclose(off, on, rtol=1e-3)
    assert not torch.allclose(reflow, base, rtol=1e-3)
    assert torch.allclose(*alike, atol=2e-3 * float(alike[0].abs().max()))


def test_a_row_of_the_table(comfyui, models, tmp_path):
    """Its pictures are decoded from latents as they were trained."""
    judge, guidance = DrawnJudge(models, tmp_path, reference_count=20), Guidance(3.0, 1.0)
    table = Table(comfyui.nodes, models, judge, tmp_path, Amounts(4, 4, 4), guidance, batch=2)
    cell = Cell(Model(BASE, DELTA), "euler", 4)
    assert table.fill(cell) == 4 * 4
    assert table.rows([cell])[-1]["model"] == "PeRFlow"
    latents = table.store(cell).read(4)["latents"].float()
    samples = table.sample(cell, range(4))
    assert latents.shape == (4, 16, 16, 16)
    assert torch.allclose(latents, 1.5305 * (samples - 0.0609), atol=2e-2)
