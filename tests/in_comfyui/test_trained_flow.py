"""The small flow model as an SD3.5 checkpoint: the stock loaders take it, and it computes what was trained.

Its weights are random here: what is tested does not hang on how good the training was.
"""

import flow_files
import pytest
import torch
from environment import UserError
from torch.nn.functional import pad

from small_model.networks import flow_transformer, storage, text_model
from small_model.trainers.train_autoencoder import first_weights

PROMPTS = ["a red house on a hill at dawn", "a boat"]


def relative(found: torch.Tensor, wanted: torch.Tensor) -> float:
    return float((found - wanted).norm() / wanted.norm())


@pytest.fixture(scope="module")
def trained():
    """Transformer, encoder and decoder, with weights that fp16 holds."""
    torch.manual_seed(0)
    networks = flow_transformer.flow_transformer(), *first_weights(from_stored=True, channels=16)
    for network in networks:
        for weight in network.parameters():
            weight.data = (weight.data + 0.01 * torch.randn_like(weight)).half().float()
    return [network.eval().requires_grad_(False) for network in networks]


@pytest.fixture(scope="module")
def stored(trained, tmp_path_factory):
    """A folder as small_model/weights is one; 16 bits hold these weights as they are."""
    folder = tmp_path_factory.mktemp("stored")
    transformer, encoder, decoder = trained
    parts = torch.nn.ModuleDict({"encoder": encoder, "decoder": decoder})
    storage.write(transformer.state_dict(), folder / "flow_teacher.safetensors", 16)
    storage.write(parts.state_dict(), folder / "flow_autoencoder.safetensors", 16)
    return folder


@pytest.fixture(scope="module")
def loaded(comfyui, stored):
    """MODEL, CLIP, VAE by the stock loader."""
    import comfy.sd
    from trial.small_models.trained import make_flow_checkpoint

    file = comfyui.base / "models" / "checkpoints" / "narrow-flow.safetensors"
    yield comfy.sd.load_checkpoint_guess_config(str(make_flow_checkpoint(file, stored)))[:3]
    file.unlink()


@pytest.fixture
def tokens(comfyui_path):
    from transformers import CLIPTokenizer

    tokenizer = CLIPTokenizer.from_pretrained(comfyui_path / "comfy" / "sd1_tokenizer")
    return torch.tensor(tokenizer(PROMPTS, padding="max_length", max_length=77).input_ids)


def test_it_is_sd35(loaded):
    model = loaded[0]
    assert type(model.model.model_config).__name__ == "SD3"
    assert model.get_model_object("model_sampling").shift == 3
    assert model.model.diffusion_model.joint_blocks[0].x_block.attn.ln_q.weight.shape == (64,)


def test_captions_are_encoded_as_in_the_training(loaded, tokens):
    words, positions = text_model.embeddings()
    for row, prompt in zip(tokens, PROMPTS, strict=True):
        found, pooled = loaded[1].encode_from_tokens(loaded[1].tokenize(prompt), return_pooled=True)
        assert relative(found[0, :, :768], words[row] + positions) < 1e-3
        assert not found[..., 768:].any()
        assert relative(pooled[:, :768], text_model.pooled(row[None], words, positions)) < 1e-3


def test_the_transformer_computes_the_same(loaded, trained, tokens):
    """The last place of a caption stands for all that fill it up."""
    words, positions = text_model.embeddings()
    random = torch.Generator().manual_seed(1)
    x, sigma = torch.randn(2, 16, 16, 16, generator=random), torch.tensor([0.9, 0.2])
    context = words[tokens] + positions
    ends = text_model.pooled(tokens, words, positions)
    places = slice(None, text_model.PLACES)
    with torch.no_grad():
        wanted = trained[0](x, context[:, places], ends, 1000 * sigma, return_dict=False)[0]
        given = {"c_crossattn": pad(context, (0, 4096 - 768)), "y": pad(ends, (0, 2048 - 768))}
        found = x - loaded[0].model.apply_model(x, sigma, **given)  # sigma v
    assert relative(found / sigma.view(-1, 1, 1, 1), wanted) < 1e-3


def test_the_autoencoder_computes_the_same(loaded, trained):
    _, encoder, decoder = trained
    pixels = torch.rand(1, 64, 64, 3, generator=torch.Generator().manual_seed(2))
    latent_format, vae = loaded[0].model.latent_format, loaded[2]
    with torch.no_grad():
        z = encoder(pixels.movedim(-1, 1))
        assert relative(latent_format.process_in(vae.encode(pixels)), z) < 2e-2
        assert relative(vae.decode(latent_format.process_out(z)).movedim(-1, 1), decoder(z).clamp(0, 1)) < 2e-2


def test_its_delta_is_what_was_trained(comfyui, loaded, tmp_path, run):
    """Of the pairs as stored, without alphas: up down is added, and the windows are the file's."""
    from trial.small_models.trained import make_flow_delta

    said, pairs = flow_files.metadata("flow_delta"), flow_files.low_rank()
    without = {name: tensor for name, tensor in pairs.items() if not name.endswith(".alpha")}
    storage.write(without, tmp_path / "flow_delta.safetensors", 8, said)
    file = make_flow_delta(comfyui.base / "models" / "perflow" / "narrow-flow-delta.safetensors", tmp_path)
    model = run("PeRFlowApplyDelta", model=loaded[0], delta_name=file.name, strength=1.0, prediction_type="auto",
                windows=0, align_steps=True)[0]  # fmt: skip
    file.unlink()
    layer = "diffusion_model.joint_blocks.0.x_block.attn.qkv"
    import comfy.lora

    (weight, _), *patches = model.get_key_patches()[f"{layer}.weight"]
    before = weight.detach().float()
    added = comfy.lora.calculate_weight(patches, before.clone(), f"{layer}.weight") - before
    change = pairs[f"{layer}.lora_up.weight"] @ pairs[f"{layer}.lora_down.weight"]
    assert relative(added, change) < 2e-2
    assert model.get_attachment("perflow_edges") == pytest.approx([1, 0.9, 0.75, 0.5, 0])


def test_a_model_that_is_not_stored_yet_is_told(tmp_path):
    from trial.small_models.trained import make_flow_checkpoint

    with pytest.raises(UserError, match=r"There is no .*flow_teacher\.safetensors: train the flow model"):
        make_flow_checkpoint(tmp_path / "checkpoint.safetensors", tmp_path)
