"""ComfyUI-Impact-Pack: its samplers, which lay and cut the steps themselves, give what stock nodes give."""

import pytest
from api_graph import SAME, pictures, relative_error

VARIABLE = "IMPACT_PACK_PATH"


@pytest.fixture
def pipe(accelerated):
    """A prompt -> a pipe with it and the accelerated model."""

    def make(positive):
        links = {"model": accelerated.model, "clip": accelerated.clip, "vae": accelerated.vae}
        return accelerated.graph.add("ToBasicPipe", positive=positive, negative=accelerated.text("blurry"), **links)

    return make


@pytest.mark.parametrize(("scheduler", "steps", "denoise"), [("karras", 6, 1.0), ("simple", 4, 0.5)])
def test_ksampler(accelerated, run, pipe, scheduler, steps, denoise):
    fox = accelerated.text("a red fox")
    image = accelerated.ksampler(accelerated.text("a blue whale"))
    inputs = accelerated.SAMPLING | {"seed": accelerated.SEED, "steps": steps, "scheduler": scheduler}
    inputs |= {"denoise": denoise, "latent_image": image}
    piped = accelerated.graph.add("ImpactKSamplerBasicPipe", basic_pipe=pipe(fox), **inputs)
    stock = accelerated.ksampler(fox, steps, image, scheduler=scheduler, denoise=denoise)
    found, expected = run(accelerated.graph.output(piped, 1), stock)
    assert relative_error(found, expected) < SAME


def test_ksampler_advanced_in_two_parts(accelerated, run, pipe):
    fox = accelerated.text("a red fox")
    inputs = accelerated.SAMPLING | {"noise_seed": accelerated.SEED, "steps": 8, "scheduler": "simple"}
    inputs["basic_pipe"] = pipe(fox)
    first, second = {"add_noise": True, "start_at_step": 0}, {"add_noise": False, "start_at_step": 4}
    first |= {"end_at_step": 4, "return_with_leftover_noise": True, "latent_image": accelerated.empty()}
    half_way = accelerated.graph.add("ImpactKSamplerAdvancedBasicPipe", **inputs, **first)
    second |= {"end_at_step": 8, "return_with_leftover_noise": False}
    second |= {"latent_image": accelerated.graph.output(half_way, 1)}
    piped = accelerated.graph.add("ImpactKSamplerAdvancedBasicPipe", **inputs, **second)
    found, expected = run(accelerated.graph.output(piped, 1), accelerated.ksampler(fox, 8))
    assert relative_error(found, expected) < SAME


@pytest.mark.parametrize("steps", [4, 8])
def test_regional_sampler_changes_the_prompt_after_its_first_step(accelerated, run, pipe, steps):
    """One region over the whole picture: the base's prompt has the first step, the region's the others, one by one."""
    fox, whale = accelerated.text("a red fox"), accelerated.text("a blue whale")
    graph, sampling = accelerated.graph, accelerated.SAMPLING | {"scheduler": "simple", "sigma_factor": 1.0}
    fox_sampler, whale_sampler = (
        graph.add("KSamplerAdvancedProvider", basic_pipe=pipe(text), **sampling) for text in (fox, whale)
    )
    region = graph.add("RegionalPrompt", mask=accelerated.everywhere(), advanced_sampler=whale_sampler)
    regional = graph.add(
        "RegionalSampler",
        seed=accelerated.SEED,
        seed_2nd=0,
        seed_2nd_mode="ignore",
        steps=steps,
        base_only_steps=1,
        denoise=1.0,
        samples=accelerated.empty(),
        base_sampler=fox_sampler,
        regional_prompts=region,
        overlap_factor=0,
        restore_latent=True,
        additional_mode="DISABLE",
        additional_sampler="AUTO",
        additional_sigma_ratio=0.3,
    )
    stock = accelerated.in_parts(steps, (1, {"positive": fox}), (steps - 1, {"positive": whale}))
    found, expected, without = run(regional, stock, accelerated.ksampler(fox, steps))
    assert relative_error(found, expected) < SAME
    assert relative_error(without, expected) > 1e-2


def test_detailer_draws_a_picture_again_as_ksampler_does(accelerated, server):
    """A segment that is the whole picture, at its own size."""
    graph, fox = accelerated.graph, accelerated.text("a red fox")
    image = accelerated.photo()
    segment = {"combined": False, "crop_factor": 1.0, "bbox_fill": False, "drop_size": 1, "contour_fill": False}
    detailed = graph.add(
        "DetailerForEach",
        image=image,
        segs=graph.add("MaskToSEGS", mask=accelerated.everywhere(), **segment),
        model=accelerated.model,
        clip=accelerated.clip,
        vae=accelerated.vae,
        guide_size=64,
        guide_size_for=True,
        max_size=64,
        seed=accelerated.SEED,
        steps=4,
        scheduler="simple",
        positive=fox,
        negative=accelerated.text("blurry"),
        denoise=0.5,
        feather=0,
        noise_mask=False,
        force_inpaint=True,
        wildcard="",
        cycle=1,
        **accelerated.SAMPLING,
    )
    stock = accelerated.ksampler(fox, 4, graph.add("VAEEncode", pixels=image, vae=accelerated.vae), denoise=0.5)
    redrawn = graph.add("VAEDecode", samples=stock, vae=accelerated.vae)
    found, expected, before = pictures(server, graph, detailed, redrawn, image)
    assert abs(found - expected).max() <= 1
    assert abs(before - expected).mean() > 1
