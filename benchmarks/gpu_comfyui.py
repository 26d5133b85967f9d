"""ComfyUI in this process as main.py starts it on a GPU, dynamic VRAM included, and what is measured with it."""

import gc
import importlib
import importlib.util
import tempfile
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import full_size
from measuring import REPOSITORY

GB = 1e9
CHORD = {"windows": 4, "align_steps": True}


class Comfy:
    """Nodes by their ids, and the models of one folder in one memory mode; dynamic: whether dynamic VRAM is on."""

    def __init__(self, nodes: Any, folder: Path, mode: str, dynamic: bool) -> None:
        import folder_paths

        self.nodes, self.folder, self.mode, self.dynamic = nodes, folder, mode, dynamic
        self._loaded: dict[str, tuple[Any, ...]] = {}
        for kind in ("checkpoints", "diffusion_models", "perflow", "loras"):
            folder_paths.add_model_folder_path(kind, str(folder), is_default=True)

    def run(self, node_id: str, **inputs: Any) -> Any:
        """A node's first output, or all of them where there are several; called as the executor calls it."""
        node = self.nodes[node_id]
        if hasattr(node, "define_schema"):
            outputs = node.execute(**inputs).result
        else:
            outputs = getattr(node(), node.FUNCTION)(**inputs)
        return outputs[0] if len(outputs) == 1 else outputs

    def checkpoint(self, size: str) -> tuple[Any, ...]:
        """MODEL, CLIP and VAE, loaded once."""
        if size not in self._loaded:
            name = full_size.file_name(size, "checkpoint")
            self._loaded[size] = self.run("CheckpointLoaderSimple", ckpt_name=name)
        return self._loaded[size]

    def accelerated(self, model: Any, size: str, strength: float = 1.0, prediction: str = "auto") -> Any:
        inputs = dict(delta_name=full_size.file_name(size, "delta"), prediction_type=prediction, **CHORD)
        return self.run("PeRFlowApplyDelta", model=model, strength=strength, **inputs)

    def sigmas(self, model: Any, steps: int) -> Any:
        schedule = dict(steps=steps, denoise=1.0, end="zero", steps_per_window="")
        return self.run("PeRFlowWindowSchedule", model=model, **schedule)

    def solver(self) -> Any:
        return self.run("PeRFlowSampler", solver="euler")


def start(comfyui: Path, models: Path, base: Path, mode: str, arguments: Sequence[str]) -> Comfy:
    """As main.py does: dynamic VRAM, if the arguments leave it on, is prepared before torch is imported."""
    control = None if {"--disable-dynamic-vram", "--cpu"} & set(arguments) else dynamic_vram()
    from trial import process

    started = process.start(comfyui, REPOSITORY, Path(tempfile.mkdtemp(dir=base)), arguments)
    return Comfy(started.nodes, models, mode, bool(control) and dynamic_vram_starts(control))


def dynamic_vram() -> ModuleType | None:
    if importlib.util.find_spec("comfy_aimdo") is None:
        return None
    control = importlib.import_module("comfy_aimdo.control")
    return control if control.init(nvml_pressure=True) else None


def dynamic_vram_starts(control: Any) -> bool:
    import comfy.cli_args
    import comfy.memory_management
    import comfy.model_management
    import comfy.model_patcher

    headroom = int(comfy.cli_args.args.vram_headroom * 1024**3)
    if not control.init_devices((device.index, headroom) for device in comfy.model_management.get_all_torch_devices()):
        return False
    comfy.model_patcher.CoreModelPatcher = comfy.model_patcher.ModelPatcherDynamic
    comfy.memory_management.aimdo_enabled = True
    return True


def noise_and_prompts(size: str, pixels: int) -> tuple[Any, Any, Any]:
    """Noise for a picture of that side, and two made-up CONDITIONINGs of the family's width."""
    import torch

    generator = torch.Generator().manual_seed(0)

    def prompt() -> list[Any]:
        text = torch.randn(1, 77, 2048 if size == "SDXL" else 768, generator=generator)
        return [[text, {"pooled_output": torch.randn(1, 1280, generator=generator)} if size == "SDXL" else {}]]

    return torch.randn(1, 4, pixels // 8, pixels // 8, generator=generator), prompt(), prompt()


def synchronize() -> None:
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()


def used() -> int:
    """Bytes of the card in use, by all processes."""
    import torch

    if not torch.cuda.is_available():
        return 0
    free, total = torch.cuda.mem_get_info()
    return total - free


def nothing_loaded() -> int:
    """No model on the card; returns what is in use then."""
    import comfy.model_management

    comfy.model_management.unload_all_models()
    gc.collect()
    comfy.model_management.soft_empty_cache()
    synchronize()
    return used()
