"""A flow model whose velocity is known exactly, in ComfyUI: what the node trains on, and a perfect student."""

import pytest
import torch

MEANS = torch.tensor([-1.5, 0.5, 2.0], dtype=torch.float64)  # of every number of a latent
SPREAD, SHIFT = 0.3, 3.0


def velocity(x, sigma):
    """E[noise - x0 | x] for x = (1 - sigma) x0 + sigma noise and x0 from equal Gaussians; float64."""
    a = 1 - sigma
    variance = a**2 * SPREAD**2 + sigma**2
    off = x[..., None] - a[..., None] * MEANS
    share = torch.softmax(-off.square() / (2 * variance[..., None]), dim=-1)
    x0 = MEANS + (a * SPREAD**2 / variance)[..., None] * off
    return (share * ((sigma / variance)[..., None] * off - x0)).sum(-1)


class Exact(torch.nn.Module):
    """The network in a MODEL: `velocity`, or what a test puts in its place."""

    def __init__(self, device=None, operations=None, **config):
        super().__init__()
        self.dtype = torch.float32
        self.layer = operations.Linear(1, 1, device=device)  # something to hang an adapter on
        self.velocity = velocity

    def forward(self, x, timesteps, context=None, **kwargs):
        sigma = (timesteps.double() / 1000).view(-1, *(1,) * (x.ndim - 1)).expand_as(x)
        return self.velocity(x.double(), sigma).to(x)


@pytest.fixture
def model(comfyui):
    import comfy.model_base
    import comfy.model_patcher
    import comfy.ops
    import comfy.supported_models

    config = comfy.supported_models.SD3({"dtype": torch.float32})
    config.custom_operations = comfy.ops.disable_weight_init
    kind = comfy.model_base.ModelType.FLOW
    model = comfy.model_base.BaseModel(config, kind, "cpu", unet_model=Exact)
    return comfy.model_patcher.ModelPatcher(model, torch.device("cpu"), torch.device("cpu"))


@pytest.fixture
def exact(core):
    """The chord of four windows, and the teacher's walk through one: both in float64."""
    chords, trajectory = core("sampling.chord"), core("training.trajectory").TeacherTrajectory
    even = core("sampling.windows").Windows.even(4).edges
    chord = chords.WindowChord.of_flow(chords.shifted(even, SHIFT).tolist(), SHIFT)
    walk = trajectory.of_flow(chord, 8)

    def through(X, w):
        def d(X, i):
            return velocity(X, walk.sigma[i].view(-1, *(1,) * (X.ndim - 1)).expand_as(X))

        return walk(d, X, torch.full((len(X),), w))

    return chord, through


def test_what_the_node_trains_on(comfyui, core, model, exact):
    from node_training import SETTINGS

    module = comfyui.module("nodes.comfyui.training.delta_training")
    prompt = [[torch.zeros(1, 77, 4096), {}]]
    latents = [{"samples": torch.randn(6, 16, 4, 4, generator=torch.Generator().manual_seed(1))}]
    settings = SETTINGS | {"prediction_type": "velocity", "solving_steps": 8, "batch_size": 4}
    with torch.inference_mode(False), torch.enable_grad():
        examples = module.Examples(model, latents, [prompt], None)
        training = module.DeltaTraining(model, examples, module.Settings(**settings))
        with training.unet.loaded():
            draw, segment = training.segment(0)
            batch = training.batch(0)
            losses = training.reflow.losses(batch._replace(student=lambda z, T: batch.segment.eps))
    assert sorted(draw.w.tolist()) == [0, 1, 2, 3]
    assert losses.max() < 1e-12
    curriculum, (chord, through) = core("training.curriculum"), exact
    number = int(training.rounds.order(0))  # of the batch that comes first
    rows = range(4 * number, 4 * number + 4)
    noise = curriculum.normal((16, 4, 4), rows, settings["seed"], curriculum.Purpose.NOISE).double()
    for row, w in enumerate(draw.w.tolist()):
        x0 = examples.latents[draw.examples[row]].double()
        X_s = ((1 - chord.s[w]) * x0 + chord.s[w] * noise[row])[None]
        eps = (through(X_s, w) - X_s) / (chord.s[w + 1] - chord.s[w])
        found = segment.x0[row] + chord.s[w].float() * segment.eps[row]
        assert (found - X_s[0]).abs().max() < 1e-6
        end = segment.x0[row] + chord.s[w + 1].float() * segment.eps[row]
        assert (end - (X_s + (chord.s[w + 1] - chord.s[w]) * eps)[0]).abs().max() < 3e-6


def test_a_perfect_student_reaches_the_teachers_end(run, model, exact):
    """Four steps of stock euler."""
    chord, through = exact

    def student(x, sigma):
        w = int((sigma.flatten()[0] <= chord.s[1:-1] + 1e-6).sum())
        return (x - through(x, w)) / (chord.s[w] - chord.s[w + 1])

    inputs = {"prediction_type": "auto", "windows": 4, "align_steps": True}
    node = run("PeRFlowModelSampling", model=model, **inputs)[0]
    prompt = [[torch.zeros(1, 77, 4096), {}]]
    how = {"seed": 5, "steps": 4, "cfg": 1.0, "sampler_name": "euler", "scheduler": "karras", "denoise": 1.0}
    latent = {"samples": torch.zeros(2, 16, 4, 4)}
    model.model.diffusion_model.velocity = student
    found = run("KSampler", model=node, positive=prompt, negative=prompt, **how, latent_image=latent)[0]["samples"]

    import comfy.sample

    X = comfy.sample.prepare_noise(latent["samples"], 5).double()
    for w in range(4):
        X = through(X, w)
    assert (model.model.process_latent_in(found) - X).abs().max() < 5e-6
    model.model.diffusion_model.velocity = velocity
    base = run("KSampler", model=node, positive=prompt, negative=prompt, **how, latent_image=latent)[0]["samples"]
    assert (model.model.process_latent_in(base) - X).abs().max() > 0.1
