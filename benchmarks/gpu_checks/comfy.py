"""ComfyUI in this process as main.py starts it on a GPU, dynamic VRAM included, and what all jobs do with it."""

import importlib
import importlib.util
import tempfile
import threading
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import ModuleType
from typing import Any

REPOSITORY = Path(__file__).resolve().parents[2]


@dataclass
class Comfy:
    """The nodes, and the folder with the models."""

    nodes: Any
    folder: Path
    mode: str
    dynamic: bool  # whether dynamic VRAM is on
    loaded: dict[str, tuple[Any, ...]] = field(default_factory=dict)

    def run(self, node_id: str, **inputs: Any) -> tuple[Any, ...]:
        """A node by its id, as the executor calls it."""
        node = self.nodes[node_id]
        if hasattr(node, "define_schema"):
            return node.execute(**inputs).result
        return getattr(node(), node.FUNCTION)(**inputs)

    def checkpoint(self, size: str) -> tuple[Any, ...]:
        """MODEL, CLIP and VAE, loaded once."""
        from . import models

        if size not in self.loaded:
            self.loaded[size] = self.run("CheckpointLoaderSimple", ckpt_name=models.checkpoint_name(size))
        return self.loaded[size]

    def accelerated(self, model: Any, size: str, strength: float = 1.0, prediction: str = "auto") -> Any:
        from . import models

        inputs = dict(delta_name=models.delta_name(size), prediction_type=prediction, windows=4, align_steps=True)
        return self.run("PeRFlowApplyDelta", model=model, strength=strength, **inputs)[0]

    def sigmas(self, model: Any, steps: int) -> Any:
        inputs = dict(steps=steps, denoise=1.0, end="zero", steps_per_window="")
        return self.run("PeRFlowWindowSchedule", model=model, **inputs)[0]

    def solver(self) -> Any:
        return self.run("PeRFlowSampler", solver="euler")[0]


def files_of(folder: Path) -> Path:
    """Where the models are, and nothing else: ComfyUI looks through all of it."""
    return folder / "files"


def start(comfyui: Path, folder: Path, mode: str, arguments: Sequence[str]) -> Comfy:
    """As main.py does: dynamic VRAM, if the arguments leave it on, is prepared before torch is imported."""
    without = {"--disable-dynamic-vram", "--novram", "--cpu"} & set(arguments)
    control = None if without else dynamic_vram()
    from trial import process

    base = Path(tempfile.mkdtemp(prefix=f"{mode}-", dir=folder))
    started = process.start(comfyui, REPOSITORY, base, arguments)
    import folder_paths

    for kind in ("checkpoints", "diffusion_models", "perflow", "loras"):
        folder_paths.add_model_folder_path(kind, str(files_of(folder)))
    return Comfy(started.nodes, files_of(folder), mode, bool(control) and dynamic_vram_starts(control))


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


def synchronize() -> None:
    import torch

    if torch.cuda.is_available():
        torch.cuda.synchronize()


class Clock:
    """Seconds until the device is done, and the memory of the card that is in use meanwhile, sampled."""

    INTERVAL = 0.02

    def __enter__(self) -> "Clock":
        synchronize()
        self.before = self.peak = used()
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        self._began = time.perf_counter()
        return self

    def __exit__(self, *_: object) -> None:
        synchronize()
        self.seconds = time.perf_counter() - self._began
        self._done.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._done.wait(self.INTERVAL):
            self.peak = max(self.peak, used())


def used() -> int:
    """Bytes of the card in use, by all processes."""
    import torch

    if not torch.cuda.is_available():
        return 0
    free, total = torch.cuda.mem_get_info()
    return total - free


def nothing_loaded() -> int:
    """No model on the card; returns what is in use then."""
    import gc

    import comfy.model_management

    comfy.model_management.unload_all_models()
    gc.collect()
    comfy.model_management.soft_empty_cache()
    synchronize()
    return used()
