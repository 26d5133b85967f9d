"""The table at toy length: a narrow UNet of random weights inside ComfyUI, stopped and gone on with."""

from itertools import islice

import pytest
import torch
from environment import UserError

from small_model.networks import storage
from small_model.networks.autoencoder import Decoder, Encoder
from small_model.quality import narrow_models, sampling
from small_model.quality.cells import BASE, DELTA, LORA, SD15, Cell, Guidance, Model
from small_model.quality.drawn_judge import DrawnJudge
from small_model.quality.table import Amounts, Table

PERFLOW = Model(BASE, DELTA)
CELLS = [Cell(Model(BASE), "euler", 4), Cell(PERFLOW, "euler", 4)]


@pytest.fixture(scope="module")
def weights(comfyui, tmp_path_factory):
    """A folder of narrow weights as small_model/weights is one, random."""
    import comfy.supported_models
    import comfy.utils

    folder = tmp_path_factory.mktemp("weights")
    config = comfy.supported_models.SD15(narrow_models.CONFIG)
    config.set_inference_dtype(torch.float32, None)
    theirs = {ours: name for name, ours in comfy.utils.unet_to_diffusers(config.unet_config).items()}
    torch.manual_seed(0)
    teacher = {}
    for name, weight in config.get_model({}, "").diffusion_model.state_dict().items():
        size = weight[0].numel() ** -0.5
        teacher[theirs[name]] = size * torch.randn(weight.shape) if weight.ndim > 1 else weight.fill_(name[-1] == "t")
    storage.write(teacher, folder / "teacher.safetensors", 16)
    delta = {name: 0.1 * weight.std(correction=0) * torch.randn(weight.shape) for name, weight in teacher.items()}
    storage.write(delta, folder / "delta.safetensors", 8, {"prediction_type": "ddim_eps", "windows": "4"})
    lora = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_q.lora_{}.weight"
    pair = {lora.format("up"): 0.1 * torch.randn(128, 4), lora.format("down"): torch.randn(4, 128)}
    storage.write(pair, folder / "style-lora.safetensors", 16)
    pair = {"encoder": Encoder(), "decoder": Decoder()}
    both = {f"{part}.{name}": t for part, module in pair.items() for name, t in module.state_dict().items()}
    storage.write(both, folder / "autoencoder.safetensors", 16)
    return folder


@pytest.fixture(scope="module")
def models(comfyui, weights):
    return narrow_models.NarrowModels(comfyui, weights)


@pytest.fixture
def table(comfyui, models, tmp_path):
    """Its batches have two pictures."""

    def make(pictures: int, cfg: float = 3.0) -> Table:
        judge, guidance = DrawnJudge(models, tmp_path, reference_count=20), Guidance(cfg, perflow=1.0)
        return Table(comfyui.nodes, models, judge, tmp_path, Amounts(pictures, pictures, pictures), guidance, batch=2)

    return make


def test_stopped_and_gone_on_with_it_gives_the_same_rows(table):
    whole, stopped = table(4), table(4, cfg=3.0)
    for cell in CELLS:
        whole.fill(cell)
    rows = whole.rows(CELLS)
    assert [row["model"] for row in rows][-2:] == ["base", "PeRFlow"]
    for file in islice(whole.store(CELLS[1]).folder.iterdir(), 1):
        file.unlink()
    assert list(stopped.known(CELLS)) == CELLS[:1]
    assert stopped.left(CELLS) == 4 * 2
    assert [stopped.fill(cell) for cell in CELLS] == [0, 8]
    assert stopped.rows(CELLS) == rows


def test_more_pictures_and_another_guidance_are_still_to_do(table):
    table(4).fill(CELLS[0])
    assert table(6).left(CELLS[:1]) == 2 * 4 * 2  # guidance takes two passes a call
    assert table(4, cfg=2.0).left(CELLS[:1]) == 4 * 4 * 2


def test_a_row_has_numbers_and_errors(table):
    work = table(4)
    work.fill(CELLS[0])
    *_, row = work.rows(CELLS[:1])
    numbers = {name: row[name] for name in row if name.removesuffix("_error") in ("frechet", "attributes")}
    assert all(isinstance(value, float) and value >= 0 for value in numbers.values())
    assert len(numbers) == 4
    assert (row["steps"], row["calls"], row["paired"], row["pictures"]) == (4, 4, None, 4)


@pytest.mark.parametrize(
    ("model", "sampler", "steps"),
    [(Model(BASE), sampler, steps) for sampler in SD15.samplers for steps in (4, 8)]
    + [(PERFLOW, "euler", 2), (PERFLOW, "euler", 6), (PERFLOW, "heun", 4), (PERFLOW, "ab2", 6)],
)
def test_calls_are_as_planned(table, model, sampler, steps):
    """`sample` counts them."""
    assert table(1).sample(Cell(model, sampler, steps), range(1)).isfinite().all()


def test_the_lora_and_the_delta_are_on_their_models(table):
    models = (Model(BASE), PERFLOW, Model(LORA), Model(LORA, DELTA), Model(BASE, DELTA, 16))
    samples = [table(1).sample(Cell(model, "euler", 4), range(1)) for model in models]
    for i, one in enumerate(samples):
        assert all(not torch.allclose(one, other) for other in samples[i + 1 :])


def test_a_lora_for_another_model_is_refused(comfyui, weights, tmp_path):
    for file in weights.iterdir():
        (tmp_path / file.name).symlink_to(file)
    (tmp_path / "style-lora.safetensors").unlink()
    storage.write({"lora_unet_other.lora_up.weight": torch.ones(2, 2)}, tmp_path / "style-lora.safetensors", 16)
    with pytest.raises(UserError, match=r"style-lora-.*\.safetensors has 1 pairs .* Load LoRA used 0"):
        narrow_models.NarrowModels(comfyui, tmp_path)[Model(LORA)]


def test_a_picture_is_the_same_in_every_batch(table):
    """Its noise and prompt are by its number."""
    alone, among = (table(1).sample(CELLS[1], numbers) for numbers in (range(3, 4), range(2, 5)))
    assert torch.allclose(alone[0], among[1], atol=1e-3 * float(among.abs().max()))


def test_bfloat16_is_close_and_kept_apart(comfyui, models, weights, tmp_path):
    rounded = narrow_models.NarrowModels(comfyui, weights, torch.bfloat16)
    model, texts, noise = Model(BASE, DELTA), sampling.Texts(), sampling.noise_of(range(1))
    told = Cell(model, "euler", 4), noise, texts(["a house"]), texts([""]), 1.0
    one, other = (sampling.sample(comfyui.nodes, of[model], *told) for of in (models, rounded))
    assert 1e-4 < float((one - other).norm() / one.norm()) < 0.05
    assert rounded.digest(model) != models.digest(model)
    exact_judge, judge = DrawnJudge(models, tmp_path), DrawnJudge(rounded, tmp_path)
    assert 0 < float((exact_judge.decode(one) - judge.decode(one)).abs().mean()) < 1 / 255
    assert exact_judge.digest != judge.digest


def test_captions_as_conditionings_are_those_of_the_text_model(comfyui):
    """Its layers add nothing, so that words and positions, normed, are all of it; padded as ComfyUI pads."""
    tokens = sampling.Texts().tokens(["a red house", ""])
    assert tokens[0][:5] == [49406, 320, 736, 1212, 49407]
    assert tokens[1] == [49406] + [49407] * 76


def test_weights_of_another_layout_are_refused(comfyui):
    with pytest.raises(UserError, match="The narrow UNet has 1 tensors"):
        narrow_models.model_of({"conv_in.weight": torch.zeros(64, 4, 3, 3)})
