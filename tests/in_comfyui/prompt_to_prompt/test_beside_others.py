"""Prompt-to-Prompt on a model that other nodes work on too: ControlNet, LoRAs, adapters, guiders, PeRFlow."""

import pytest
import torch
from trial.edited_prompts import SOURCE, unedited


def test_the_positive_found_in_any_guider(p2p, encode, run):
    """DualCFGGuider counts the negative first; with one prompt for both it is CFGGuider."""
    from analytic_model import relative_error

    model, positive, latent = p2p()
    negative = encode("blue")
    common = {
        "noise": run("RandomNoise", noise_seed=0)[0],
        "sampler": run("KSamplerSelect", sampler_name="euler")[0],
        "sigmas": run("BasicScheduler", model=model, scheduler="simple", steps=4, denoise=1.0)[0],
        "latent_image": latent,
    }
    plain = run("CFGGuider", model=model, positive=positive, negative=negative, cfg=3.0)[0]
    dual = run(
        "DualCFGGuider",
        **{"model": model, "cond1": positive, "cond2": negative, "negative": negative},
        **{"cfg_conds": 3.0, "cfg_cond2_negative": 1.0, "style": "regular"},
    )[0]
    wanted = run("SamplerCustomAdvanced", guider=plain, **common)[0]["samples"]
    found = run("SamplerCustomAdvanced", guider=dual, **common)[0]["samples"]
    assert relative_error(found, wanted) < 5e-6


class Adds:
    """What IP-Adapter does to cross attention: its own attention, added."""

    def __init__(self, patched):
        self.patched = patched

    def __call__(self, q, k, v, extra):
        from comfy.ldm.modules.attention import optimized_attention

        out = optimized_attention(q, k, v, extra["n_heads"]) if self.patched is None else self.patched(q, k, v, extra)
        return out + 0.3 * torch.sin(q)


@pytest.mark.parametrize("order", ["before", "after"])
def test_attention_that_another_node_replaced(p2p, sample, models, with_maps, order):
    """It stays, and adds to every row what its own query asks for."""
    from analytic_model import relative_error

    def adapter(model, around=None):
        adapted = model.clone()
        for place, numbers in (("input", (3, 5)), ("middle", (0,)), ("output", range(4))):
            for number in numbers:
                layers = adapted.model_options["transformer_options"].get("patches_replace", {}).get("attn2", {})
                adapted.set_model_attn2_replace(Adds(layers.get((place, number))), place, number)
        return adapted

    base = models("SD1.5", torch.float64)
    model, positive, latent = p2p(model=adapter(base) if order == "before" else base)
    model = model if order == "before" else adapter(model)
    theirs, prompts = with_maps(base, positive)
    found, wanted = sample(model, positive, latent, 3.0), sample(adapter(theirs), prompts, latent, 3.0)
    assert relative_error(found, wanted) < 1e-6


def test_a_perflow_model(p2p, run, sample, models):
    """Its window grid, by a plain KSampler; the picture is another than the base's."""
    from analytic_model import relative_error

    sampling = {"prediction_type": "diff_eps", "windows": 4, "align_steps": True}
    accelerated = run("PeRFlowModelSampling", model=models("SD1.5"), **sampling)[0]
    model, positive, latent = p2p(model=accelerated, edited=SOURCE)
    found = sample(model, positive, latent, 3.0, scheduler="karras")
    assert relative_error(found[1], found[0]) < 5e-6
    assert found.isfinite().all()
    plain = sample(accelerated, unedited(positive), latent, 3.0, scheduler="karras")
    assert torch.equal(found[0], plain[0])
    assert relative_error(found[1], plain[1]) < 5e-6


@pytest.fixture
def tiny(small_unet):
    """A plain MODEL, a latent for it, and what its float32 leaves of two ways to the same numbers."""
    return small_unet, {"samples": torch.zeros(1, 4, 8, 8)}, 2e-5


def test_a_controlnet(p2p, sample, run, comfyui, tiny, encode, with_maps):
    """It reads every prompt by itself, and its hint is for all of the pictures."""
    import comfy.controlnet
    from analytic_model import relative_error
    from trial import small_models

    base, empty, bound = tiny
    file = comfyui.base / "models" / "controlnet" / "tiny.safetensors"
    control = comfy.controlnet.load_controlnet(str(small_models.make_controlnet(file, small_models.SD15_TINY)))
    hint = {"control_net": control, "image": torch.rand(1, 64, 64, 3), "strength": 1.0}

    def controlled(positive):
        span = {"start_percent": 0.0, "end_percent": 1.0}
        return run("ControlNetApplyAdvanced", positive=positive, negative=encode("blue"), **hint, **span)

    model, prompts, latent = p2p(model=base, latent=empty)
    positive, negative = controlled(prompts)
    found = sample(model, positive, latent, 3.0, negative=negative)
    wanted = sample(*with_maps(base, positive), latent, 3.0, negative=negative)
    assert relative_error(found, wanted) < bound
    without = sample(model, prompts, latent, 3.0)
    assert all(relative_error(found[row], without[row]) > 1e-3 for row in range(3))
    model, prompts, latent = p2p(model=base, latent=empty, edited=SOURCE)
    positive, negative = controlled(prompts)
    source, edit = sample(model, positive, latent, 3.0, negative=negative)
    assert relative_error(edit, source) < bound


@pytest.fixture
def lora(comfyui, tiny, weights):
    """The name of a file in models/loras."""
    import adapters

    path = comfyui.base / "models" / "loras" / "beside-an-edit.safetensors"
    adapters.write(path, "LoRA", "kohya", weights.loaded(tiny[0]))
    return path.name


def test_a_lora_before_or_after(p2p, sample, run, tiny, lora, with_maps):
    from analytic_model import relative_error

    def styled(model):
        return run("LoraLoaderModelOnly", model=model, lora_name=lora, strength_model=1.0)[0]

    base, empty, bound = tiny
    model, positive, latent = p2p(model=styled(base), latent=empty)
    before = sample(model, positive, latent)
    model, positive, _ = p2p(model=base, latent=empty)
    assert torch.equal(sample(styled(model), positive, latent), before)
    assert relative_error(before, sample(*with_maps(styled(base), positive), latent)) < bound
    assert relative_error(before, sample(model, positive, latent)) > 1e-2


def test_a_lora_that_hangs_on_the_prompts(p2p, sample, run, tiny, lora, clips, with_maps):
    """One that the clip carries, on from half of the way: the edited prompts are two, each for a part of the steps."""
    from analytic_model import relative_error

    base, empty, bound = tiny
    frames = None
    for strength, start in ((0.0, 0.0), (1.0, 0.5)):
        frames = run("CreateHookKeyframe", strength_mult=strength, start_percent=start, prev_hook_kf=frames)[0]
    hooks = run("CreateHookLora", lora_name=lora, strength_model=1.0, strength_clip=1.0)[0]
    hooks = run("SetHookKeyframes", hooks=hooks, hook_kf=frames)[0]
    clip = run("SetClipHooks", clip=clips("SD1.5"), apply_to_conds=True, schedule_clip=True, hooks=hooks)[0]
    model, positive, latent = p2p(model=base, clip=clip, latent=empty)
    assert len(positive) == 2
    found = sample(model, positive, latent, 3.0)
    assert relative_error(found, sample(*with_maps(base, positive), latent, 3.0)) < bound
    _, plain, _ = p2p(model=base, latent=empty)
    assert relative_error(found, sample(model, plain, latent, 3.0)) > 1e-2
