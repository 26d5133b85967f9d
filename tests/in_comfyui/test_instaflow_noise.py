"""Interpolated Noise: ends that RandomNoise gives too, a batch of frames, parts of a batch."""

import pytest
import torch

FRAMES = 5


@pytest.fixture
def noise(run):
    def make(seed_from=7, seed_to=8, frames=FRAMES):
        return run("InstaFlowNoise", seed_from=seed_from, seed_to=seed_to, frames=frames)[0]

    return make


def batch(images=FRAMES, **more):
    return {"samples": torch.zeros(images, 4, 8, 8)} | more


def test_first_and_last_are_random_noises(run, noise):
    found = noise().generate_noise(batch())
    assert found.shape == (FRAMES, 4, 8, 8)
    for frame, seed in ((0, 7), (-1, 8)):
        wanted = run("RandomNoise", noise_seed=seed)[0].generate_noise(batch(1))
        assert torch.equal(found[frame : frame + 1 or None], wanted)


def test_frames_are_as_long_as_the_ends(noise):
    lengths = noise(frames=16).generate_noise(batch(16)).flatten(1).norm(dim=1)
    assert min(lengths[0], lengths[-1]) * 0.99 < lengths.min()
    assert lengths.max() < max(lengths[0], lengths[-1]) * 1.01


@pytest.mark.parametrize("seed", [0, 7, 2**64 - 1])
def test_equal_seeds_stand_still(noise, seed):
    found = noise(seed, seed).generate_noise(batch())
    assert torch.equal(found, found[:1].expand_as(found))
    assert found.isfinite().all()


def test_there_and_back_are_the_same_frames(noise):
    """From 7 to 8 is from 8 to 7, backwards."""
    there, back = (noise(*seeds).generate_noise(batch()) for seeds in ((7, 8), (8, 7)))
    assert torch.allclose(there, back.flip(0), rtol=0, atol=1e-6)


def test_a_part_of_the_batch_has_its_own_frames(run, noise):
    """Latent From Batch: long sequences in pieces."""
    part = run("LatentFromBatch", samples=batch(), batch_index=2, length=2)[0]
    assert torch.equal(noise().generate_noise(part), noise().generate_noise(batch())[2:4])


def test_one_frame(run, noise):
    wanted = run("RandomNoise", noise_seed=7)[0].generate_noise(batch(1))
    assert torch.equal(noise(frames=1).generate_noise(batch(1)), wanted)


@pytest.mark.parametrize("shape", [(3, 16, 8, 8), (3, 16, 2, 8, 8)])
def test_any_models_latents(noise, shape):
    latent = {"samples": torch.zeros(*shape, dtype=torch.float16)}
    found = noise(frames=3).generate_noise(latent)
    assert found.shape == shape
    assert found.dtype == torch.float16


def test_frames_and_images_that_do_not_match(noise):
    with pytest.raises(
        ValueError, match=r"^Interpolated Noise has 5 frames and the latent has 4 images, expected [^\n]+\.$"
    ):
        noise().generate_noise(batch(4))
    with pytest.raises(ValueError, match=r"has 5 frames and the latent holds image 7 of its batch, expected [^\n]+\.$"):
        noise().generate_noise(batch(2, batch_index=[5, 6]))


def test_a_latent_of_several_parts(comfyui, noise):
    from comfy.nested_tensor import NestedTensor

    parts = NestedTensor([torch.zeros(1, 4, 8, 8), torch.zeros(1, 2, 8)])
    with pytest.raises(ValueError, match=r"got a latent of 2 parts \(video with sound\), expected a batch of images: "):
        noise().generate_noise({"samples": parts})


@pytest.mark.parametrize("one_step", [True, False], ids=["InstaFlow", "any model"])
def test_through_the_sampler(run, golden, comfyui, noise, one_step):
    """Each frame of the batch is what sampling from its own noise gives."""
    from analytic_model import conditioning, relative_error
    from family_models import laid_out_model

    model = laid_out_model(golden("instaflow"))
    if one_step:
        model = run("InstaFlowModelSampling", model=model, family="rectified_flow", align_steps=True)[0]
    prompts = {"positive": conditioning(1), "negative": conditioning(0)}
    common = {
        "guider": run("CFGGuider", model=model, cfg=1.0, **prompts)[0],
        "sampler": run("KSamplerSelect", sampler_name="euler")[0],
        "sigmas": run("BasicScheduler", model=model, scheduler="simple", steps=1 if one_step else 4, denoise=1.0)[0],
    }
    found = run("SamplerCustomAdvanced", noise=noise(), latent_image=batch(), **common)[0]["samples"]
    for frame, seed in ((0, 7), (-1, 8)):
        alone = run("RandomNoise", noise_seed=seed)[0]
        wanted = run("SamplerCustomAdvanced", noise=alone, latent_image=batch(1), **common)[0]["samples"]
        assert relative_error(found[frame : frame + 1 or None], wanted) < 1e-6
