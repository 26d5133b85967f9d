"""What works with stock flow models works with InstaFlow: images, masks, ControlNet, added weights, LoRAs."""

import pytest
import torch

TOLERANCE = 5e-6


@pytest.fixture(scope="module", autouse=True)
def quick():
    from threads import one_thread

    with one_thread():
        yield


@pytest.fixture(scope="module")
def reference(golden):
    return golden("instaflow")


@pytest.fixture
def instaflow(run):
    def make(model, family="rectified_flow", align_steps=True):
        return run("InstaFlowModelSampling", model=model, family=family, align_steps=align_steps)[0]

    return make


def random(*shape, seed=3):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.fixture
def picture():
    """Sampling a real UNet from fixed noise; returns the latent."""
    import comfy.sample
    import comfy.samplers
    from analytic_model import conditioning

    def sample(model, steps=1, cfg=1.0, positive=None, negative=None):
        noise = random(1, 4, 8, 8)
        positive, negative = positive or conditioning(0.1), negative or conditioning(0.2)
        sigmas = comfy.samplers.calculate_sigmas(model.get_model_object("model_sampling"), "simple", steps)
        euler = comfy.samplers.sampler_object("euler")
        latent = torch.zeros_like(noise)
        return comfy.sample.sample_custom(
            model, noise, cfg, euler, sigmas, positive, negative, latent, disable_pbar=True
        )

    return sample


class TestImages:
    @pytest.fixture
    def model(self, comfyui, reference, instaflow):
        from family_models import laid_out_model

        return instaflow(laid_out_model(reference))

    @pytest.mark.parametrize("cfg", [1.0, 1.5])
    @pytest.mark.parametrize("batch", [1, 3])
    @pytest.mark.parametrize("first", [0.25, 0.6, 1.0])
    def test_image_to_image(self, core, model, reference, first, batch, cfg):
        """From t noise + (1 - t) image, in float64 by the core alone."""
        from analytic_function import guided
        from analytic_model import relative_error, sample

        noise, image = random(batch, 4, 8, 8), random(batch, 4, 8, 8, seed=4)
        sigmas = torch.linspace(first, 0, 4, dtype=torch.float64)

        def unet(x, sigma):
            return x + sigmas_of(sigma, x) * guided(reference, x, sigmas_of(1000 * sigma, x), cfg)

        def sigmas_of(sigma, x):
            return sigma.reshape(-1, *[1] * (x.ndim - 1))

        found = sample(model, sigmas.float() ** 1.5 / first**0.5, noise, image, cfg=cfg)
        start = first * noise.double() + (1 - first) * image.double()
        assert relative_error(found, core("sampling.solvers").sample_euler(unet, start, sigmas)) < TOLERANCE

    @pytest.mark.parametrize("steps", [1, 4])
    def test_inpainting_leaves_the_rest_untouched(self, model, steps):
        from analytic_model import sample

        noise, image, mask = random(1, 4, 8, 8), random(1, 4, 8, 8, seed=4), torch.zeros(1, 1, 8, 8)
        mask[..., 4:] = 1
        found = sample(model, torch.linspace(1, 0, steps + 1), noise, image, noise_mask=mask)
        assert (found - image)[..., :4].abs().max() < 1e-6
        assert (found - image)[..., 4:].abs().min() > 1e-3


@pytest.mark.parametrize("steps", [1, 4])
def test_the_stock_way_round(run, small_unet, instaflow, picture, steps):
    """A UNet whose last layer is negated is a stock flow model of shift 1: the same picture, without this pack."""
    negated = small_unet.clone()
    weights = small_unet.model_state_dict("diffusion_model.")
    last = [f"diffusion_model.out.2.{name}" for name in ("weight", "bias")]
    negated.add_patches({key: ("diff", (-2 * weights[key],)) for key in last})
    stock = run("ModelSamplingSD3", model=negated, shift=1.0)[0]
    expected = picture(stock, steps, cfg=1.5)
    assert torch.allclose(picture(instaflow(small_unet), steps, cfg=1.5), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(("steps", "expected"), [(1, [1000.0]), (3, [1000.0, 2000 / 3, 1000 / 3])])
def test_controlnet_receives_the_timesteps(comfyui, run, small_unet, instaflow, picture, steps, expected):
    import comfy.controlnet
    from analytic_model import conditioning
    from trial import small_models

    folder = comfyui.base / "models" / "controlnet"
    file = small_models.make_controlnet(folder / "instaflow.safetensors", small_models.SD15_TINY)
    control, told = comfy.controlnet.load_controlnet(str(file)), []
    control.control_model.register_forward_pre_hook(
        lambda module, args, kwargs: told.append(kwargs["timesteps"][0].item()), with_kwargs=True
    )
    positive, negative = run(
        "ControlNetApplyAdvanced",
        positive=conditioning(0.1),
        negative=conditioning(0.2),
        control_net=control,
        image=random(1, 64, 64, 3).sigmoid(),
        strength=1.0,
        start_percent=0.0,
        end_percent=1.0,
    )
    model = instaflow(small_unet)
    controlled = picture(model, steps, positive=positive, negative=negative)
    assert told == pytest.approx(expected, rel=1e-6)
    assert not torch.allclose(controlled, picture(model, steps))


@pytest.fixture(scope="module")
def tunes(comfyui):
    """A fine-tune and its base."""
    import comfy.sd
    from trial import small_models

    folder = comfyui.base / "models" / "diffusion_models"
    files = [
        small_models.make_unet(folder / f"{name}.safetensors", small_models.SD15_TINY, seed=seed)
        for name, seed in (("dreamshaper", 11), ("sd15", 12))
    ]
    return [comfy.sd.load_diffusion_model(str(f), model_options={"dtype": torch.float32}) for f in files]


class TestWeights:
    """InstaFlow + (fine-tune - SD1.5), which the authors call a LoRA, and ordinary LoRAs."""

    @pytest.fixture
    def difference(self, run, tunes):
        return run("ModelMergeSubtract", model1=tunes[0], model2=tunes[1], multiplier=1.0)[0]

    @pytest.fixture
    def summed(self, small_unet, tunes, weights):
        flow, tune, base = (weights.loaded(model) for model in (small_unet, *tunes))
        return {key: flow[key] + tune[key] - base[key] for key in flow}

    def test_the_sum_and_its_picture(self, run, small_unet, instaflow, difference, summed, weights, picture):
        """ModelMergeAdd keeps the first model's sampling; the same weights by hand give the same picture."""
        import comfy.sd

        merged = run("ModelMergeAdd", model1=instaflow(small_unet), model2=difference)[0]
        weights.assert_same(weights.loaded(merged), summed, rtol=1e-5)
        plain = {key.removeprefix("diffusion_model."): tensor for key, tensor in summed.items()}
        by_hand = comfy.sd.load_diffusion_model_state_dict(plain, model_options={"dtype": torch.float32})
        assert torch.allclose(picture(merged), picture(instaflow(by_hand)), rtol=1e-4, atol=1e-4)
        assert not torch.allclose(picture(merged), picture(instaflow(small_unet)), rtol=0.1, atol=0.1)

    def test_before_the_node(self, run, small_unet, instaflow, difference, summed, weights, picture):
        merged = instaflow(run("ModelMergeAdd", model1=small_unet, model2=difference)[0])
        weights.assert_same(weights.loaded(merged), summed, rtol=1e-5)
        assert torch.equal(
            picture(merged), picture(run("ModelMergeAdd", model1=instaflow(small_unet), model2=difference)[0])
        )

    @pytest.mark.parametrize("after", [True, False], ids=["after", "before"])
    def test_with_a_lora(self, comfyui, run, small_unet, instaflow, difference, summed, weights, after):
        import adapters

        path = comfyui.base / "models" / "loras" / "instaflow-lora.safetensors"
        added = adapters.write(path, "LoRA", "kohya", weights.loaded(small_unet))

        def lora(model):
            return run("LoraLoaderModelOnly", model=model, lora_name=path.name, strength_model=0.8)[0]

        model = instaflow(small_unet) if after else instaflow(lora(small_unet))
        model = run("ModelMergeAdd", model1=model, model2=difference)[0]
        model = lora(model) if after else model
        weights.assert_same(weights.loaded(model), adapters.total(summed, [(0.8, added)]), rtol=1e-5)
        assert model.get_model_object("model_sampling").sigma_max == 1
        assert len(model.get_wrappers("outer_sample", "perflow")) == 1
