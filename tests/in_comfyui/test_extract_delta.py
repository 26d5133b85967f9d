"""Extract PeRFlow Delta on real UNets, and the way back through Apply, the stock LoRA loaders and ModelSave."""

from pathlib import Path

import pytest
import torch

DEFAULTS = {"filename_prefix": "delta", "rank": 0, "energy": 0.0, "prediction_type": "auto", "windows": 4}


@pytest.fixture
def extract(run):
    def call(perflow, base, **inputs):
        (path,) = run("PeRFlowExtractDelta", model_perflow=perflow, model_base=base, **(DEFAULTS | inputs))
        return Path(path)

    return call


@pytest.fixture
def merged(comfyui, unet_file, small_unet, apply_delta):
    """The small UNet with its delta, as a MODEL with patches."""
    return apply_delta(small_unet)


def test_full_delta_gives_the_merged_model_back(comfyui, small_unet, merged, extract, apply_delta, weights):
    import folder_paths

    path = extract(merged, small_unet)
    assert path.parent == comfyui.base / "output" / "perflow"
    assert path.name in folder_paths.get_filename_list("perflow")
    expected = weights.loaded(merged)
    again = apply_delta(small_unet, delta_name=path.name)
    weights.assert_same(weights.loaded(again), expected)
    assert again.get_model_object("model_sampling").prediction_type == "diff_eps"


def test_low_rank_delta_in_the_stock_lora_loader(comfyui, run, small_unet, merged, extract, apply_delta, weights):
    """It gives the same weights there as here."""
    import shutil

    path = extract(merged, small_unet, rank=32)
    (comfyui.base / "models" / "loras").mkdir(parents=True, exist_ok=True)
    shutil.copy(path, comfyui.base / "models" / "loras" / "perflow-lora.safetensors")
    stock = run("LoraLoaderModelOnly", model=small_unet, lora_name="perflow-lora.safetensors", strength_model=1.0)[0]
    expected = weights.loaded(stock)
    weights.assert_same(weights.loaded(apply_delta(small_unet, delta_name=path.name)), expected)
    base, full = weights.loaded(small_unet), weights.loaded(merged)
    changed = [key for key in base if not torch.equal(base[key], expected[key])]
    assert len(changed) == len(base)
    lost = sum((full[key] - expected[key]).square().sum() for key in base)
    energy = sum((full[key] - base[key]).square().sum() for key in base)
    assert 0 < lost < energy


def test_metadata(small_unet, merged, extract, core):
    inspect = core("weights.weights_file").inspect
    file = inspect(extract(merged, small_unet, rank=8, windows=8, filename_prefix="said/by-node"))
    assert file.kind == "low-rank difference"
    assert file.rank == 8
    said = file.metadata
    assert (said["format"], said["windows"], said["prediction_type"]) == ("perflow-delta", "8", "diff_eps")
    assert (said["architecture"], said["rank"]) == ("SD1.5", "8")
    assert said["source"] == "tiny.safetensors - tiny.safetensors"
    assert 0 < float(said["energy_kept"]) < 1


def test_energy(small_unet, merged, extract, core):
    inspect = core("weights.weights_file").inspect
    file = inspect(extract(merged, small_unet, energy=0.6))
    assert float(file.metadata["energy_kept"]) >= 0.6


def test_loras_on_the_models_count(comfyui, run, unet_file, small_unet, extract, apply_delta, weights):
    from trial import small_models

    lora = small_models.make_lora(comfyui.base / "models" / "loras" / "counted.safetensors", unet_file)
    styled = run("LoraLoaderModelOnly", model=small_unet, lora_name=lora.name, strength_model=0.7)[0]
    path = extract(styled, small_unet)
    base, expected = weights.loaded(small_unet), weights.loaded(styled)
    found = weights.loaded(apply_delta(small_unet, delta_name=path.name))
    for key, weight in expected.items():  # the file is float16, as the model's is
        assert ((found[key] - weight).abs() <= 6e-4 * (weight - base[key]).abs() + 1e-7).all(), key


def test_never_over_another_file(small_unet, merged, extract):
    first = extract(merged, small_unet, filename_prefix="numbered")
    content = first.read_bytes()
    second = extract(merged, small_unet, filename_prefix="numbered")
    assert first != second
    assert first.read_bytes() == content


@pytest.fixture
def save(comfyui, monkeypatch):
    """Save a delta of one number under a prefix; a loop that asks ComfyUI for a number for ever is ended."""
    import folder_paths

    asked = folder_paths.get_save_image_path
    calls = []

    def once(*args, **kwargs):
        calls.append(args)
        assert len(calls) < 10, "asks for ever"
        return asked(*args, **kwargs)

    monkeypatch.setattr(folder_paths, "get_save_image_path", once)
    return lambda prefix: comfyui.module("nodes.comfyui.weights.save_delta").save_delta(
        {"a": torch.ones(1)}, prefix, {}
    )


@pytest.mark.parametrize(
    ("prefix", "folder"),
    [("delta/", "delta"), ("a/b/", "a/b"), ("", ""), ("  ", ""), (".", ""), ("a/.", "a"), ("a/..", ""), ("./", "")],
)
def test_a_prefix_that_names_a_folder_gets_a_file_in_it(comfyui, save, prefix, folder):
    """Every time another one."""
    paths = [save(prefix) for _ in range(3)]
    numbers = [int(path.name.removeprefix("delta_").removesuffix("_.safetensors")) for path in paths]
    assert numbers == [numbers[0] + i for i in range(3)]
    assert {path.parent.resolve() for path in paths} == {(comfyui.base / "output" / "perflow" / folder).resolve()}


def test_a_number_that_is_taken_under_another_spelling(comfyui, save, monkeypatch):
    """Where case does not count, Delta_00001_ is delta_00001_, and ComfyUI counts from 1 again and again."""
    import folder_paths

    first = save("spelled")
    found = (str(first.parent), "spelled", 1, "", "spelled")
    monkeypatch.setattr(folder_paths, "get_save_image_path", lambda *_: found)
    assert [save("Spelled").name for _ in range(2)] == ["spelled_00002_.safetensors", "spelled_00003_.safetensors"]


@pytest.mark.parametrize("prefix", ["../delta", "/delta", "a/../../delta", "a\x00b", "a\nb", "../perflow-else/x"])
def test_a_prefix_that_leads_elsewhere(save, prefix):
    with pytest.raises(
        ValueError, match=r"^filename_prefix is '[ -~]+', expected a file name, or folders .*: choose one such"
    ):
        save(prefix)


def test_errors_of_writing_are_one_sentence(comfyui, save):
    folder = comfyui.base / "output" / "perflow"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "in-the-way").write_bytes(b"")
    with pytest.raises(
        OSError, match=r"^n+\.\.\. \(\d+ letters\) cannot be written .* too long\), .*: choose a shorter name\.$"
    ):
        save("n" * 300)
    with pytest.raises(OSError, match=r"^delta cannot be written to [^\n]*in-the-way \([^\n]*\), expected [^\n]+\.$"):
        save("in-the-way/delta")


def test_a_full_disk_is_one_sentence(comfyui, save):
    """Simulated by a limit on the size of files, at which the system refuses to write as well."""
    resource = pytest.importorskip("resource", reason="Windows has no such limit")
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    folder = comfyui.base / "output" / "perflow" / "full"
    resource.setrlimit(resource.RLIMIT_FSIZE, (10, before[1]))
    try:
        with pytest.raises(
            OSError, match=r"^delta_00001_\.safetensors cannot be written .*: this disk takes no files of"
        ):
            save("full/")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert list(folder.iterdir()) == []


@pytest.fixture
def interrupted(comfyui):
    """Somebody pressed Cancel; whatever becomes of that, the next test does not see it."""
    import comfy.model_management

    comfy.model_management.interrupt_current_processing()
    yield comfy.model_management.InterruptProcessingException
    comfy.model_management.interrupt_current_processing(False)


def test_interrupt_leaves_nothing(comfyui, small_unet, merged, extract, interrupted):
    folder = comfyui.base / "output" / "perflow"
    before = set(folder.rglob("*")) if folder.exists() else set()
    with pytest.raises(interrupted):
        extract(merged, small_unet)
    assert (set(folder.rglob("*")) if folder.exists() else set()) == before


def test_memory_is_asked_for_and_no_tensor_is_held(comfyui, small_unet, merged, extract, monkeypatch):
    """Room for the largest weight is made on the device first; the file grows while the difference is taken."""
    import comfy.model_management
    from safetensors import safe_open

    asked, sizes = [], []
    free_memory = comfy.model_management.free_memory
    monkeypatch.setattr(
        comfy.model_management, "free_memory", lambda *args: (asked.append(args), free_memory(*args))[1]
    )
    folder = comfyui.base / "output" / "perflow"
    interrupted = comfy.model_management.throw_exception_if_processing_interrupted

    def look():
        interrupted()
        sizes.extend(file.stat().st_size for file in folder.glob("grows_*.unfinished"))

    monkeypatch.setattr(comfy.model_management, "throw_exception_if_processing_interrupted", look)
    path = extract(merged, small_unet, filename_prefix="grows")
    ((needed, device),) = asked
    largest = max(weight.numel() for weight in small_unet.model_state_dict("diffusion_model.").values())
    assert device == merged.load_device
    assert needed >= 4 * 4 * largest
    with safe_open(str(path), framework="pt") as file:
        assert len(sizes) == len(file.keys())
    assert sizes == sorted(sizes)
    assert sizes[0] < 0.1 * path.stat().st_size < 0.8 * path.stat().st_size < sizes[-1]


def test_models_of_two_architectures_are_told(comfyui, small_unet, merged, extract):
    import comfy.sd
    from trial import small_models

    sd21 = small_models.make_unet(comfyui.base / "other-sd21.safetensors", small_models.SD21_SMALL)
    with pytest.raises(
        ValueError, match=r"expected two models of the same architecture \(these are SD1\.5 and SD2\.x\)"
    ):
        extract(merged, comfy.sd.load_diffusion_model(str(sd21)))


def test_models_given_are_not_changed(small_unet, merged, extract, weights):
    before = weights.loaded(small_unet)
    extract(merged, small_unet, rank=4)
    weights.assert_same(weights.loaded(small_unet), before, rtol=0, atol=0)


def test_saved_by_model_save_and_loaded_again(comfyui, run, small_unet, merged, perflow, schedule, weights):
    """The accelerated model kept for good: the stock ModelSave, then Model Sampling PeRFlow."""
    import comfy.sample
    import comfy.samplers
    import comfy.sd
    from analytic_model import conditioning

    run("ModelSave", model=merged, filename_prefix="diffusion_models/kept")
    (file,) = (comfyui.base / "output" / "diffusion_models").glob("kept*.safetensors")
    again = comfy.sd.load_diffusion_model(str(file), model_options={"dtype": torch.float32})
    weights.assert_same(weights.loaded(again), weights.loaded(merged))
    noise = torch.randn(1, 4, 8, 8, generator=torch.Generator().manual_seed(0))

    def sample(model):
        euler = comfy.samplers.sampler_object("euler")
        latent = torch.zeros_like(noise)
        prompts = conditioning(0.1), conditioning(0.2)
        return comfy.sample.sample_custom(
            model, noise, 2.0, euler, schedule(model), *prompts, latent, disable_pbar=True
        )

    assert torch.allclose(sample(perflow("auto", model=again)), sample(merged), rtol=1e-4, atol=1e-4)
