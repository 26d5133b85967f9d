"""LocalBlend through ComfyUI's samplers and ours, against explicit maps and loops that blend after every step."""

import pytest
import torch
from trial.edited_prompts import KEY, SOURCE, unedited

EDITED = "a castle, at night\na small wooden lighthouse, at the sunset"
STEPS = 8


@pytest.fixture
def blending(comfyui, p2p, models):
    """The node's outputs with LocalBlend, and what does the same by explicit maps: MODEL, positive, the blend."""
    from explicit_maps import LocalBlend, with_explicit_maps

    def call(threshold=0.75, steps=STEPS, model=None, edited=EDITED, words="castle, lighthouse, wooden"):
        base = model or models("SD1.5", torch.float64)
        import os
        for name, p in base.model.diffusion_model.named_parameters():
            if "attn2.to_q" in name: p.data *= float(os.environ["SHARP"])
        made = p2p(edited=edited, model=base, blend=words, blend_threshold=threshold)
        plan = made[1][0][1][KEY]
        blend = LocalBlend(plan.words, plan.threshold, [("input", 3), ("output", 2), ("output", 3)], 8)
        cross, own = range(int(0.8 * (steps + 1))), range(int(0.4 * steps))
        return made, (with_explicit_maps(base, *plan.edits, cross, own, blend), unedited(made[1])), blend

    return call


@pytest.fixture
def sampled(run, encode):
    """SamplerCustom without KSampler's alignment."""

    def call(model, positive, latent, sampler, sigmas, cfg=7.5):
        given = {"add_noise": True, "noise_seed": 0, "cfg": cfg, "negative": encode("blue")}
        return run("SamplerCustom", model=model, positive=positive, latent_image=latent, sampler=sampler,
                   sigmas=sigmas, **given)[0]["samples"]  # fmt: skip

    return call

RULES = ["euler"]

@pytest.mark.parametrize("sampler", RULES)
@pytest.mark.parametrize("threshold", [.5, .6, .7, .75, .8, .85])
def test_look(blending, sampled, sampler, run, threshold):
    import comfy.samplers
    from analytic_model import relative_error
    from explicit_maps import BlendedLoop
    (model, positive, latent), (theirs, prompts), blend = blending(threshold)
    sigmas = run("BasicScheduler", model=model, scheduler="simple", steps=8, denoise=1.0)[0]
    loop = comfy.samplers.KSAMPLER(BlendedLoop(blend, {"ddim": "euler"}.get(sampler, sampler)))
    wanted = sampled(theirs, prompts, latent, loop, sigmas)
    found = sampled(model, positive, latent, run("KSamplerSelect", sampler_name=sampler)[0], sigmas)
    masks = torch.stack(blend.masks)[:, 1:]
    left = (masks[:-1] & ~masks[1:]).any(0); 
    back = (masks[2:] & ~masks[1:-1] ).any(0)
    print(sampler, threshold, relative_error(found, wanted), [ (int(m.sum())) for m in masks], "left", int(left.sum()), "grew", int((masks[1:]&~masks[:-1]).any(0).sum()), "back", int(sum((masks[i]&~masks[i-1]&masks[:i-1].any(0)).sum() for i in range(2,len(masks)))))
