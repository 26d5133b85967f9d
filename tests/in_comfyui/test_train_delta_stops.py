"""Train PeRFlow Delta when it ends early, and when it is given what it cannot use: one sentence, nothing lost."""

import re
import sys

import pytest
import safetensors
import torch
from node_training import pictures, prompts
from safetensors.torch import load_file

SENTENCE = r"[^\n]*, expected [^\n]+: [^\n]+\."  # what was found, what was expected, what to do


@pytest.fixture(scope="module", autouse=True)
def quick():
    from threads import one_thread

    with one_thread():
        yield


@pytest.fixture
def written(comfyui):
    """The files that came since, below output/perflow."""
    folder = comfyui.base / "output" / "perflow"
    before = set(folder.rglob("*")) if folder.exists() else set()
    return lambda: sorted(set(folder.rglob("*")) - before) if folder.exists() else []


@pytest.fixture
def after_step(comfyui):
    """Do something when the progress bar has come so far."""
    import comfy.utils

    before = comfy.utils.PROGRESS_BAR_HOOK

    def at(step, action):
        def hook(value, total, preview, node_id=None):
            if value == step:
                action()

        comfy.utils.set_progress_bar_global_hook(hook)

    yield at
    comfy.utils.set_progress_bar_global_hook(before)


def steps_of(path) -> str:
    with safetensors.safe_open(str(path), framework="pt") as file:
        return file.metadata()["steps"]


@pytest.mark.parametrize("kind", [IndexError, ValueError, OSError])
def test_any_error_keeps_what_was_trained(small_unet, train, written, after_step, kind):
    def fail():
        raise kind("of another's code")

    after_step(2, fail)
    with pytest.raises(
        (RuntimeError, ValueError), match=r"of another's code\. What was trained until then is in .+\.saf"
    ):
        train(small_unet, steps=50)
    delta, _ = written()
    assert steps_of(delta) == "2"


def test_interrupt_keeps_what_was_trained(comfyui, small_unet, train, written, after_step, said, weights):
    import comfy.model_management

    before = weights.loaded(small_unet)
    after_step(1, comfy.model_management.interrupt_current_processing)
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        train(small_unet, steps=50)
    path, state = written()
    assert (path.suffix, state.suffix, steps_of(path)) == (".safetensors", ".state", "1")
    assert f"Interrupted after step 1. What was trained until then is in {path}." in said()
    weights.assert_same(weights.loaded(small_unet), before, rtol=0, atol=0)
    _, losses, _ = train(small_unet, steps=1, resume_from=path.name)
    assert len(losses) == 1


def test_interrupt_before_the_first_step_leaves_nothing(comfyui, small_unet, train, written, said):
    import comfy.model_management

    comfy.model_management.interrupt_current_processing()
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        train(small_unet)
    assert not written()
    assert "Interrupted before the first step. Nothing was written." in said()


def test_interrupt_is_seen_between_the_teachers_calls(small_unet, train, written):
    """Not only by layers that look at the flag themselves, which compiled ones do not."""
    import comfy.model_management

    begun, unet = [], small_unet.model.diffusion_model
    handles = [
        unet.register_forward_pre_hook(lambda *_: begun.append(True)),
        unet.register_forward_hook(lambda *_: comfy.model_management.interrupt_current_processing()),
    ]
    with pytest.raises(comfy.model_management.InterruptProcessingException):
        train(small_unet, solving_steps=20)
    for handle in handles:
        handle.remove()
    assert len(begun) == 1
    assert not written()


OF_GPUS = getattr(torch, "AcceleratorError", torch.OutOfMemoryError)  # what newer torch raises for a lost GPU, too


@pytest.mark.parametrize(
    ("error", "known"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB."), True),
        (OF_GPUS("CUDA error: out of memory"), True),
        (RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 20 bytes."), False),
    ],
)
def test_comfyui_knows_a_gpu_out_of_memory(small_unet, train, written, error, known):
    """So that it unloads its models; a step that went well before is kept all the same."""
    import comfy.model_management

    students, unet = [], small_unet.model.diffusion_model

    def fail(*_):
        students.extend([True] * torch.is_grad_enabled())
        if len(students) == 2:
            raise error

    handle = unet.register_forward_pre_hook(fail)
    with pytest.raises(RuntimeError, match=r"What was trained until then is in [^\n]+\.$") as caught:
        train(small_unet, steps=50, gradient_checkpointing=False)
    handle.remove()
    assert isinstance(caught.value, comfy.model_management.OOM_EXCEPTION) is known
    assert "Out of memory with batch_size 2" in str(caught.value)
    assert len(written()) == 2


def test_nan_stops_and_the_last_good_state_is_kept(small_unet, train, written):
    """One prompt of two is damaged; the step that meets it is named, the steps before it are in the file."""
    damaged = [prompts(0.1, 1e37)]  # finite, but not what the network makes of it
    with pytest.raises(RuntimeError, match=SENTENCE) as caught:
        train(small_unet, positive=damaged, batch_size=1, steps=30, seed=2)
    (step,) = re.findall(r"The loss became NaN or Inf in training step (\d+), expected", str(caught.value))
    assert int(step) > 1
    path, state = written()
    assert str(path) in str(caught.value)
    assert steps_of(path) == str(int(step) - 1)
    assert all(tensor.isfinite().all() for file in (path, state) for tensor in load_file(file).values())


@pytest.mark.skipif(sys.platform != "linux", reason="the limit on memory is Linux's")
def test_out_of_memory_says_what_to_lower(small_unet, train, written):
    import resource
    from pathlib import Path

    train(small_unet, steps=1)  # what is loaded once is not counted
    size = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (size + 100_000_000, before[1]))
    try:
        with pytest.raises(RuntimeError, match=SENTENCE) as caught:
            train(small_unet, [pictures(1, size=64)], batch_size=32, steps=1, gradient_checkpointing=False)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
    assert "Out of memory with batch_size 32, latents of 64x64, rank 4 and gradient_checkpointing off" in str(
        caught.value
    )
    assert "turn on gradient_checkpointing, or lower batch_size" in str(caught.value)
    assert len(written()) == 2  # of the run before


def test_a_full_disk_is_told_at_the_start(comfyui, small_unet, train, written, monkeypatch):
    import shutil

    monkeypatch.setattr(shutil, "disk_usage", lambda path: type("Usage", (), {"free": 1_000_000}))
    with pytest.raises(OSError, match=r"1 MB free, expected at least \d+ MB for the delta and its state: free"):
        train(small_unet)
    assert not written()


def refuses(train, model, match, latents=None, positive=None, **inputs):
    with pytest.raises(ValueError, match=match) as caught:
        train(model, latents, positive, **inputs)
    assert re.fullmatch(SENTENCE, str(caught.value))


def test_a_model_that_is_fast_already(small_unet, train, perflow):
    refuses(train, perflow(model=small_unet), "has PeRFlow's sampling already")


def test_no_pictures(small_unet, train):
    """The model draws those of empty latents itself."""
    path, losses, _ = train(small_unet, [{"samples": torch.zeros(1, 4, 8, 8)}])
    assert path.exists()
    assert all(0 < loss < 100 for loss in losses)
    refuses(train, small_unet, r"shape \(2, 16, 8, 8\)", [pictures(channels=16)])


def test_prompts_that_do_not_go_with_the_pictures(small_unet, train):
    refuses(train, small_unet, "positive has 3 prompts for 2 pictures", positive=[prompts(0.1, 0.2, 0.3)])
    refuses(train, small_unet, "negative has 3 prompts for 2 pictures", negative=[prompts(0.1, 0.2, 0.3)])
    masked = [[prompts(0.1)[0][0], {"mask": torch.ones(1, 8, 8)}]]
    refuses(train, small_unet, "positive carries mask, expected prompts alone", positive=[masked])


def test_settings_that_do_not_go_together(small_unet, train, delta_file):
    refuses(train, small_unet, "guidance is 7.5 and negative is not connected", guidance=7.5)
    refuses(train, small_unet, "250 points in each of 5 windows", points_per_window=250, windows=5)
    refuses(train, small_unet, "does not say how many steps", resume_from=delta_file.name)
    path, _, _ = train(small_unet, steps=1)
    refuses(train, small_unet, "was trained with windows 4, and the node says 2", windows=2, resume_from=path.name)
    chosen = {"prediction_type": "velocity", "resume_from": path.name}
    refuses(train, small_unet, "prediction_type ddim_eps, and the node says velocity", **chosen)


def test_a_delta_of_another_model_is_not_gone_on_with(comfyui, small_unet, train):
    import comfy.sd
    from trial import small_models

    path, _, _ = train(small_unet, steps=1)
    file = small_models.make_unet(comfyui.base / "another.safetensors", small_models.SD15_SMALL)
    larger = comfy.sd.load_diffusion_model(str(file), model_options={"dtype": torch.float32})
    refuses(train, larger, "does not fit the layers", resume_from=path.name)
