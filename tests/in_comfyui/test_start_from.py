"""Train PeRFlow Delta that begins with a delta: what the student has of it, what is written, what is refused."""

import re

import pytest
import safetensors
import torch
from node_training import LoRA, pictures, training_on
from safetensors.torch import load_file, save_file

ALL = 1280  # a rank that leaves nothing out: no layer of the small UNet has more


@pytest.fixture(scope="module", autouse=True)
def quick():
    from threads import one_thread

    with one_thread():
        yield


@pytest.fixture
def begun(comfyui, small_unet):
    """A training that begins with a file, and what it says of it."""

    def begin(path, **settings):
        training = training_on(comfyui, small_unet, **settings)
        start = comfyui.module("nodes.comfyui.training.starting_delta").read_start(small_unet, str(path))
        return training, "\n".join(start.begin(training, training.settings.rank))

    return begin


def outputs(training):
    """Of the teacher, and of the student before its first step."""
    z, T = pictures()["samples"], torch.tensor([1000.0, 437.0])
    ((_, conditions),) = training.examples.conditions([0, 1], [False, False], torch.device("cpu"))
    with torch.inference_mode(False), torch.no_grad(), training.unet.loaded():
        return [training.unet(z, T, conditions, student=on) for on in (False, True)]


def of_the_model(training, patches):
    """The same call of the model with ComfyUI's patches."""
    import comfy.model_management

    model = training.unet.patcher.clone()
    model.weight_wrapper_patches = {}
    model.patches, model.patches_uuid = patches, object()
    comfy.model_management.load_models_gpu([model])
    z, T = pictures()["samples"], torch.tensor([1000.0, 437.0])
    ((_, conditions),) = training.examples.conditions([0, 1], [False, False], torch.device("cpu"))
    with torch.no_grad():
        found = model.model.apply_model(z, T, **conditions)
    model.detach()
    return found


def test_the_student_is_the_model_with_the_delta(begun, small_unet, apply_delta, delta_file):
    """A whole difference, norms and biases too, at a rank that keeps all of it; the teacher is as without."""
    training, said = begun(delta_file, rank=ALL)
    teacher, student = outputs(training)
    plain, expected = of_the_model(training, {}), of_the_model(training, apply_delta(small_unet).patches)
    assert (teacher - plain).abs().max() < 1e-6 * plain.abs().max()
    assert (student - expected).abs().max() < 1e-4 * (expected - plain).abs().max()
    assert said == f"begins with {delta_file.name}; this rank keeps 100 % of its energy"
    kinds = {key.rpartition(".")[2] for key in training.unet.adapters.whole}
    assert kinds == {"weight", "bias"}
    assert not {f"{name}.weight" for name in training.unet.adapters.by_name} & training.unet.adapters.whole.keys()


def test_the_first_directions(begun, delta_file, small_unet, weights):
    """Each dW becomes the nearest matrix of the rank, or nearly so, and what is said is how much is kept."""
    training, said = begun(delta_file, rank=3)
    kept = best = energy = 0.0
    for key, whole in weights.delta_of(small_unet, delta_file).items():
        adapter, dW = (
            training.unet.adapters.by_name.get(key.removesuffix(".weight")),
            whole.flatten(1 if whole.ndim > 1 else 0),
        )
        energy += (own := float(dW.double().square().sum()))
        S = torch.linalg.svdvals(dW.double())[:3] if adapter else dW.double()
        best += float(S.square().sum())
        left = dW - (adapter.up @ adapter.down.flatten(1)).detach() if adapter else torch.zeros(())
        kept += own - float(left.double().square().sum())
    assert (
        0.85 * best < kept <= 1.0001 * best
    )  # of noise, whose directions are nearly alike, the random SVD keeps least
    assert float(re.search(r"keeps ([\d.]+) %", said)[1]) == pytest.approx(100 * kept / energy, rel=0.01)


def test_directions_that_the_file_does_not_have_are_trained_too(begun, train, small_unet, apply_delta):
    """A file of rank 2 in adapters of rank 4: the student is the same, and the other two directions have a gradient."""
    path, _, _ = train(small_unet, steps=1, rank=2, learning_rate=1e-2)
    training, _ = begun(path, rank=4)
    _, student = outputs(training)
    plain, expected = (
        of_the_model(training, {}),
        of_the_model(training, apply_delta(small_unet, delta_name=path.name).patches),
    )
    assert (student - expected).abs().max() < 1e-3 * (expected - plain).abs().max()
    adapters = training.unet.adapters.by_name.values()
    assert all(
        not adapter.up[:, 2:].any() and adapter.down[2:].abs().min() > 0
        for adapter in adapters
        if len(adapter.down) > 2
    )
    assert sum(len(adapter.down) > 2 for adapter in adapters) > 20


def test_a_training_from_a_delta(train, small_unet, apply_delta, delta_file, said, run, comfyui, weights):
    """What is written is the whole of the new delta, for Apply and for the stock LoRA loader, and says its start."""
    import shutil

    path, _, _ = train(small_unet, steps=1, rank=8, learning_rate=1e-7, start_from=delta_file.name)
    assert f"begins with {delta_file.name}" in said()
    with safetensors.safe_open(str(path), framework="pt") as file:
        assert file.metadata()["started_from"] == delta_file.name
        assert file.metadata()["steps"] == "1"
    found = weights.loaded(apply_delta(small_unet, delta_name=path.name))
    base, dW, lora = weights.loaded(small_unet), weights.delta_of(small_unet, delta_file), LoRA(load_file(path))
    for key, weight in base.items():
        change = lora.change(key, weight)
        expected = change if change.any() else dW[key]  # of norms and biases all of it
        assert (found[key] - weight - expected).abs().max() <= 0.01 * expected.abs().max() + 1e-6, key
    folder = comfyui.base / "models" / "loras"
    folder.mkdir(parents=True, exist_ok=True)
    shutil.copy(path, folder / "begun.safetensors")
    (stock,) = run("LoraLoaderModelOnly", model=small_unet, lora_name="begun.safetensors", strength_model=1.0)
    weights.assert_same(found, weights.loaded(stock))


def test_auto_takes_the_prediction_type_that_the_weights_have(train, small_unet, delta_file):
    """That file says nothing, and the published SD1.5 weights, which do not either, are diff_eps."""
    path, _, _ = train(small_unet, steps=1, start_from=delta_file.name)
    with safetensors.safe_open(str(path), framework="pt") as file:
        assert file.metadata()["prediction_type"] == "diff_eps"


def test_a_resumed_run_is_an_uninterrupted_one(train, small_unet, delta_file):
    whole, all_losses, _ = train(small_unet, steps=2, start_from=delta_file.name)
    first, losses, _ = train(small_unet, steps=1, start_from=delta_file.name)
    second, later, _ = train(small_unet, steps=1, resume_from=first.name)
    assert losses + later == all_losses
    ours, theirs = (load_file(path.with_suffix(".state")) for path in (second, whole))
    assert ours.keys() == theirs.keys()
    assert any(key.endswith(".diff_b") for key in ours)
    assert all(torch.equal(ours[key], theirs[key]) for key in theirs)
    with safetensors.safe_open(str(second), framework="pt") as file:
        assert file.metadata()["started_from"] == delta_file.name


@pytest.fixture
def other_file(delta_file):
    """The delta with other metadata or numbers."""

    def write(name, metadata=None, change=None):
        tensors = load_file(delta_file)
        if change:
            change(next(iter(tensors.values())))
        save_file(tensors, path := delta_file.parent / name, metadata)
        return path.name

    return write


@pytest.mark.parametrize(
    ("metadata", "problem"),
    [
        ({"windows": "2"}, r"trained with windows 2, and the node says 4.+start_from none"),
        ({"prediction_type": "ddim_eps"}, r"prediction_type ddim_eps, and the node says diff_eps.+start_from none"),
        ({"base_prediction": "v"}, r"made for models that predict v, and this one predicts noise"),
        ({"base_prediction": "flow"}, r"was trained on a flow model, and this is no flow model"),
    ],
)  # fmt: skip
def test_a_delta_of_another_kind(train, small_unet, other_file, metadata, problem):
    name = other_file(f"kind-{len(problem)}.safetensors", metadata)
    with pytest.raises(ValueError, match=problem):
        train(small_unet, steps=1, start_from=name, prediction_type="diff_eps")


def test_nan(train, small_unet, other_file):
    name = other_file("nan.safetensors", change=lambda tensor: tensor.view(-1)[:1].fill_(float("nan")))
    with pytest.raises(ValueError, match="holds NaN or Inf"):
        train(small_unet, steps=1, start_from=name)


def test_another_architecture(comfyui, train, small_unet):
    from trial import small_models

    folder = comfyui.base / "models"
    other = small_models.make_unet(folder / "diffusion_models" / "other.safetensors", small_models.SD21_SMALL)
    delta = small_models.make_delta(folder / "perflow" / "other-delta.safetensors", other)
    with pytest.raises(ValueError, match=r"other-delta\.safetensors is made for SD2\.x, expected .+ SD1\.5"):
        train(small_unet, steps=1, start_from=delta.name)


def test_two_files_to_begin_with(train, small_unet, delta_file):
    first, _, _ = train(small_unet, steps=1, rank=2)
    with pytest.raises(ValueError, match=r"resume_from is .+ and start_from is tiny-delta\.safetensors"):
        train(small_unet, steps=1, resume_from=first.name, start_from=delta_file.name)


def test_another_guidance_is_said(train, small_unet, other_file, said):
    name = other_file("guided.safetensors", {"guidance": "2.5"})
    train(small_unet, steps=1, start_from=name)
    assert "It had learned CFG 2.5, and this training teaches none." in said()


@pytest.mark.parametrize("layout", ["sd3.5", "flux"], indirect=True)
def test_a_flow_model(comfyui, layout, flow_model, run):
    """From a delta of its own, whose adapters it takes over."""
    from flow_models import conditioning, empty_latent
    from node_training import train_on

    model = flow_model(layout)
    latents = [{"samples": torch.randn(empty_latent(layout, model)["samples"].shape)}]
    first, _, _ = train_on(comfyui, model, latents, [conditioning(layout, 1)], steps=1, learning_rate=1e-2, rank=2)
    second, _, _ = train_on(
        comfyui, model, latents, [conditioning(layout, 1)], steps=1, learning_rate=1e-7, rank=2, start_from=first.name
    )
    ours, theirs = load_file(second), load_file(first)
    assert ours.keys() == theirs.keys()
    for name in [key for key in theirs if key.endswith("lora_up.weight")]:
        down = name.replace("lora_up", "lora_down")
        found, expected = (file[name].flatten(1) @ file[down].flatten(1) for file in (ours, theirs))
        assert (found - expected).abs().max() <= 0.01 * expected.abs().max() + 1e-6, name
    with pytest.raises(ValueError, match=r"trained with windows 4, and the node says 2"):
        train_on(comfyui, model, latents, [conditioning(layout, 1)], steps=1, windows=2, start_from=first.name)
