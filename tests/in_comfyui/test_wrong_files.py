"""Whole .safetensors files that are no delta for the model: each refused in one sentence that says why."""

import pytest
from damage import Draft, as_diff, lora

TENSORS = (
    "conv_in.weight",
    "conv_in.bias",
    "time_embedding.linear_1.weight",
    "down_blocks.0.resnets.0.norm1.weight",
    "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k.weight",
    "mid_block.attentions.0.proj_in.weight",
    "up_blocks.0.resnets.1.conv_shortcut.weight",
    "conv_norm_out.weight",
    "conv_out.bias",
)
QUERY = "mid_block.attentions.0.transformer_blocks.0.attn1.to_q"
KOHYA = "lora_unet_" + QUERY.replace(".", "_")
COMFYUI = "diffusion_model.middle_block.1.transformer_blocks.0.attn1.to_q"
READS_TEXT = "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k"
WIDTHS = {"SD2.x": 1024, "SDXL": 2048}


@pytest.fixture(scope="module")
def target(comfyui, unet_file):
    from refusal import base_model

    with base_model(comfyui, unet_file) as target:
        yield target


RESHAPES = {
    "one row more": lambda shape: (shape[0] + 1, *shape[1:]),
    "one channel more": lambda shape: (*shape[:1], *(n + 1 for n in shape[1:2]), *shape[2:]) if shape[1:] else (1, 2),
    "an extra dimension": lambda shape: (*shape, 1),
    "a leading dimension": lambda shape: (1, *shape),
    "half of it": lambda shape: (shape[0] // 2, *shape[1:]),
    "reversed and one more": lambda shape: (*shape[::-1], 1),
    "a number": lambda shape: (),
    "nothing": lambda shape: (0,),
}


@pytest.mark.parametrize("reshape", RESHAPES)
@pytest.mark.parametrize("name", TENSORS)
def test_shapes(target, name, reshape):
    shape = RESHAPES[reshape](target.shapes[name])
    text = target.refusal(target.delta().with_shape(name, *shape))
    found = "x".join(map(str, shape)) or "()"
    expected = "x".join(map(str, target.shapes[name]))
    assert f"tensor {name} has shape {found}, expected {expected} as in the model" in text


@pytest.mark.parametrize("name", [name for name in TENSORS if name.endswith(".weight")])
def test_shapes_of_diffs(target, name):
    draft = target.delta().with_shape(name, *target.shapes[name], 1).with_names(as_diff)
    assert f"tensor {as_diff(name)} has shape" in target.refusal(draft)


@pytest.mark.parametrize("name", ["time_embedding.linear_1.weight", "up_blocks.0.resnets.0.conv_shortcut.weight"])
def test_transposed(target, name):
    height, width, *kernel = target.shapes[name]
    assert f"tensor {name} has shape {width}x{height}" in target.refusal(
        target.delta().with_shape(name, width, height, *kernel)
    )


def test_many_misshapen_tensors_are_counted(target):
    draft = Draft.of({name: (*shape, 1) for name, shape in target.shapes.items()})
    assert f" as in the model, and {len(target.shapes) - 1} more do not fit either: " in target.refusal(draft)


@pytest.mark.parametrize("architecture", WIDTHS)
@pytest.mark.parametrize("form", ["diffusers", "comfyui", "diff"])
def test_full_delta_of_another_architecture(target, form, architecture):
    shapes = {
        name: (320, WIDTHS[architecture]) if ".attn2.to_k." in name or ".attn2.to_v." in name else shape
        for name, shape in target.shapes.items()
    }
    rename = {"diffusers": str, "comfyui": target.names.__getitem__, "diff": as_diff}[form]
    text = target.refusal(Draft.of(shapes).with_names(rename))
    assert f"is made for {architecture}, expected a PeRFlow delta for this SD1.5 model: choose" in text


@pytest.mark.parametrize("architecture", WIDTHS)
@pytest.mark.parametrize(
    ("module", "up", "down"),
    [
        ("lora_unet_" + READS_TEXT.replace(".", "_"), "lora_up.weight", "lora_down.weight"),
        ("unet." + READS_TEXT, "lora_B.weight", "lora_A.weight"),
        (READS_TEXT.replace(".to_k", ".processor.to_k_lora"), "up.weight", "down.weight"),
        ("diffusion_model.input_blocks.1.1.transformer_blocks.0.attn2.to_k", "lora_up.weight", "lora_down.weight"),
    ],
)
def test_lora_of_another_architecture(target, module, up, down, architecture):
    draft = Draft.of(lora(module, 320, WIDTHS[architecture], up=up, down=down))
    assert f"is made for {architecture}, expected" in target.refusal(draft)
    assert target.apply(Draft.of(lora(module, 320, 768, up=up, down=down)))


@pytest.mark.parametrize(
    "names",
    [
        ("double_blocks.0.img_attn.proj.weight", "single_blocks.0.linear1.weight"),  # Flux
        ("joint_blocks.0.x_block.attn.qkv.weight", "x_embedder.proj.weight"),  # SD3
        ("transformer_blocks.0.attn1.to_q.weight", "proj_out.weight"),  # a DiT of diffusers
        ("lora_unet_double_blocks_0_img_attn_proj.lora_up.weight", "lora_unet_double_blocks_0_img_attn_proj.alpha"),
        ("controlnet_cond_embedding.conv_in.weight", "controlnet_down_blocks.0.weight"),
        ("control_model.input_hint_block.0.weight", "control_model.zero_convs.0.0.weight"),
        ("blocks.0.layer.0.SelfAttention.q.weight", "shared.weight"),  # T5
        ("motion_module.weight", "mm.down_blocks.0.motion_modules.0.proj.weight"),  # AnimateDiff
    ],
)
def test_files_of_other_families(target, names):
    text = target.refusal(Draft.of(dict.fromkeys(names, (8, 8))))
    assert f"has 2 tensors ({names[0]}, {names[1]})" in text or f"has 2 tensors ({names[1]}, {names[0]})" in text


@pytest.mark.parametrize(
    "name",
    [
        "text_model.encoder.layers.0.mlp.fc1.weight",
        "cond_stage_model.transformer.text_model.encoder.layers.0.mlp.fc1.weight",
        "conditioner.embedders.0.transformer.text_model.final_layer_norm.weight",
        "transformer.resblocks.0.attn.in_proj_weight",
    ],
)
def test_text_encoders(target, name):
    text = target.refusal(Draft.of({name: (768, 768), name + "2": (768,)}))
    assert "is a text encoder, expected a PeRFlow delta for this SD1.5 model: choose another file." in text


FULL = {
    "diffusers": lambda target: str,
    "bare": lambda target: lambda name: target.names[name].removeprefix("diffusion_model."),
    "ComfyUI": lambda target: target.names.__getitem__,
    "checkpoint": lambda target: lambda name: "model." + target.names[name],
    "diff": lambda target: lambda name: as_diff(target.names[name]),
}


@pytest.mark.parametrize("extra", [{}, {"first_stage_model.quant_conv.weight": (8, 8), "cond_stage_model.x": (1,)}])
@pytest.mark.parametrize("layout", FULL)
def test_full_models(target, layout, extra):
    """Alone, and with the VAE and text encoder of a checkpoint; its last norm is near 1."""
    draft = target.delta().filled("conv_norm_out.weight", 0.9).with_names(FULL[layout](target)).with_shapes(extra)
    assert "is a full SD1.5 model (its norm weights are near 1" in target.refusal(draft)


def test_vae(target):
    draft = Draft.of({"decoder.conv_norm_out.weight": (128,), "decoder.conv_in.weight": (512, 4, 3, 3)})
    assert "a full model of an unknown kind" in target.refusal(draft.filled("decoder.conv_norm_out.weight", 1.0))


@pytest.mark.parametrize("metadata", [None, {}, {"prediction_type": "diff_eps", "windows": "4"}])
def test_no_tensors(target, metadata):
    assert "holds no tensors, expected a PeRFlow delta" in target.refusal(Draft({}, metadata=metadata))


@pytest.mark.parametrize("name", TENSORS)
@pytest.mark.parametrize("prefix", ["", "unet.", "model."])
def test_one_weight_twice(target, name, prefix):
    """Once as diffusers calls it and once as ComfyUI does, or with two prefixes."""
    other = prefix + (name if prefix == "unet." else target.names[name])
    text = target.refusal(target.delta().with_shapes({other: target.shapes[name]}))
    assert f"holds the weight {target.names[name]} twice, as {name} and as {other}" in text.replace(
        f"as {other} and as {name}", f"as {name} and as {other}"
    )


@pytest.mark.parametrize(
    "name",
    ["conv_in.weights", "conv_in", "Conv_in.weight", "optimizer.step", "ema.decay", "model_ema.conv_in.weight", "-"],
)
@pytest.mark.parametrize("partial", [False, True])
def test_unknown_tensors(target, name, partial):
    text = target.refusal(target.delta().with_shapes({name: (4,)}), partial=partial)
    assert f"has 1 tensor ({name}), which the model does not have, expected a delta for the 142" in text


MISSING = {
    "all but one": lambda names: names[1:],
    "all but two": lambda names: names[2:],
    "the first half": lambda names: names[: len(names) // 2],
    "every other": lambda names: names[::2],
    "norms": lambda names: [name for name in names if "norm" in name],
    "biases": lambda names: [name for name in names if name.endswith("bias")],
    "attention": lambda names: [name for name in names if "attentions" in name],
    **{name: lambda names, name=name: [name] for name in TENSORS},
}


@pytest.mark.parametrize("form", ["diffusers", "diff"])
@pytest.mark.parametrize("which", MISSING)
def test_missing_tensors(target, which, form):
    missing = MISSING[which](list(target.shapes))
    draft = target.delta().without(*missing).with_names(as_diff if form == "diff" else str)
    text = target.refusal(draft)
    first = min(target.names[name] for name in missing)
    held = 142 - len(missing)
    assert f"has {held} tensor{'s' if held != 1 else ''} and lacks {len(missing)} tensor" in text
    assert first in text
    assert "turn on partial to apply what there is" in text
