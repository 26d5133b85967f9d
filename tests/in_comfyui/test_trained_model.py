"""The narrow model of small_model, widened: it computes the same, and the stock loaders take it for SD1.5.

Its weights are random here: what is tested does not hang on how good the training was.
"""

import pytest
import torch

from small_model.networks import autoencoder, storage, text_model, widen


@pytest.fixture(autouse=True)
def _without_gradients():
    with torch.no_grad():
        yield


def relative(found: torch.Tensor, wanted: torch.Tensor) -> float:
    return float((found - wanted).norm() / wanted.norm())


@pytest.fixture(scope="module")
def stored(comfyui, tmp_path_factory):
    """The folder of the narrow files."""
    import narrow_model

    return narrow_model.store(tmp_path_factory.mktemp("weights"))


@pytest.fixture(scope="module")
def files(comfyui, stored):
    """The checkpoint and the delta for ComfyUI."""
    from trial.small_models.trained import make_trained_checkpoint, make_trained_delta

    models = comfyui.base / "models"
    yield (
        make_trained_checkpoint(models / "checkpoints" / "narrow.safetensors", stored),
        make_trained_delta(models / "perflow" / "narrow-delta.safetensors", stored),
    )
    for file in models.rglob("narrow*.safetensors"):  # 0.7 GB
        file.unlink()


@pytest.fixture(scope="module")
def loaded(files):
    """MODEL, CLIP, VAE by the stock loader."""
    import comfy.sd

    return comfy.sd.load_checkpoint_guess_config(str(files[0]))[:3]


@pytest.fixture(scope="module")
def autoencoder_stored(stored):
    """The narrow encoder and decoder."""
    tensors, _ = storage.read(stored / "autoencoder.safetensors")
    both = torch.nn.ModuleDict({"encoder": autoencoder.Encoder(), "decoder": autoencoder.Decoder()})
    both.load_state_dict(tensors)
    return both.requires_grad_(False)


def test_the_wide_unet_computes_the_same(comfyui, stored):
    import narrow_model

    tensors, _ = storage.read(stored / "teacher.safetensors")
    narrow = narrow_model.unet(narrow_model.NARROW, tensors)
    wide = narrow_model.unet(
        narrow_model.SD15_DRAWN, {name: widen.widened(name, tensor) for name, tensor in tensors.items()}
    )
    assert sum(parameter.numel() for parameter in wide.parameters()) > 20 * sum(p.numel() for p in narrow.parameters())
    random = torch.Generator().manual_seed(1)
    x, context = torch.randn(2, 4, 8, 8, generator=random), torch.randn(2, 77, 768, generator=random)
    t = torch.tensor([999.0, 3.0])
    wanted = narrow(x, t, context)
    assert relative(wide(x, t, context), wanted) < 1e-5
    assert relative(narrow(x, t.flip(0), context), wanted) > 1e-2  # the time and the text are seen
    assert relative(narrow(x, t, context.flip(0)), wanted) > 1e-2


def test_the_wide_autoencoder_computes_the_same(comfyui, autoencoder_stored):
    import comfy.taesd.taesd

    wide = comfy.taesd.taesd.TAESD()
    wide.taesd_encoder.load_state_dict(autoencoder.widen(autoencoder_stored["encoder"]))
    wide.taesd_decoder.load_state_dict(autoencoder.widen(autoencoder_stored["decoder"]))
    wide.requires_grad_(False)
    random = torch.Generator().manual_seed(2)
    x, z = torch.rand(2, 3, 64, 64, generator=random), torch.randn(2, 4, 8, 8, generator=random)
    assert relative(wide.encode(2 * x - 1), autoencoder_stored["encoder"](x)) < 1e-5
    assert relative(wide.decode(z), 2 * autoencoder_stored["decoder"](z) - 1) < 1e-5


def test_the_checkpoint_is_sd15_for_the_stock_loader(loaded):
    import comfy.supported_models
    import comfy.taesd.taesd

    model, _, vae = loaded
    assert isinstance(model.model.model_config, comfy.supported_models.SD15)
    assert isinstance(vae.first_stage_model, comfy.taesd.taesd.TAESD)
    assert model.get_model_object("model_sampling").sigma_max == pytest.approx(14.6146, abs=1e-3)


def test_its_vae_gives_and_takes_latents_in_comfyuis_scale(loaded, autoencoder_stored):
    """What the sampler sees are the latents as they were trained: ComfyUI's scaling of SD1.5 is in the VAE."""
    model, _, vae = loaded
    random = torch.Generator().manual_seed(3)
    x = torch.rand(1, 64, 64, 3, generator=random)
    z = autoencoder_stored["encoder"](x.movedim(-1, 1))
    seen = model.model.process_latent_in(vae.encode(x))
    assert relative(seen, z) < 3e-3  # float16
    picture = autoencoder_stored["decoder"](z).movedim(1, -1)
    assert relative(vae.decode(model.model.process_latent_out(z)), picture.clamp(0, 1)) < 3e-3


@pytest.mark.parametrize("caption", ["a lighthouse on a cliff at sunset, cloudy, on the left", ""])
def test_its_text_model_gives_the_features_of_training(loaded, caption):
    clip = loaded[1]
    tokens = clip.tokenize(caption)
    ids = torch.tensor([[int(token) for token, *_ in tokens["l"][0]]])
    words, positions = (tensor.half().float() for tensor in text_model.embeddings())  # as they are in the file
    found = clip.encode_from_tokens(tokens)
    torch.testing.assert_close(found, text_model.features(ids, words, positions), atol=1e-5, rtol=0)
    assert relative(found, text_model.features(ids, *text_model.embeddings())) < 1e-3


def test_places_after_the_first_are_alike(loaded):
    """Training counts them as one place, which is exact where what fills them is one token."""
    features = loaded[1].encode_from_tokens(loaded[1].tokenize("a small white castle in the mountains at night, snowy"))
    assert torch.equal(
        features[:, text_model.PLACES - 1 :],
        features[:, -1:].expand(-1, text_model.POSITIONS - text_model.PLACES + 1, -1),
    )
    assert not torch.equal(features[:, text_model.PLACES - 2], features[:, -1])


def test_base_and_delta_are_the_stored_student(loaded, files, stored, run):
    """Apply PeRFlow Delta on the loaded model gives the UNet that widening the narrow student gives."""
    import narrow_model

    model = run("PeRFlowApplyDelta", model=loaded[0], delta_name=files[1].name, strength=1.0, prediction_type="auto",
                windows=0, align_steps=True)[0]  # fmt: skip
    assert len(model.get_model_object("model_sampling").chord.t) == 4 + 1  # as the file says
    teacher, delta = (storage.read(stored / f"{name}.safetensors")[0] for name in ("teacher", "delta"))
    narrow = narrow_model.unet(narrow_model.NARROW, {name: tensor + delta[name] for name, tensor in teacher.items()})
    random = torch.Generator().manual_seed(4)
    x, context = torch.randn(1, 4, 8, 8, generator=random), torch.randn(1, 77, 768, generator=random)
    t = torch.tensor([750.0])
    import comfy.model_management

    comfy.model_management.load_models_gpu([model])
    wanted = narrow(x, t, context)
    found = model.model.diffusion_model(x, t, context)
    model.detach()
    base = narrow_model.unet(narrow_model.NARROW, teacher)(x, t, context)
    assert relative(found.float(), wanted) < 0.02 * relative(base, wanted)
