"""Models for the tests inside ComfyUI: the analytic one, and a small real UNet through the stock loaders."""

import ctypes
import gc
import sys

import pytest
import torch
from trial.small_models.flows import FLOWS

STEPS_END = {"denoise": 1.0, "end": "zero", "steps_per_window": ""}


@pytest.fixture(scope="session")
def weights(comfyui):
    """tests/support/weights.py, which imports ComfyUI."""
    import weights

    return weights


@pytest.fixture(scope="module", autouse=True)
def models_leave(comfyui):
    """ComfyUI keeps models loaded while there is room; those of all files together would need several GB."""
    yield
    import comfy.model_management

    comfy.model_management.unload_all_models()
    gc.collect()  # models and their patchers hold each other
    if sys.platform == "linux" and (trim := getattr(ctypes.CDLL(None), "malloc_trim", None)):  # glibc's, not musl's
        trim(0)  # it keeps freed memory that lies between what is in use: 3 GB after test_quantised.py


@pytest.fixture(scope="session")
def core(comfyui):
    """A module of `perflow_core` by its name, as the pack in ComfyUI has it; the importable one is another copy."""
    return lambda name: comfyui.module(f"perflow_core.{name}")


@pytest.fixture(scope="session")
def t2i(golden):
    return golden("perflow_t2i")


@pytest.fixture(scope="session")
def run(comfyui):
    """Call a node by its id as the executor does; returns its outputs."""

    def call(node_id: str, **inputs):
        node = comfyui.nodes[node_id]
        if hasattr(node, "define_schema"):
            return node.execute(**inputs).result
        return getattr(node(), node.FUNCTION)(**inputs)

    return call


@pytest.fixture
def analytic(comfyui, t2i):
    """A stock MODEL whose UNet is the analytic one."""
    from analytic_model import analytic_model

    return analytic_model(t2i)


@pytest.fixture
def perflow(analytic, run):
    """The analytic MODEL with PeRFlow sampling."""

    def make(prediction_type="diff_eps", windows=4, align_steps=True, model=analytic):
        inputs = {"prediction_type": prediction_type, "windows": windows, "align_steps": align_steps}
        return run("PeRFlowModelSampling", model=model, **inputs)[0]

    return make


@pytest.fixture(scope="session")
def schedule(run):
    """SIGMAS of the Window Schedule node."""

    def make(model, steps=4, **inputs):
        return run("PeRFlowWindowSchedule", model=model, steps=steps, **(STEPS_END | inputs))[0]

    return make


@pytest.fixture(scope="session")
def noise(t2i) -> torch.Tensor:
    return torch.tensor(t2i["x_init"]).reshape(t2i["shape"])


@pytest.fixture(scope="session")
def unet_file(comfyui):
    """A UNet of SD1.5's layout, one level of it, in models/diffusion_models."""
    from trial import small_models

    return small_models.make_unet(
        comfyui.base / "models" / "diffusion_models" / "tiny.safetensors", small_models.SD15_TINY
    )


@pytest.fixture(scope="session")
def delta_file(comfyui, unet_file):
    """A delta for it with diffusers' names, in models/perflow."""
    from trial import small_models

    return small_models.make_delta(comfyui.base / "models" / "perflow" / "tiny-delta.safetensors", unet_file)


@pytest.fixture
def small_unet(unet_file):
    """That UNet as a MODEL in float32, freshly loaded."""
    import comfy.sd

    return comfy.sd.load_diffusion_model(str(unet_file), model_options={"dtype": torch.float32})


@pytest.fixture(scope="session")
def flow_model(comfyui, comfyui_path):
    """(name in FLOWS) -> that small flow-matching model as a MODEL in float32, freshly loaded."""
    from flow_models import load
    from trial import cached_models
    from trial.small_models.tables import flow_file

    folder = cached_models.folder("flows", comfyui_path)
    return lambda name: load(name, folder / flow_file(name))


@pytest.fixture(params=FLOWS)
def layout(request, comfyui):
    """The name of each small flow-matching model that this ComfyUI knows."""
    from trial.small_models.flows import known_flows

    if request.param not in known_flows():
        pytest.skip(f"this ComfyUI is older than its support of {request.param}")
    return request.param


@pytest.fixture
def controlnet(comfyui, run):
    """(where it ends) -> conditioning with a small classic ControlNet; and the list of the timesteps that it gets."""
    import comfy.controlnet
    import torch
    from analytic_model import conditioning
    from trial import small_models

    folder = comfyui.base / "models" / "controlnet"
    control = comfy.controlnet.load_controlnet(
        str(small_models.make_controlnet(folder / "tiny.safetensors", small_models.SD15_TINY))
    )
    timesteps: list[float] = []
    control.control_model.register_forward_pre_hook(
        lambda module, args, kwargs: timesteps.append(kwargs["timesteps"][0].item()), with_kwargs=True
    )

    def controlled(end):
        prompts = {"positive": conditioning(0.1), "negative": conditioning(0.2)}
        how = {"image": torch.rand(1, 64, 64, 3), "strength": 1.0, "start_percent": 0.0, "end_percent": end}
        return run("ControlNetApplyAdvanced", control_net=control, **prompts, **how)

    return controlled, timesteps


@pytest.fixture(scope="session")
def apply_delta(run, delta_file):
    """The Apply PeRFlow Delta node with its defaults."""

    def apply(model, **inputs):
        defaults = {"strength": 1.0, "prediction_type": "auto", "windows": 0, "align_steps": True}
        return run("PeRFlowApplyDelta", model=model, **({"delta_name": delta_file.name} | defaults | inputs))[0]

    return apply


@pytest.fixture
def train(comfyui):
    """The Train PeRFlow Delta node; see `node_training.train_on`."""
    from node_training import train_on

    return lambda model, latents=None, positive=None, **inputs: train_on(comfyui, model, latents, positive, **inputs)


@pytest.fixture
def said(comfyui, monkeypatch):
    """What nodes show, as one text: recorded on its way to the page."""
    from server import PromptServer

    shown = []
    monkeypatch.setattr(PromptServer.instance, "client_id", "a page")
    monkeypatch.setattr(PromptServer.instance, "send_progress_text", lambda text, node, page: shown.append(text))
    node = comfyui.nodes["PeRFlowTrainDelta"]
    monkeypatch.setattr(node, "hidden", type("Hidden", (), {"unique_id": "1"}))
    return lambda: "\n".join(shown)
