"""Files that are not whole, not .safetensors, or lie about what is in them: each refused in one sentence."""

import io
import os
import pickle
import zipfile

import pytest
import torch
from damage import TORCH, lora

FIRST, MIDDLE, LAST = "time_embedding.linear_1.weight", "mid_block.resnets.0.conv1.weight", "conv_out.bias"
TENSORS = (
    "conv_in.weight",
    "conv_in.bias",
    "time_embedding.linear_2.weight",
    "down_blocks.0.resnets.0.norm1.weight",
    "down_blocks.0.attentions.0.transformer_blocks.0.attn2.to_k.weight",
    "down_blocks.0.attentions.0.transformer_blocks.0.norm3.bias",
    "mid_block.attentions.0.proj_in.weight",
    "mid_block.attentions.0.transformer_blocks.0.ff.net.0.proj.bias",
    "up_blocks.0.resnets.1.conv_shortcut.weight",
    "up_blocks.0.attentions.1.transformer_blocks.0.attn1.to_out.0.weight",
    "conv_norm_out.weight",
    "conv_out.bias",
)
NOT_FINITE = ("nan", "inf", "-inf")


@pytest.fixture(scope="module")
def target(comfyui, unet_file):
    from refusal import base_model

    with base_model(comfyui, unet_file) as target:
        yield target


def test_the_files_these_are_made_from_are_accepted(target):
    """Without damage they pass, so what is refused below is refused for its damage."""
    for draft in (target.delta(), target.delta_in_comfyui_names(), target.delta({"windows": "8"})):
        assert len(target.apply(draft).result[0].patches) == len(target.shapes)


def with_the_wrong_dtype(draft):
    header = draft.header()
    header[MIDDLE]["dtype"] = "F32"
    return header


# What safetensors finds; how it finds it is its own affair.
DAMAGE = {
    "cut in the header": lambda draft, path: os.truncate(draft.write(path), 100),
    "cut in the numbers": lambda draft, path: os.truncate(draft.write(path), path.stat().st_size // 2),
    "a header that is none": lambda draft, path: draft.write(path, b"not json at all"),
    "a length that lies": lambda draft, path: draft.write(path, length=2**63),
    "a dtype of twice the size": lambda draft, path: draft.write(path, with_the_wrong_dtype(draft)),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_files_that_are_not_whole(target, damage):
    text = target.refusal(lambda path: DAMAGE[damage](target.delta(), path))
    assert "cannot be read as .safetensors" in text
    assert text.endswith(": download it again, or make it again.")


@pytest.mark.parametrize("name", [FIRST, MIDDLE, LAST, "conv_norm_out.weight"])
@pytest.mark.parametrize("dtype", ["I8", "U8", "I16", "I32", "I64"])
def test_whole_numbers(target, dtype, name):
    """Float16 said to be int16 has the right size, and would be added as numbers in the thousands."""
    text = target.refusal(target.delta().with_dtype(name, dtype))
    assert f"tensor {name} holds whole numbers" in text


@pytest.mark.parametrize(
    "dtype", ["BOOL", "U16", "U32", "U64", "C64", "F4", "F6_E2M3", "F6_E3M2", "F8_E8M0", "F8_E4M3FNUZ"]
)
@pytest.mark.parametrize("name", ["conv_out.weight", "conv_norm_out.weight"])
def test_numbers_of_a_kind_that_no_delta_has(target, dtype, name):
    """An older safetensors does not know some of these and cannot read the file."""
    text = target.refusal(target.delta().with_dtype(name, dtype))
    assert f"holds {dtype} numbers" in text or "cannot be read as" in text


def zipped() -> bytes:
    memory = io.BytesIO()
    torch.save({"weight": torch.zeros(8)}, memory)
    assert zipfile.is_zipfile(memory)
    return memory.getvalue()


OTHER_FILES = {
    "empty": (b"", "download it again"),
    "doctype": (b"<!DOCTYPE html><html><title>Sign in</title></html>", "web page"),
    "html": (b"<HTML><body>404 Not Found</body></HTML>", "web page"),
    "html after lines": (b"\n\n   <html></html>", "web page"),
    "xml": (b'<?xml version="1.0"?><Error><Code>AccessDenied</Code></Error>', "web page"),
    "json": (b'{"error": "Access to model is restricted."}', "download it again"),
    "text": (b"Entry not found", "download it again"),
    "git-lfs pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n", "Git LFS pointer"),
    **{f"pickle {n}": (pickle.dumps({"a": list(range(99))}, n), "pickle") for n in (2, 3, 4, 5)},
    "zip": (zipped(), "pickle"),
    "gguf": (b"GGUF\x03\x00\x00\x00" + bytes(99), "download it again"),
    "gzip": (b"\x1f\x8b\x08" + bytes(99), "download it again"),
    "png": (b"\x89PNG\r\n\x1a\n" + bytes(99), "download it again"),
    "zeros": (bytes(4096), "download it again"),
    "seven zeros": (bytes(7), "download it again"),
    "eight zeros": (bytes(8), "download it again"),
    "ones": (b"\xff" * 4096, "download it again"),
}


@pytest.mark.parametrize("kind", OTHER_FILES)
def test_another_kind_of_file(target, kind):
    content, advice = OTHER_FILES[kind]
    text = target.refusal(lambda path: path.write_bytes(content))
    assert f"({len(content)} bytes) cannot be read as .safetensors" in text
    assert advice in text


@pytest.mark.parametrize("value", NOT_FINITE)
@pytest.mark.parametrize("name", TENSORS)
def test_nan_and_inf(target, name, value):
    text = target.refusal(target.delta().with_number(name, float(value)))
    assert f"tensor {name} holds NaN or Inf" in text


@pytest.mark.parametrize("value", NOT_FINITE)
@pytest.mark.parametrize("dtype", [dtype for dtype in TORCH if dtype != "F16"])
def test_nan_and_inf_of_every_precision(target, dtype, value):
    """F8_E4M3 has no infinity and keeps a NaN for it."""
    draft = target.delta().with_dtype(MIDDLE, dtype)
    assert target.apply(draft)
    assert f"tensor {MIDDLE} holds NaN or Inf" in target.refusal(draft.with_number(MIDDLE, float(value)))


@pytest.mark.parametrize("where", [0.0, 1.0])
@pytest.mark.parametrize("value", NOT_FINITE)
def test_nan_and_inf_at_the_very_ends(target, value, where):
    text = target.refusal(target.delta().with_number(MIDDLE, float(value), where))
    assert f"tensor {MIDDLE} holds NaN or Inf" in text


@pytest.mark.parametrize(
    ("dtype", "value", "strength"),
    [("F64", 1e300, 1.0), ("BF16", 3.38e38, 1.0), ("F32", 1e38, 1.0), ("F32", 3e38, 10.0), ("F16", 65000.0, 2.0)],
)
def test_finite_numbers_that_overflow(target, dtype, value, strength):
    """They would turn the latent into NaN without a word."""
    draft = target.delta().with_dtype(MIDDLE, dtype).with_number(MIDDLE, value)
    text = target.refusal(draft, strength=strength)
    assert f"tensor {MIDDLE} times strength {strength:g} reaches" in text
    assert "expected at most 65504, beyond which the model gives NaN: lower strength" in text


def test_tensors_that_partial_leaves_out_are_not_read(target):
    """Nor is what is wrong with them held against the others."""
    draft = target.delta().with_shape(MIDDLE, 1, 1).with_number(MIDDLE, float("nan"))
    assert MIDDLE in target.refusal(draft)
    patched = target.apply(draft, partial=True).result[0].patches
    assert len(patched) == len(target.shapes) - 1


@pytest.mark.parametrize("shape", [(0, 2**63), (0, 2**63 - 1), (1,) * 10000])
def test_shapes_that_no_tensor_has(target, shape):
    name = "odd" if 0 in shape else FIRST
    text = target.refusal(target.delta().with_shapes({name: shape}))
    assert f"tensor {name} has shape" in text or "cannot be read as" in text


@pytest.mark.parametrize("value", NOT_FINITE)
@pytest.mark.parametrize("part", ["lora_up.weight", "lora_down.weight", "alpha"])
def test_nan_and_inf_in_a_lora(target, part, value):
    module = "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_q"
    draft = target.delta().without(*target.shapes).with_shapes(lora(module, 320, 320) | {f"{module}.alpha": ()})
    assert target.apply(draft)
    assert f"tensor {module}.{part} holds NaN or Inf" in target.refusal(
        draft.with_number(f"{module}.{part}", float(value))
    )
