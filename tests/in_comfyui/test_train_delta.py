"""Train PeRFlow Delta on real UNets of small size: what it learns, what it writes, how it goes on."""

from pathlib import Path

import pytest
import safetensors
import torch
from node_training import LoRA, outputs_on, pictures, prompts
from safetensors.torch import load_file

PRESETS = ("SD15_TINY", "SD21_SMALL", "SDXL_SMALL")


@pytest.fixture(scope="module", autouse=True)
def quick():
    from threads import one_thread

    with one_thread():
        yield


@pytest.fixture
def sampled(run, schedule):
    """The latent of a few steps from a fixed noise, without CFG."""

    def sample(model, steps, scheduler="simple"):
        latent = {"samples": torch.zeros(2, 4, 8, 8)}
        (found,) = run(
            "KSampler", model=model, seed=3, steps=steps, cfg=1.0, sampler_name="euler", scheduler=scheduler,
            positive=prompts(0.1), negative=prompts(0.0), latent_image=latent, denoise=1.0,
        )  # fmt: skip
        return found["samples"]

    return sample


def test_it_learns_the_teachers_end_point(train, small_unet, sampled, perflow, apply_delta):
    """Two steps on two windows, from noise it never saw, come nearer to the teacher's own long path."""
    from analytic_model import relative_error

    exact = sampled(small_unet, 20)
    before = relative_error(sampled(perflow("ddim_eps", 2, model=small_unet), 2), exact)
    inputs = {"steps": 10, "learning_rate": 3e-3, "windows": 2, "solving_steps": 2, "points_per_window": 1}
    path, _, _ = train(small_unet, [{"samples": exact}], **inputs)
    after = relative_error(sampled(apply_delta(small_unet, delta_name=path.name), 2), exact)
    assert after < 0.8 * before


def test_the_model_with_the_delta(comfyui, small_unet, apply_delta, sampled, weights):
    """As Apply PeRFlow Delta gives it, so that the graph that trains samples with it in the same run."""
    before = weights.loaded(small_unet)
    path, _, _, accelerated = outputs_on(comfyui, small_unet, learning_rate=1e-2, windows=2)
    applied = apply_delta(small_unet, delta_name=Path(path).name)
    assert torch.equal(sampled(accelerated, 2), sampled(applied, 2))
    assert not torch.equal(sampled(accelerated, 2), sampled(small_unet, 2))
    after = weights.loaded(small_unet)
    assert all(torch.equal(after[key], weight) for key, weight in before.items())


@pytest.fixture(scope="module")
def trained(comfyui, unet_file):
    """(the path, the losses, the picture, the MODEL) of a short run."""
    import comfy.sd
    from node_training import train_on

    model = comfy.sd.load_diffusion_model(str(unet_file), model_options={"dtype": torch.float32})
    return *train_on(comfyui, model, steps=4), model


def test_the_file(comfyui, trained, core):
    import folder_paths

    inspect = core("weights.weights_file").inspect
    path, losses, _, _ = trained
    assert path.parent == comfyui.base / "output" / "perflow"
    assert path.name in folder_paths.get_filename_list("perflow")
    file = inspect(path)
    assert (file.kind, file.family, file.rank) == ("low-rank difference", "SD1.5", 4)
    metadata = file.metadata
    assert (metadata["format"], metadata["prediction_type"], metadata["windows"]) == ("perflow-delta", "ddim_eps", "4")
    assert (metadata["steps"], metadata["guidance"], metadata["architecture"]) == ("4", "cfg_sync", "SD1.5")
    assert metadata["base_prediction"] == "noise"
    assert (metadata["loss_weight"], metadata["pure_noise"]) == ("none", "false")
    assert metadata["source"] == "Train PeRFlow Delta on tiny.safetensors"
    assert len(losses) == 4


def test_every_layer_is_trained(trained):
    path, _, _, model = trained
    tensors = load_file(path)
    modules = dict(model.model.named_modules())
    layers = {name for name, layer in modules.items() if getattr(layer, "weight", None) is not None}
    layers = {name for name in layers if modules[name].weight.ndim > 1 and name.startswith("diffusion_model.")}
    assert {key.removesuffix(".lora_up.weight") for key in tensors if "lora_up" in key} == layers
    assert all(tensors[f"{layer}.lora_up.weight"].any() for layer in layers)


def test_apply_and_load_lora_give_what_was_trained(comfyui, run, trained, apply_delta, weights):
    """The same weights in both, and the output that the student had."""
    import shutil

    path, _, _, model = trained
    applied = apply_delta(model, delta_name=path.name)
    (comfyui.base / "models" / "loras").mkdir(parents=True, exist_ok=True)
    shutil.copy(path, comfyui.base / "models" / "loras" / "trained-lora.safetensors")
    stock = run("LoraLoaderModelOnly", model=model, lora_name="trained-lora.safetensors", strength_model=1.0)[0]
    weights.assert_same(weights.loaded(applied), weights.loaded(stock))
    lora = LoRA(load_file(path))
    base, found = weights.loaded(model), weights.loaded(applied)
    for key, weight in base.items():
        assert torch.allclose(found[key], weight + lora.change(key, weight), rtol=1e-5, atol=1e-6), key


def test_the_student_answers_as_the_merged_model(comfyui, small_unet, apply_delta, trained):
    """What the running average adds is what the file adds to the weights, convolutions with strides included."""
    import comfy.model_management
    from node_training import training_on

    path = trained[0]
    training, files = training_on(comfyui, small_unet), comfyui.module("nodes.comfyui.training.trained_files")
    files.load(training, files.read_resumed(str(path)))
    z, T = pictures()["samples"], torch.tensor([1000.0, 437.0])
    ((_, conditions),) = training.examples.conditions([0, 1], [False, False], torch.device("cpu"))
    with torch.no_grad(), training.unet.loaded(), training.average.in_place():
        student, teacher = (training.unet(z, T, conditions, student=on) for on in (True, False))
    plain = training.unet.patcher
    comfy.model_management.load_models_gpu([plain])
    with torch.no_grad():
        assert torch.equal(plain.model.apply_model(z, T, **conditions), teacher)
    merged = plain.clone()
    patches = apply_delta(small_unet, delta_name=path.name).patches
    merged.patches, merged.patches_uuid = patches, object()
    comfy.model_management.load_models_gpu([merged])
    with torch.no_grad():
        expected = merged.model.apply_model(z, T, **conditions)
    assert (student - expected).abs().max() < 0.02 * (expected - teacher).abs().max()  # the file is in float16


@pytest.mark.parametrize("preset", PRESETS)
def test_every_family(comfyui, train, apply_delta, weights, preset):
    import comfy.sd
    from trial import small_models

    folder = comfyui.base / "models" / "diffusion_models"
    config = getattr(small_models, preset)
    file = small_models.make_unet(folder / f"to-train-{preset}.safetensors", config)
    model = comfy.sd.load_diffusion_model(str(file), model_options={"dtype": torch.float32})
    before = weights.loaded(model)
    positive = prompts(0.1, width=config["context_dim"], pooled=preset == "SDXL_SMALL")
    path, losses, _ = train(model, positive=[positive], steps=1)
    assert losses[0] > 0
    weights.assert_same(weights.loaded(model), before, rtol=0, atol=0)
    accelerated = apply_delta(model, delta_name=path.name)
    assert accelerated.get_model_object("model_sampling").prediction_type == "ddim_eps"  # random weights count as noise


@pytest.mark.parametrize(("predicts", "expected"), [("v_prediction", "velocity"), ("eps", "ddim_eps")])
def test_auto_follows_what_the_model_predicts(run, train, apply_delta, small_unet, predicts, expected):
    (model,) = run("ModelSamplingDiscrete", model=small_unet, sampling=predicts, zsnr=False)
    path, _, _ = train(model, steps=1)
    accelerated = apply_delta(model, delta_name=path.name)
    assert accelerated.get_model_object("model_sampling").prediction_type == expected
    with safetensors.safe_open(str(path), framework="pt") as file:
        assert file.metadata()["base_prediction"] == ("v" if expected == "velocity" else "noise")


def test_inside_the_executors_inference_mode(comfyui, unet_file, train):
    """As the executor runs it: model loaded in inference mode; afterwards its weights are the same objects again."""
    import comfy.sd

    with torch.inference_mode():
        model = comfy.sd.load_diffusion_model(str(unet_file), model_options={"dtype": torch.float32})
        unet = model.model.diffusion_model
        before = dict(unet.named_parameters())
        assert all(weight.is_inference() for weight in before.values())
        latents, positive = [pictures()], [prompts(0.1)]
        _, losses, _ = train(model, latents, positive, steps=2)
    assert len(losses) == 2
    assert all(weight is before[name] for name, weight in unet.named_parameters())
    assert not any(layer._forward_hooks for layer in unet.modules())
    assert not any("forward" in vars(layer) for layer in unet.modules())


def test_checkpointing_changes_memory_only(train, small_unet):
    with_it, without = (train(small_unet, gradient_checkpointing=on, steps=2)[1] for on in (True, False))
    assert with_it == pytest.approx(without, rel=1e-4)


def test_a_resumed_run_is_an_uninterrupted_one(train, small_unet):
    """Bit for bit, also where it was stopped amid a round of batches; the same seed and inputs go in."""
    whole, all_losses, _ = train(small_unet, steps=4)
    first, first_losses, _ = train(small_unet, steps=2)
    second, second_losses, _ = train(small_unet, steps=2, resume_from=first.name)
    assert first_losses + second_losses == all_losses
    ours, theirs = (load_file(path.with_suffix(".state")) for path in (second, whole))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)
    assert second.name not in (first.name, whole.name)


def test_resuming_without_the_state_file(train, small_unet, said):
    first, _, _ = train(small_unet, steps=1, rank=2)
    first.with_suffix(".state").unlink()
    second, _, _ = train(small_unet, steps=1, rank=4, resume_from=first.name)
    assert f"resumed {first.name} after step 1, with its rank 2, without its .state file" in said()
    assert "1 step, 2 in all" in said()
    assert {len(tensor) for key, tensor in load_file(second).items() if "lora_down" in key} == {2}


def test_never_over_another_file(train, small_unet):
    first, _, _ = train(small_unet, steps=1, filename_prefix="numbered")
    content = first.read_bytes()
    second, _, _ = train(small_unet, steps=1, filename_prefix="numbered")
    assert first != second
    assert first.read_bytes() == content


def test_pictures_of_two_sizes_each_with_its_prompt(train, small_unet):
    latents = [pictures(1), pictures(1, size=4), pictures(2)]
    _, losses, _ = train(small_unet, latents, [prompts(0.1), prompts(0.2), prompts(0.3, 0.4)], steps=3)
    assert len(losses) == 3


def test_guidance_is_the_teachers(comfyui, small_unet):
    """eps = eps_negative + g (eps_positive - eps_negative), in the end points that are taught."""
    from node_training import training_on

    def segment(guidance, positive):
        training = training_on(comfyui, small_unet, prompts(positive), prompts(0.9), guidance=guidance)
        with training.unet.loaded():
            return training.segment(0)[1]

    one, empty, three = segment(1.0, 0.1), segment(1.0, 0.9), segment(3.0, 0.1)
    assert torch.allclose(three.eps, empty.eps + 3 * (one.eps - empty.eps), rtol=1e-3, atol=1e-4)
    assert not torch.allclose(three.eps, one.eps, rtol=1e-3, atol=1e-4)


def test_the_loss_as_picture_and_for_the_stock_plot(comfyui, trained):
    _, losses, image, _ = trained
    assert image.shape == (1, 600, 800, 3)
    assert 0 <= image.min() < image.max() <= 1
    assert len(image.reshape(-1, 3).unique(dim=0)) > 20
    history = [{step % 12: 1 / (step + 1), (step + 1) % 12: 2 / (step + 1)} for step in range(200)]
    assert comfyui.module("perflow_core.drawing.plots").draw_losses(history, 12).size == (800, 600)
    assert all(isinstance(loss, float) for loss in losses)


def test_inputs_are_lists_as_for_train_lora(comfyui):
    """So that the stock dataset nodes feed both."""
    import comfy_extras.nodes_train as stock

    (name,) = [name for name in dir(stock) if name.startswith("TrainLora")]
    theirs, ours = getattr(stock, name).GET_SCHEMA(), comfyui.nodes["PeRFlowTrainDelta"].GET_SCHEMA()
    assert ours.is_input_list
    assert theirs.is_input_list
    for key in ("model", "latents", "positive"):
        assert next(i.io_type for i in ours.inputs if i.id == key) == next(
            i.io_type for i in theirs.inputs if i.id == key
        )
    plot = stock.LossGraphNode.GET_SCHEMA()
    assert plot.inputs[0].io_type == ours.outputs[1].io_type
    later = ["resume_from", "edges", "offloading", "guidance_up_to", "start_from"]  # in the order they came
    assert [given.id for given in ours.inputs[-len(later) :]] == later
