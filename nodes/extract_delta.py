"""Extract PeRFlow Delta: the difference of two MODELs as a file."""

import time
from math import prod
from pathlib import Path

import comfy.model_management
import comfy.utils
from comfy.model_patcher import ModelPatcher
from comfy_api.latest import io

from ..perflow_core.errors import counted
from ..perflow_core.sampling.parameterization import like_base, usual_base
from ..perflow_core.weights.extraction import Extraction, largest_names, source_dtype
from ..perflow_core.weights.unet_layout import UNetLayout
from .comfyui import node_text, shared_inputs
from .comfyui.sampling.base_sampling import prediction_of
from .comfyui.sampling.flow_windows import EDGES, PREDICTION_UNUSED, flow_base
from .comfyui.sampling.perflow_model import trained_prediction
from .comfyui.sampling.perflow_sampling import PeRFlowSampling
from .comfyui.weights.save_delta import new_delta
from .comfyui.weights.unet_weights import layout_of, patched_weight, source_name, stored_weights

COPIES = 6  # of the largest weight in float32: both weights, patches on them, and what a decomposition takes


class PeRFlowExtractDelta(io.ComfyNode):
    @classmethod
    def define_schema(cls) -> io.Schema:
        return io.Schema(
            node_id="PeRFlowExtractDelta",
            display_name="Extract PeRFlow Delta",
            category="PeRFlow",
            description="Saves the difference of two models as a delta in output/perflow, full or low-rank. A PeRFlow "
            "model minus its base gives a delta for every checkpoint of the family. LoRAs on the models are included.",
            search_aliases=["extract lora", "model difference", "make delta", "subtract"],
            inputs=[
                io.Model.Input("model_perflow", tooltip="The model with PeRFlow's weights merged in."),
                io.Model.Input("model_base", tooltip="The model that the PeRFlow model was made from."),
                shared_inputs.filename_prefix("delta"),
                io.Int.Input(
                    "rank",
                    default=0,
                    min=0,
                    max=4096,
                    tooltip="0 saves the full difference; any other number is the LoRA rank of each layer. The file is "
                    "then smaller and loads as a LoRA. 64 to 256 are usual.",
                ),
                io.Float.Input(
                    "energy",
                    default=0.0,
                    min=0.0,
                    max=1.0,
                    step=0.001,
                    tooltip="0: use rank. Otherwise each layer takes the smallest rank that keeps this share of its "
                    "difference, e.g. 0.95, and the input rank is not used.",
                ),
                shared_inputs.prediction_type(
                    auto=f"what model_perflow samples with, otherwise {shared_inputs.PUBLISHED}"
                ),
                shared_inputs.windows(" that the weights were trained with. It is written into the file."),
            ],
            outputs=[io.String.Output("path")],
            is_output_node=True,
            **node_text.shows_text(),
        )

    @classmethod
    def execute(
        cls,
        model_perflow: ModelPatcher,
        model_base: ModelPatcher,
        filename_prefix: str,
        rank: int,
        energy: float,
        prediction_type: shared_inputs.PredictionChoice,
        windows: int,
    ) -> io.NodeOutput:
        shared_inputs.check_ranges(cls, rank=rank, energy=energy, prediction_type=prediction_type, windows=windows)
        started = time.perf_counter()
        unet = layout_of(model_base)
        check_same_family(layout_of(model_perflow), unet)
        predicts, remarks = prediction_of(model_base), []
        facts: dict[str, str] = {"base_prediction": predicts} if predicts else {}
        flow = flow_base(model_base.get_model_object("model_sampling"))
        if flow:
            if prediction_type != shared_inputs.AUTO:
                remarks.append(PREDICTION_UNUSED)
            prediction_type = like_base(flow.predicts)
            chord = flow.chord(model_perflow.get_attachment(EDGES) or windows)
            own = len(chord.windows.own)
            if own != windows:
                remarks.append(f"windows ({windows}) is not used: model_perflow has {counted(own, 'window')}.")
            windows, facts = own, flow.metadata(chord)
        elif prediction_type == shared_inputs.AUTO:
            sampling = model_perflow.get_model_object("model_sampling")
            known = isinstance(sampling, PeRFlowSampling)
            prediction_type = sampling.prediction_type if known else trained_prediction(model_perflow, unet)
            if not known and predicts not in (None, usual_base(prediction_type)):
                remarks.append(
                    f"auto wrote {prediction_type}, as in the published weights, but model_base predicts {predicts}: "
                    "if this model was trained otherwise, choose its prediction_type."
                )
        with new_delta(filename_prefix, largest_names((key, len(shape)) for key, shape in unet.shapes.items())) as file:
            extraction = Extraction(rank, energy, file.add)
            extract(model_perflow, model_base, unet, extraction)
            seconds = time.perf_counter() - started
            metadata = extraction.metadata(
                prediction_type=prediction_type,
                windows=str(windows),
                architecture=unet.family,
                source=f"{source_name(model_perflow)} - {source_name(model_base)}",
                seconds=f"{seconds:.1f}",
                **facts,
            )
            path = file.finish(metadata)
        text = "\n".join([report(extraction, path, seconds), *remarks])
        return io.NodeOutput(str(path), ui=node_text.show(cls, text))


def check_same_family(perflow: UNetLayout, base: UNetLayout) -> None:
    """Raises ValueError for UNets that differ in a tensor's name or shape."""
    for key in sorted(perflow.shapes.keys() | base.shapes.keys()):
        found, expected = perflow.shapes.get(key, "missing"), base.shapes.get(key, "missing")
        if found != expected:
            raise ValueError(
                f"Tensor {key} is {found} in model_perflow and {expected} in model_base, expected two models of the "
                f"same architecture (these are {perflow.family} and {base.family}): connect the base that the PeRFlow "
                "model was made from."
            )


def extract(perflow: ModelPatcher, base: ModelPatcher, unet: UNetLayout, extraction: Extraction) -> None:
    """W_perflow - W_base, patches included, computed in float32 on the model's device, weight by weight."""
    device = perflow.load_device
    largest = max(prod(shape) for shape in unet.shapes.values())
    comfy.model_management.free_memory(COPIES * 4 * largest, device)
    stored = stored_weights(perflow)
    dtype = source_dtype(stored.values())
    bar = comfy.utils.ProgressBar(len(stored))
    for key in stored:
        comfy.model_management.throw_exception_if_processing_interrupted()
        dW = patched_weight(perflow, key, device)
        dW -= patched_weight(base, key, device)
        extraction.add(key, dW, dtype)
        bar.update(1)


def report(extraction: Extraction, path: Path, seconds: float) -> str:
    """What was kept, the layers that lost most, size and time."""
    lines = [
        f"{path.name}, {path.stat().st_size / 1e6:.0f} MB, {seconds:.0f} s",
        f"kept {100 * extraction.kept:.2f} % of the difference",
    ]
    lines += [f"{100 * share:.1f} % of {module}" for module, share in extraction.worst.items()]
    return "\n".join(lines)
