"""A LoRA that hangs on the prompts, as against the same LoRA on the accelerated model."""

import pytest
import torch


@pytest.fixture(scope="module", autouse=True)
def quick():
    from threads import one_thread

    with one_thread():
        yield


@pytest.fixture
def adapter(comfyui, small_unet, weights):
    """(kind, names) -> the name of such a file in models/loras."""
    import adapters

    base = weights.loaded(small_unet)

    def make(kind, names):
        path = comfyui.base / "models" / "loras" / f"hooked-{kind}-{names}.safetensors"
        adapters.write(path, kind, names, base)
        return path.name

    return make


@pytest.fixture
def sample(schedule):
    import comfy.sample
    import comfy.samplers

    def call(model, positive, negative, sigmas=None, latent=None, noise=None):
        start = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0)) if noise is None else noise
        latent = torch.zeros_like(start) if latent is None else latent
        sampler, sigmas = comfy.samplers.sampler_object("euler"), schedule(model) if sigmas is None else sigmas
        return comfy.sample.sample_custom(
            model, start, 2.0, sampler, sigmas, positive, negative, latent, disable_pbar=True
        )

    return call


@pytest.fixture
def prompts():
    from analytic_model import conditioning

    return conditioning(0.1), conditioning(0.2)


@pytest.fixture
def hooked(run, prompts):
    """Both prompts with hooks."""

    def attach(hooks):
        inputs = {"strength": 1.0, "set_cond_area": "default", "hooks": hooks}
        positive, negative = prompts
        return run("PairConditioningSetProperties", positive_NEW=positive, negative_NEW=negative, **inputs)

    return attach


@pytest.mark.parametrize("kind", ["LoRA", "LoHa", "LoKr"])
def test_equals_the_lora_on_the_model(run, small_unet, apply_delta, adapter, sample, prompts, hooked, kind):
    name = adapter(kind, "kohya")
    accelerated = apply_delta(small_unet)
    hooks = run("CreateHookLoraModelOnly", lora_name=name, strength_model=0.8)[0]
    found = sample(accelerated, *hooked(hooks))
    styled = run("LoraLoaderModelOnly", model=accelerated, lora_name=name, strength_model=0.8)[0]
    assert torch.allclose(found, sample(styled, *prompts), rtol=1e-4, atol=1e-4)
    assert not torch.allclose(found, sample(accelerated, *prompts), rtol=1e-2, atol=1e-2)


def test_two_hooks_and_a_lora_on_the_model(run, small_unet, apply_delta, adapter, sample, prompts, hooked):
    names = [adapter(kind, "ComfyUI") for kind in ("LoRA", "LoKr")]
    first = adapter("LoHa", "kohya")
    accelerated = apply_delta(run("LoraLoaderModelOnly", model=small_unet, lora_name=first, strength_model=0.5)[0])
    hooks, styled = None, accelerated
    for name in names:
        hooks = run("CreateHookLoraModelOnly", lora_name=name, strength_model=0.6, prev_hooks=hooks)[0]
        styled = run("LoraLoaderModelOnly", model=styled, lora_name=name, strength_model=0.6)[0]
    found = sample(accelerated, *hooked(hooks))
    assert torch.allclose(found, sample(styled, *prompts), rtol=1e-4, atol=1e-4)


def test_keyframes_count_in_timesteps(run, small_unet, apply_delta, adapter, sample, schedule, prompts, hooked):
    """The LoRA until timestep 600, half of it from there: against two runs cut there."""
    name = adapter("LoRA", "kohya")
    accelerated = apply_delta(small_unet)
    frames = None
    for strength, start in ((1.0, 0.0), (0.5, 0.4)):
        inputs = {"strength_mult": strength, "start_percent": start, "prev_hook_kf": frames}
        frames = run("CreateHookKeyframe", **inputs)[0]
    hooks = run("CreateHookLoraModelOnly", lora_name=name, strength_model=0.8)[0]
    found = sample(accelerated, *hooked(run("SetHookKeyframes", hooks=hooks, hook_kf=frames)[0]))

    def styled(strength):
        return run("LoraLoaderModelOnly", model=accelerated, lora_name=name, strength_model=strength)[0]

    sigmas = schedule(accelerated)
    latent = sample(styled(0.8), *prompts, sigmas=sigmas[:3])
    expected = sample(styled(0.4), *prompts, sigmas=sigmas[2:], latent=latent, noise=torch.zeros_like(latent))
    assert torch.allclose(found, expected, rtol=1e-4, atol=1e-4)
    assert not torch.allclose(found, sample(styled(0.8), *prompts), rtol=1e-3, atol=1e-3)
