"""Everything the pack does for Stable Diffusion, on small flow models of the real layouts through stock loaders."""

import re
import shutil
from pathlib import Path

import pytest
import safetensors.torch
import torch

NO_GRADIENT = r"has an operation without a gradient .+: update ComfyUI, or train on"  # nor has it for Train LoRA
REFUSED = {"joyimage": NO_GRADIENT, "ernie": NO_GRADIENT}


@pytest.fixture
def model(flow_model, layout):
    return flow_model(layout)


def random_latent(like):
    """Where it is nested, each of its parts."""
    random = torch.Generator().manual_seed(5)
    if not like.is_nested:
        return torch.randn(like.shape, generator=random)
    return type(like)([torch.randn(part.shape, generator=random) for part in like.unbind()])


def train(comfyui, layout, model, **inputs):
    from flow_models import conditioning, empty_latent
    from node_training import train_on

    drawn = random_latent(empty_latent(layout, model)["samples"])
    return train_on(comfyui, model, [{"samples": drawn}], [conditioning(layout, 1)], rank=2, **inputs)


@pytest.fixture
def sampled(run, layout):
    """What stock KSampler makes of noise in four steps, flat."""
    from flow_models import conditioning, empty_latent

    def sample(model, scheduler="simple", steps=4, cfg=1.0):
        prompts = {"positive": conditioning(layout, 1), "negative": conditioning(layout, 0, tokens=3)}
        how = {"seed": 5, "steps": steps, "cfg": cfg, "sampler_name": "euler", "scheduler": scheduler, "denoise": 1.0}
        found = run("KSampler", model=model, **prompts, **how, latent_image=empty_latent(layout, model))[0]["samples"]
        return torch.cat([part.flatten() for part in (found.unbind() if found.is_nested else [found])])

    return sample


def apply(run, model, path, **inputs):
    settings = {"strength": 1.0, "prediction_type": "auto", "windows": 0, "align_steps": True}
    return run("PeRFlowApplyDelta", model=model, delta_name=path.name, **settings | inputs)[0]


def training_on(comfyui, layout, model, checkpointing, latent=None, offloading=False):
    """What the node trains with, its adapters with random halves in place of zeros."""
    from flow_models import conditioning, empty_latent
    from node_training import SETTINGS

    module = comfyui.module("nodes.comfyui.training.delta_training")
    if latent is None:
        latent = random_latent(empty_latent(layout, model, batch=2)["samples"])
    count = len(latent.unbind()[0] if latent.is_nested else latent)
    positive = [[conditioning(layout, seed)[0] for seed in range(1, count + 1)]]
    examples = module.Examples(model, [{"samples": latent}], positive, None)
    settings = SETTINGS | {"rank": 2, "prediction_type": "velocity", "gradient_checkpointing": checkpointing}
    settings["offloading"] = offloading
    training = module.DeltaTraining(model, examples, module.Settings(**settings))
    random = torch.Generator().manual_seed(7)
    for adapter in training.unet.adapters.by_name.values():
        with torch.no_grad():
            adapter.up.copy_(0.02 * torch.randn(adapter.up.shape, generator=random))
    return training


@pytest.mark.parametrize(
    "layout", ["sd3.5", "flux", "flux2", "chroma", "ltxv", "ltxav", "wan2.1", "z-image"], indirect=True
)
def test_the_gradient_is_that_of_the_loss(comfyui, layout, flow_model):
    """Also where blocks add to their inputs in place, with and without checkpointing: against a finite difference."""
    gradients, slopes = [], []
    for checkpointing in (True, False):
        with torch.inference_mode(False), torch.enable_grad():
            training = training_on(comfyui, layout, flow_model(layout), checkpointing)
            weights = training.unet.adapters.parameters
            with training.unet.loaded():
                assert not any(weight.requires_grad for weight in training.unet.patcher.model.parameters())
                batch = training.batch(0)
                with training.descent.accumulating():
                    training.reflow.losses(batch).mean().backward()
                gradient = torch.cat([weight.grad.flatten() for weight in weights if weight.grad is not None])
                h, sides = 1e-3 / gradient.norm(), []
                for sign in (1, -1):
                    with torch.no_grad():
                        for weight in weights:
                            if weight.grad is not None:
                                weight.add_(weight.grad, alpha=sign * h)
                        sides.append(training.reflow.losses(batch).mean().double())
                        for weight in weights:
                            if weight.grad is not None:
                                weight.sub_(weight.grad, alpha=sign * h)
                slopes.append(float((sides[0] - sides[1]) / (2 * h) / gradient.square().sum()))
            gradients.append(gradient)
    assert (gradients[0] - gradients[1]).norm() < 1e-4 * gradients[1].norm()
    assert slopes == pytest.approx([1, 1], rel=0.02)


def cast_into_shared_memory(model):
    """As ComfyUI casts the weights of an offloaded model: each into memory that the next one takes."""
    memory = torch.empty(max(weight.numel() for weight in model.model.diffusion_model.parameters()))

    def cast(weight):
        shared = memory.as_strided(weight.shape, weight.contiguous().stride())
        return shared.copy_(weight)

    for name, layer in model.model.diffusion_model.named_modules():
        if hasattr(layer, "comfy_cast_weights") and getattr(layer, "weight", None) is not None:
            model.add_weight_wrapper(f"diffusion_model.{name}.weight", cast)


@pytest.mark.parametrize("checkpointing", [True, False])
@pytest.mark.parametrize("layout", ["sd3.5", "flux", "ltxv", "wan2.1", "z-image"], indirect=True)
def test_the_gradient_of_an_offloaded_model(comfyui, layout, flow_model, checkpointing):
    """The weights of its layers do not last until backward."""
    found = []
    for offloading in (False, True):
        with torch.inference_mode(False), torch.enable_grad():
            training = training_on(comfyui, layout, flow_model(layout), checkpointing, offloading=offloading)
            if offloading:
                cast_into_shared_memory(training.unet.patcher)
            with training.unet.loaded():
                batch = training.batch(0)
                with training.descent.accumulating():
                    training.reflow.losses(batch).mean().backward()
            found.append([w.grad for w in training.unet.adapters.parameters if w.grad is not None])
    wanted, gradient = (torch.cat([part.flatten() for part in parts]) for parts in found)
    assert (gradient - wanted).norm() < 1e-5 * wanted.norm()


def with_lora(model, tensors):
    import comfy.sd

    return comfy.sd.load_lora_for_models(model, None, tensors, 1.0, 0.0)[0]


def test_from_training_to_the_stock_lora_loader(comfyui, layout, model, run, sampled):
    """Train, apply, sample on the windows, extract; the stock loader makes the same of both files."""
    try:
        path, losses, _ = train(comfyui, layout, model, learning_rate=1e-2)
    except (RuntimeError, ValueError) as error:
        if not re.search(REFUSED.get(layout, "(?!)"), str(error)):
            raise
        return  # as this ComfyUI has it: older ones can train Ernie
    assert len(losses) == 2
    tensors = safetensors.torch.load_file(path)
    assert max(float(tensor.abs().max()) for key, tensor in tensors.items() if key.endswith("lora_up.weight")) > 0
    assert all(key.startswith("diffusion_model.") for key in tensors)

    base, found = sampled(model), sampled(applied := apply(run, model, path))
    size = found.std()
    assert found.isfinite().all()
    assert (found - base).std() > 1e-4 * size
    assert (found - sampled(with_lora(model, tensors))).abs().max() < 1e-4 * size

    inputs = {"filename_prefix": "again", "rank": 0, "energy": 0.0, "prediction_type": "auto", "windows": 4}
    (again,) = run("PeRFlowExtractDelta", model_perflow=applied, model_base=model, **inputs)
    whole = safetensors.torch.load_file(again)
    assert (sampled(apply(run, model, Path(again))) - found).abs().max() < 1e-3 * size
    assert (sampled(with_lora(model, whole)) - found).abs().max() < 1e-3 * size


def model_sampling(run, model, windows=4, align_steps=True, prediction_type="auto", edges=""):
    inputs = {"prediction_type": prediction_type, "windows": windows, "align_steps": align_steps, "edges": edges}
    return run("PeRFlowModelSampling", model=model, **inputs)[0]


def test_an_empty_latent_of_another_model_is_taken_as_samplers_take_it(comfyui, model, layout):
    """Empty Latent Image has 4 channels; a picture for a model of videos is one frame."""
    from flow_models import conditioning

    latent_format = model.model.latent_format
    if latent_format.latent_dimensions == 1 or layout == "ltxav":
        return  # sound, alone or beside a video
    examples = comfyui.module("nodes.comfyui.training.examples").Examples
    frames = [1] * (latent_format.latent_dimensions - 2)
    for channels in (4, latent_format.latent_channels):
        found = examples(model, [{"samples": torch.zeros(2, channels, 8, 8)}], [conditioning(layout, 1)], None)
        assert found.missing == [0, 1]
        assert found.latents[0].shape == (latent_format.latent_channels, *frames, 8, 8)
    pictures = [{"samples": torch.ones(1, latent_format.latent_channels, 8, 8)}]
    assert examples(model, pictures, [conditioning(layout, 1)], None).latents[0].shape == found.latents[0].shape


@pytest.mark.parametrize("layout", ["sd3.5"], indirect=True)
def test_latents_and_prompts_that_are_no_numbers(comfyui, model, layout):
    from flow_models import conditioning, empty_latent
    from node_training import train_on

    good, prompt = random_latent(empty_latent(layout, model)["samples"]), conditioning(layout, 1)
    with pytest.raises(ValueError, match=r"^A latent holds NaN or Inf"):
        train_on(comfyui, model, [{"samples": good * torch.nan}], [prompt])
    with pytest.raises(ValueError, match=r"^positive holds NaN or Inf"):
        train_on(comfyui, model, [{"samples": good}], [[[prompt[0][0] * torch.inf, prompt[0][1]]]])
    with pytest.raises(ValueError, match=r"^A latent has shape .+, expected \(pictures, 16, height, width\): encode"):
        train_on(comfyui, model, [{"samples": good[:, :, None]}], [prompt])


def test_windows_change_no_step_that_is_on_them(model, layout, run, sampled):
    """simple stands on the edges of four windows; the network and its sampling are as before."""
    with_windows = model_sampling(run, model)
    before, after = (m.get_model_object("model_sampling") for m in (model, with_windows))
    assert after is before
    assert torch.equal(sampled(with_windows), sampled(model))


class TestSteps:
    """On SD3.5's layout; shift 3."""

    EDGES = (1.0, 0.9, 0.75, 0.5, 0.0)

    @pytest.fixture
    def layout(self):
        return "sd3.5"

    @pytest.fixture
    def taken(self, run, layout):
        """The sigmas at which a sampler calls the model."""
        from flow_models import conditioning, empty_latent

        def sigmas(model, scheduler="simple", steps=4, sampler="euler", **inputs):
            seen = []

            def note(args):
                seen.append(float(args["sigma"][0]))
                return args["denoised"]

            model = model.clone()
            model.set_model_sampler_post_cfg_function(note, disable_cfg1_optimization=False)
            how = {
                "seed": 5,
                "steps": steps,
                "cfg": 1.0,
                "sampler_name": sampler,
                "scheduler": scheduler,
                "denoise": 1.0,
            }
            latent = {"latent_image": empty_latent(layout, model), "positive": conditioning(layout, 1)}
            run("KSampler", model=model, negative=conditioning(layout, 0), **how | latent | inputs)
            return seen

        return sigmas

    @pytest.mark.parametrize("steps", [4, 5, 6, 8, 12])
    @pytest.mark.parametrize(
        "scheduler",
        [
            "simple",
            "sgm_uniform",
            "karras",
            "exponential",
            "ddim_uniform",
            "beta",
            "normal",
            "linear_quadratic",
            "kl_optimal",
        ],
    )
    def test_every_scheduler_lands_on_the_windows(self, model, run, taken, scheduler, steps):
        sigmas = taken(model_sampling(run, model), scheduler, steps)
        assert {round(sigma, 5) for sigma in sigmas} >= set(self.EDGES[:-1])

    def test_six_steps(self, model, run, taken):
        assert taken(model_sampling(run, model), "beta", 6) == pytest.approx(
            [1, 21 / 22, 0.9, 5 / 6, 0.75, 0.5], abs=1e-6
        )
        assert taken(model, "beta", 6)[1] != pytest.approx(21 / 22, abs=1e-3)

    def test_another_shift_moves_the_steps_in_the_windows(self, model, run, taken):
        """The windows of a MODEL stay; a shift of 1 before the node gives even ones."""
        with_windows = model_sampling(run, model)
        shifted = run("ModelSamplingSD3", model=with_windows, shift=1.0)[0]
        assert {round(sigma, 5) for sigma in taken(shifted, "simple", 8)} > set(self.EDGES[:-1])
        first = run("ModelSamplingSD3", model=model, shift=1.0)[0]
        assert taken(model_sampling(run, first), "beta", 4) == pytest.approx([1, 0.75, 0.5, 0.25], abs=1e-6)

    @pytest.mark.parametrize("shift", [0.1, 2.7, 7.13, 100.0])
    def test_any_shift(self, model, run, taken, shift):
        node = run("ModelSamplingSD3", model=model, shift=shift)[0]
        expected = [shift * u / (1 + (shift - 1) * u) for u in (1, 0.75, 0.5, 0.25)]
        assert taken(model_sampling(run, node), "karras", 4) == pytest.approx(expected, abs=1e-6)

    def test_window_schedule(self, model, run):
        inputs = {"denoise": 1.0, "end": "zero", "steps_per_window": ""}
        node = model_sampling(run, model)
        assert run("PeRFlowWindowSchedule", model=node, steps=4, **inputs)[0].tolist() == pytest.approx(self.EDGES)
        (half,) = run("PeRFlowWindowSchedule", model=node, steps=2, **inputs | {"denoise": 0.5})
        assert half.tolist() == pytest.approx([0.75, 0.5, 0])
        assert run("PeRFlowSchedulePlot", model=node, sigmas=half)[0].shape == (1, 600, 800, 3)

    def test_image_to_image_starts_where_the_scheduler_does(self, model, run, taken):
        from flow_models import empty_latent

        latent = {"samples": torch.randn(empty_latent("sd3.5", model)["samples"].shape)}
        base = taken(model, steps=3, denoise=0.6, latent_image=latent)
        found = taken(model_sampling(run, model), steps=3, denoise=0.6, latent_image=latent)
        assert found[0] == pytest.approx(base[0], abs=1e-6)
        assert {0.75, 0.5} <= {round(sigma, 5) for sigma in found[1:]} | {round(found[0], 5)}

    def test_masked_and_guided(self, model, run):
        """The kept half is as given, and CFG is the base's."""
        from flow_models import conditioning, empty_latent

        shape = empty_latent("sd3.5", model)["samples"].shape
        latent, mask = {"samples": torch.randn(shape)}, torch.zeros(1, *shape[2:])
        mask[..., 2:] = 1
        how = {"seed": 5, "steps": 4, "cfg": 3.0, "sampler_name": "euler", "scheduler": "simple", "denoise": 1.0}
        how |= {"positive": conditioning("sd3.5", 1), "negative": conditioning("sd3.5", 0)}
        how["latent_image"] = latent | {"noise_mask": mask}
        found, expected = (run("KSampler", model=m, **how)[0]["samples"] for m in (model_sampling(run, model), model))
        assert torch.equal(found, expected)
        assert (found[..., :2] - latent["samples"][..., :2]).abs().max() < 1e-5

    def test_perflow_sampler_divides_steps_at_the_edges(self, model, run):
        from flow_models import conditioning, empty_latent

        seen = []
        node = model_sampling(run, model, align_steps=False)
        node.set_model_sampler_post_cfg_function(lambda args: seen.append(float(args["sigma"][0])) or args["denoised"])
        (sampler,) = run("PeRFlowSampler", solver="euler")
        noise = run("RandomNoise", noise_seed=5)[0]
        guider = run("BasicGuider", model=node, conditioning=conditioning("sd3.5", 1))[0]
        latent = empty_latent("sd3.5", model)
        sigmas = torch.tensor([1.0, 0.8, 0.0])
        run("SamplerCustomAdvanced", noise=noise, guider=guider, sampler=sampler, sigmas=sigmas, latent_image=latent)
        assert seen == pytest.approx([1, 0.9, 0.8, 0.75, 0.5], abs=1e-6)

    def test_a_lora_and_the_same_on_the_prompts(self, comfyui, model, run, sampled):
        """A LoRA hook with a delta below it."""
        from flow_models import conditioning, empty_latent

        delta, lora = (train(comfyui, "sd3.5", model, learning_rate=1e-2, seed=seed)[0] for seed in (1, 2))
        loras = comfyui.base / "models" / "loras"
        loras.mkdir(parents=True, exist_ok=True)
        shutil.copy(lora, loras / lora.name)
        accelerated = apply(run, model, delta)
        styled = run("LoraLoaderModelOnly", model=accelerated, lora_name=lora.name, strength_model=0.8)[0]
        hooks = run("CreateHookLoraModelOnly", lora_name=lora.name, strength_model=0.8)[0]
        inputs = {"strength": 1.0, "set_cond_area": "default", "hooks": hooks}
        positive, negative = conditioning("sd3.5", 1), conditioning("sd3.5", 0, tokens=3)
        pair = run("PairConditioningSetProperties", positive_NEW=positive, negative_NEW=negative, **inputs)
        how = {"seed": 5, "steps": 4, "cfg": 3.0, "sampler_name": "euler", "scheduler": "simple", "denoise": 1.0}
        how |= {"positive": pair[0], "negative": pair[1], "latent_image": empty_latent("sd3.5", model)}
        found, wanted = run("KSampler", model=accelerated, **how)[0]["samples"].flatten(), sampled(styled, cfg=3.0)
        assert (found - wanted).abs().max() < 1e-4 * wanted.std()
        assert (wanted - sampled(accelerated, cfg=3.0)).abs().max() > 1e-2 * wanted.std()

    def test_two_halves_are_one_run(self, model, run):
        from flow_models import conditioning, empty_latent

        node = model_sampling(run, model)
        (sigmas,) = run("PeRFlowWindowSchedule", model=node, steps=6, denoise=1.0, end="zero", steps_per_window="")
        guider = run("BasicGuider", model=node, conditioning=conditioning("sd3.5", 1))[0]
        (sampler,), (noise,) = run("KSamplerSelect", sampler_name="euler"), run("RandomNoise", noise_seed=5)
        (none,) = run("DisableNoise")

        def sample(noise, sigmas, latent):
            inputs = {"noise": noise, "sigmas": sigmas, "latent_image": latent}
            return run("SamplerCustomAdvanced", guider=guider, sampler=sampler, **inputs)[0]

        empty = empty_latent("sd3.5", model)
        whole = sample(noise, sigmas, empty)["samples"]
        halves = sample(none, sigmas[3:], sample(noise, sigmas[:4], empty))["samples"]
        assert (whole - halves).abs().max() < 1e-5

    def test_the_teacher_draws_what_is_missing(self, comfyui, model, core):
        """Near what many steps of stock euler make of the same noise."""
        import comfy.sample
        import comfy.samplers
        from flow_models import conditioning, empty_latent

        empty = empty_latent("sd3.5", model, batch=3)["samples"]
        empty[1] = 1.0
        with torch.inference_mode(False), torch.enable_grad():
            training = training_on(comfyui, "sd3.5", model, True, empty)
            assert training.examples.missing == [0, 2]
            with training.unet.loaded():
                for i in training.examples.missing:
                    training.draw(i)
        assert training.examples.missing == []
        curriculum = core("training.curriculum")
        noise = curriculum.normal(empty.shape[1:], [2], 1, curriculum.Purpose.SAMPLE)
        how = dict(steps=200, cfg=1.0, sampler_name="euler", scheduler="simple", latent_image=empty[:1] * 0)
        exact = comfy.sample.sample(
            model, noise, positive=conditioning("sd3.5", 3), negative=conditioning("sd3.5", 0), **how
        )
        found = model.model.process_latent_out(training.examples.latents[2][None])
        assert (found - exact).std() < 0.05 * exact.std()

    def test_a_delta_of_another_kind(self, comfyui, model, run, flow_model):
        path, _, _ = train(comfyui, "sd3.5", model)
        other = flow_model("flux")
        with pytest.raises(ValueError, match=r"is made for SD3, expected a PeRFlow delta for this Flux model: choose"):
            apply(run, other, path)

    def test_the_file_says_where_its_windows_are(self, comfyui, model, run):
        with safetensors.safe_open(train(comfyui, "sd3.5", model, windows=3)[0], framework="pt") as file:
            metadata = file.metadata()
        assert metadata["windows"] == "3"
        assert [float(edge) for edge in metadata["edges"].split(",")] == pytest.approx([1, 6 / 7, 0.6, 0], abs=1e-8)
        assert metadata["shift"] == "3"
        assert metadata["base_prediction"] == "flow"
        assert metadata["architecture"] == "SD3"

    def test_a_chosen_prediction_type_is_said_to_have_no_use(self, comfyui, model):
        from flow_models import conditioning, empty_latent
        from node_training import INPUTS

        inputs = {key: [value] for key, value in (INPUTS | {"rank": 2, "prediction_type": "ddim_eps"}).items()}
        latents, positive = [empty_latent("sd3.5", model)], [conditioning("sd3.5", 1)]
        train, extract = (comfyui.nodes[node] for node in ("PeRFlowTrainDelta", "PeRFlowExtractDelta"))
        trained = train.execute(model=[model], latents=latents, positive=positive, **inputs)
        pair = {"model_perflow": model, "model_base": model, "filename_prefix": "none", "rank": 2, "energy": 0.0}
        extracted = extract.execute(**pair, prediction_type="ddim_eps", windows=4)
        for output in (trained, extracted):
            assert "prediction_type is not used: a flow model predicts its velocity." in output.ui["text"][0]
        with safetensors.safe_open(trained.result[0], framework="pt") as file:
            assert file.metadata()["prediction_type"] == "velocity"

    def test_resumed_at_another_shift(self, comfyui, model, run):
        path, _, _ = train(comfyui, "sd3.5", model)
        other = run("ModelSamplingSD3", model=model, shift=1.0)[0]
        with pytest.raises(
            ValueError, match=r"at the sigmas 1 0.9 0.75 0.5 0, and the node has 1 0.75 0.5 0.25 0, exp"
        ):
            train(comfyui, "sd3.5", other, resume_from=path.name)
        train(comfyui, "sd3.5", model, resume_from=path.name)

    def test_windows_of_the_file_at_another_shift(self, comfyui, model, run, taken):
        path, _, _ = train(comfyui, "sd3.5", model)
        first = run("ModelSamplingSD3", model=model, shift=1.0)[0]
        assert taken(apply(run, first, path), "simple", 4) == pytest.approx(self.EDGES[:-1], abs=1e-6)
        assert taken(apply(run, first, path, windows=2), "simple", 2) == pytest.approx([1, 0.5], abs=1e-6)


class TestGuidanceAsAnInput:
    """Flux is given its guidance beside the prompt."""

    @pytest.fixture
    def layout(self):
        return "flux"

    def given(self, comfyui, model, up_to):
        """The guidance of the rows of some batches, for the teacher and for the student."""
        from flow_models import conditioning, empty_latent
        from node_training import SETTINGS

        module = comfyui.module("nodes.comfyui.training.delta_training")
        positive = [[[conditioning("flux", 1)[0][0], conditioning("flux", 1)[0][1] | {"guidance": 2.0}]]]
        latents = [{"samples": torch.randn(empty_latent("flux", model, batch=2)["samples"].shape)}]
        examples = module.Examples(model, latents, positive, None, up_to)
        settings = module.Settings(**SETTINGS | {"rank": 2, "prediction_type": "velocity", "guidance_up_to": up_to})
        training = module.DeltaTraining(model, examples, settings)
        seen = {True: [], False: []}

        def note(z, T, conditions, student):
            seen[student].append(conditions["guidance"].tolist())
            return z

        training.unet.__class__ = type("Noted", (type(training.unet),), {"__call__": lambda self, *call: note(*call)})
        for i in range(6):
            batch = training.batch(i)
            batch.student(batch.segment.x0, batch.T.float())
        return seen, examples.embedded_guidance

    def test_drawn_the_same_for_teacher_and_student(self, comfyui, model):
        with torch.inference_mode(False):
            seen, noted = self.given(comfyui, model, 6.0)
        drawn = [g for rows in seen[True] for g in rows]
        assert len(set(drawn)) > 6
        assert min(drawn) >= 2
        assert max(drawn) <= 6
        assert max(drawn) - min(drawn) > 1.5
        assert {tuple(rows) for rows in seen[True]} <= {tuple(rows) for rows in seen[False]}
        assert noted == {2.0, 6.0}

    def test_the_prompts_own(self, comfyui, model):
        with torch.inference_mode(False):
            seen, noted = self.given(comfyui, model, 0.0)
        assert {g for part in seen.values() for rows in part for g in rows} == noted == {2.0}

    def test_it_is_in_the_file(self, comfyui, model, layout):
        resumed = {}
        for up_to, said in ((0.0, "3.5"), (5.0, "3.5 to 5"), (0.0, "3.5 to 5")):  # the last goes on from the second
            path, _, _ = train(comfyui, layout, model, guidance_up_to=up_to, **resumed)
            resumed = {"resume_from": path.name} if up_to else {}
            with safetensors.safe_open(path, framework="pt") as file:
                assert file.metadata()["embedded_guidance"] == said

    @pytest.mark.parametrize(
        ("layout", "kind"), [("sd3.5", "SD3"), ("flux-schnell", "Flux"), ("hunyuan-image", "Huny")]
    )
    def test_a_model_that_takes_none(self, comfyui, layout, kind, flow_model):
        model = flow_model(layout)
        with pytest.raises(
            ValueError, match=rf"^guidance_up_to is 4, .+ \({kind}.*\) does not take guidance as an inp"
        ):
            train(comfyui, layout, model, guidance_up_to=4.0)
        with safetensors.safe_open(train(comfyui, layout, model)[0], framework="pt") as file:
            assert "embedded_guidance" not in file.metadata()

    def test_a_prompt_without_guidance(self, comfyui, model):
        """FluxDisableGuidance: it stays without, and the others' is drawn."""
        from flow_models import conditioning, empty_latent
        from node_training import train_on

        (entry,) = conditioning("flux", 1)
        latents = [{"samples": torch.randn(empty_latent("flux", model, batch=2)["samples"].shape)}]
        positive = [[entry, [entry[0], entry[1] | {"guidance": None}]]]
        path, losses, _ = train_on(comfyui, model, latents, positive, rank=2, guidance_up_to=6.0, steps=6)
        assert len(losses) == 6
        with safetensors.safe_open(path, framework="pt") as file:
            assert file.metadata()["embedded_guidance"] == "3.5 to 6"

    def test_it_draws_pictures_without_cfg(self, comfyui, model):
        from flow_models import conditioning, empty_latent
        from node_training import SETTINGS

        module = comfyui.module("nodes.comfyui.training.delta_training")
        prompts = [conditioning("flux", 1)], [conditioning("flux", 0)]
        examples = module.Examples(model, [empty_latent("flux", model)], *prompts)
        settings = module.Settings(**SETTINGS | {"rank": 2, "prediction_type": "velocity"})
        with torch.inference_mode(False):
            assert module.DeltaTraining(model, examples, settings).drawing_guidance == 1


class TestTwoExperts:
    """Two models that share the path, as Wan 2.2's do, on Wan's layout; here they are one and the same."""

    HIGH, LOW = "1, 0.95, 0.875", "0.875, 0.6, 0"

    @pytest.fixture
    def layout(self):
        return "wan2.1"

    def schedule(self, run, model, steps=2):
        inputs = {"denoise": 1.0, "end": "zero", "steps_per_window": ""}
        return run("PeRFlowWindowSchedule", model=model, steps=steps, **inputs)[0]

    def test_one_after_the_other_is_one_run(self, model, run, layout):
        from flow_models import conditioning, empty_latent

        (sampler,), (noise,) = run("KSamplerSelect", sampler_name="euler"), run("RandomNoise", noise_seed=5)
        (none,) = run("DisableNoise")

        def sample(node, noise, sigmas, latent):
            guider = run("BasicGuider", model=node, conditioning=conditioning(layout, 1))[0]
            inputs = {"noise": noise, "sigmas": sigmas, "latent_image": latent}
            return run("SamplerCustomAdvanced", guider=guider, sampler=sampler, **inputs)[0]

        empty = empty_latent(layout, model)
        both = model_sampling(run, model, edges="1, 0.95, 0.875, 0.6, 0")
        whole = sample(both, noise, self.schedule(run, both, 4), empty)["samples"]
        high, low = (model_sampling(run, model, edges=edges) for edges in (self.HIGH, self.LOW))
        assert self.schedule(run, high).tolist() == pytest.approx([1, 0.95, 0.875], abs=1e-6)
        assert self.schedule(run, low).tolist() == pytest.approx([0.875, 0.6, 0], abs=1e-6)
        first = sample(high, noise, self.schedule(run, high), empty)
        found = sample(low, none, self.schedule(run, low), first)["samples"]
        assert (found - whole).abs().max() < 1e-5 * whole.abs().max()

    def test_what_the_nodes_say(self, comfyui, model):
        inputs = {"model": model, "prediction_type": "auto", "align_steps": True}
        said = comfyui.nodes["PeRFlowModelSampling"].execute(**inputs, windows=4, edges=self.HIGH)
        assert said.ui["text"][0].splitlines()[:3] == [
            "flow, 2 windows: sigma 1 0.95 0.875",
            "This is a part of the path, and another model takes the rest: use Window Schedule for each of them.",
            "edges is used, windows (4) is not.",
        ]
        inputs = {"steps": 2, "denoise": 1.0, "end": "zero", "steps_per_window": ""}
        text = comfyui.nodes["PeRFlowWindowSchedule"].execute(said.result[0], **inputs).ui["text"][0]
        assert text == "1 | 0.95\nThe last step ends at sigma 0.875, where another model goes on."

    def test_trained_saved_applied_and_resumed(self, comfyui, model, layout, run, sampled):
        path, _, _ = train(comfyui, layout, model, edges=self.LOW, learning_rate=1e-2)
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = file.metadata()
        assert (metadata["windows"], metadata["edges"]) == ("2", "0.875,0.6,0")
        applied = apply(run, model, path)
        assert self.schedule(run, applied).tolist() == pytest.approx([0.875, 0.6, 0], abs=1e-6)
        other = apply(run, model, path, edges="0.875, 0.3, 0")
        assert self.schedule(run, other).tolist() == pytest.approx([0.875, 0.3, 0], abs=1e-6)
        train(comfyui, layout, model, edges=self.LOW, resume_from=path.name)
        for edges, found in ((self.HIGH, "1 0.95 0.875"), ("0.875, 0.5, 0", "0.875 0.5 0")):
            with pytest.raises(ValueError, match=f"at the sigmas 0.875 0.6 0, and the node has {found}, expected the"):
                train(comfyui, layout, model, edges=edges, resume_from=path.name)

    def test_extracted(self, comfyui, model, run):
        pair = {"model_perflow": model_sampling(run, model, edges=self.LOW), "model_base": model}
        how = {"filename_prefix": "part", "rank": 2, "energy": 0.0, "prediction_type": "auto", "windows": 4}
        output = comfyui.nodes["PeRFlowExtractDelta"].execute(**pair, **how)
        assert "windows (4) is not used: model_perflow has 2 windows." in output.ui["text"][0]
        with safetensors.safe_open(output.result[0], framework="pt") as file:
            assert (file.metadata()["windows"], file.metadata()["edges"]) == ("2", "0.875,0.6,0")

    def test_other_windows_than_the_files_are_said(self, comfyui, model, layout):
        path, _, _ = train(comfyui, layout, model, edges=self.LOW)
        how = {"strength": 1.0, "prediction_type": "auto", "align_steps": True, "delta_name": path.name}
        node = comfyui.nodes["PeRFlowApplyDelta"]
        said = node.execute(model, windows=4, **how)
        assert "The file was trained with other windows, sigma 0.875 0.6 0, which are not used." in said.ui["text"][0]
        again = node.execute(said.result[0], windows=0, **how)
        assert "The model before had other windows, sigma 1 0.9" in again.ui["text"][0]
        assert "other windows" not in node.execute(model, windows=0, **how).ui["text"][0]

    @pytest.mark.parametrize(
        ("edges", "inputs", "text"),
        [
            (HIGH, {}, "2 of 4 steps leave this model's part of the path (sigma 1 to 0.875)"),
            (LOW, {"start_at_step": 2}, "1 of 2 steps leave this model's part of the path (sigma 0.875 to 0)"),
            (HIGH, {"end_at_step": 2, "return_with_leftover_noise": "enable"}, None),
        ],
    )
    def test_steps_of_the_other_model_are_said(self, model, layout, run, caplog, edges, inputs, text):
        from flow_models import conditioning, empty_latent

        node = model_sampling(run, run("ModelSamplingSD3", model=model, shift=8.0)[0], edges=edges)
        prompts = {"positive": conditioning(layout, 1), "negative": conditioning(layout, 0)}
        how = {"add_noise": "enable", "noise_seed": 5, "steps": 4, "cfg": 1.0, "sampler_name": "euler"}
        how |= {"scheduler": "simple", "start_at_step": 0, "end_at_step": 4, "return_with_leftover_noise": "disable"}
        latent = empty_latent(layout, model)
        if "start_at_step" in inputs:
            latent["samples"] = torch.ones_like(latent["samples"])
        with caplog.at_level("INFO"):
            run("KSamplerAdvanced", model=node, latent_image=latent, **prompts, **how | inputs)
        said = "\n".join(record.getMessage() for record in caplog.records)
        if text:
            assert f"{text}, so the picture is rougher: use Window Schedule for each of the two models" in said
        else:
            assert "leave this" not in said

    def test_a_start_below_the_part(self, comfyui, run, model):
        high = model_sampling(run, model, edges=self.HIGH)
        inputs = {"steps": 2, "denoise": 0.3, "end": "zero", "steps_per_window": ""}
        output = comfyui.nodes["PeRFlowWindowSchedule"].execute(high, **inputs)
        assert len(output.result[0]) == 0
        assert output.ui["text"][0].startswith("No steps: this model's part of the path ends at sigma 0.875, above")
        low = model_sampling(run, model, edges=self.LOW)
        output = comfyui.nodes["PeRFlowWindowSchedule"].execute(low, **inputs | {"denoise": 0.0})
        assert output.ui["text"][0] == "No steps: with denoise 0 the latent stays as it is."

    def test_resumed_with_the_digits_that_are_shown(self, comfyui, model, layout, run):
        node = run("ModelSamplingSD3", model=model, shift=8.0)[0]
        path, _, _ = train(comfyui, layout, node, windows=3)
        again, _, _ = train(comfyui, layout, node, edges="1, 0.9412, 0.8, 0", resume_from=path.name)
        edges = []
        for file in (path, again):
            with safetensors.safe_open(file, framework="pt") as opened:
                edges.append(opened.metadata()["edges"])
        assert edges[0] == edges[1]

    def test_it_cannot_draw_pictures(self, comfyui, model, layout):
        from flow_models import conditioning, empty_latent
        from node_training import train_on

        latents = [empty_latent(layout, model)]
        with pytest.raises(ValueError, match=r"^Latent 1 is empty, .+ for the sigmas 1 to 0.875 cannot draw a whole"):
            train_on(comfyui, model, latents, [conditioning(layout, 1)], rank=2, edges=self.HIGH)

    @pytest.mark.parametrize("edges", ["1, 0.5, 0.7, 0", "1.5, 0", "high"])
    def test_edges_that_are_none(self, comfyui, model, layout, run, edges):
        for call in (
            lambda: model_sampling(run, model, edges=edges),
            lambda: train(comfyui, layout, model, edges=edges),
        ):
            with pytest.raises(ValueError, match=r"^edges is .+, expected sigmas that fall and lie between 1 and 0"):
                call()


def test_a_rectified_flow_in_a_unet(comfyui, small_unet, run):
    """A fine-tune of a Stable Diffusion UNet as a flow, with the node that says so before ours: shift 2.5."""
    from node_training import train_on

    flow = run("ModelSamplingSD3", model=small_unet, shift=2.5)[0]
    edges = [2.5 * u / (1 + 1.5 * u) for u in (1, 0.75, 0.5, 0.25, 0)]
    path, losses, _ = train_on(comfyui, flow)
    assert torch.tensor(losses).isfinite().all()
    with safetensors.safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    assert (metadata["base_prediction"], metadata["prediction_type"]) == ("flow", "velocity")
    assert [float(edge) for edge in metadata["edges"].split(",")] == pytest.approx(edges)
    inputs = {"steps": 4, "denoise": 1.0, "end": "zero", "steps_per_window": ""}
    assert run("PeRFlowWindowSchedule", model=apply(run, flow, path), **inputs)[0].tolist() == pytest.approx(edges)
    with pytest.raises(ValueError, match=r"was trained on a flow model, and this is no flow model"):
        apply(run, small_unet, path)


def test_edges_are_for_flow_models(comfyui, small_unet, run):
    from node_training import train_on

    for call in (
        lambda: model_sampling(run, small_unet, edges="1, 0.5, 0"),
        lambda: train_on(comfyui, small_unet, edges="1, 0"),
    ):
        with pytest.raises(ValueError, match=r"for a model that is not a flow model, expected none: clear edges and"):
            call()
