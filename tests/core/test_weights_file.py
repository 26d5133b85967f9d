"""What a weights file is, from its header."""

import pytest
import torch
from safetensors.torch import save_file

from perflow_core.errors import shown
from perflow_core.weights.weights_file import WeightsFileError, inspect

UNET = {"down_blocks.0.attn2.to_k.weight": torch.zeros(8, 768), "conv_norm_out.weight": torch.zeros(4)}


@pytest.fixture
def inspected(tmp_path):
    def write(state, metadata=None):
        save_file(state, str(tmp_path / "file.safetensors"), metadata)
        return inspect(tmp_path / "file.safetensors")

    return write


@pytest.mark.parametrize(
    ("state", "kind", "lora_keys", "family"),
    [
        (UNET, "difference", False, "SD1.5"),
        (UNET | {"conv_norm_out.weight": torch.ones(4)}, "full model", False, "SD1.5"),
        ({"input_blocks.1.1.attn2.to_k.weight": torch.zeros(8, 1024)}, "unknown", False, "SD2.x"),
        (
            {"diffusion_model.input_blocks.1.1.attn2.to_k.diff": torch.zeros(8, 2048)},
            "difference", True, "SDXL",
        ),
        (
            {"lora_unet_down_blocks_0_attn2_to_k.lora_down.weight": torch.zeros(16, 768)},
            "low-rank difference", True, "SD1.5",
        ),
        ({"text_model.encoder.layers.0.mlp.fc1.weight": torch.zeros(4, 4)}, "text encoder", False, "unknown"),
        ({"anything": torch.zeros(1)}, "unknown", False, "unknown"),
    ],
)  # fmt: skip
def test_kinds(inspected, state, kind, lora_keys, family):
    found = inspected(state)
    assert (found.kind, found.has_lora_keys, found.family) == (kind, lora_keys, family)


def test_output_projection_is_not_the_last_norm(inspected):
    """to_out.0.weight ends like out.0.weight."""
    state = {"input_blocks.1.1.attn1.to_out.0.weight": torch.full((4, 4), 9.0), "out.0.weight": torch.zeros(4)}
    assert inspected(state).kind == "difference"


def test_a_large_tensor_called_like_the_last_norm_is_not_read(tmp_path):
    save_file({"conv_norm_out.weight": torch.ones(1 << 17)}, str(tmp_path / "large.safetensors"))
    save_file({"conv_norm_out.weight": torch.ones(8, 8)}, str(tmp_path / "matrix.safetensors"))
    assert inspect(tmp_path / "large.safetensors").kind == "unknown"
    assert inspect(tmp_path / "matrix.safetensors").kind == "unknown"


def test_names_as_messages_show_them():
    assert shown("conv_in.weight") == "conv_in.weight"
    assert shown("重み") == "重み"
    assert shown("a\x1b\u202e\n") == r"a\x1b\u202e\n"
    assert shown("a" * 60 + "b" * 60, 20) == "aaaaaaaaaa…bbbbbbbbb"
    assert len(shown("a" * 1000)) == 100


def test_summary(inspected):
    found = inspected(
        {"lora_unet_x.lora_down.weight": torch.zeros(16, 8).half(), "lora_unet_x.alpha": torch.tensor(4.0)}
    )
    assert found.rank == 16
    assert found.dtypes == {"F16": 1, "F32": 1}
    assert str(found).startswith("unknown low-rank difference of rank 16, 2 tensors, ")


def test_metadata(inspected):
    assert inspected(UNET, {"windows": "4"}).metadata == {"windows": "4"}


@pytest.mark.parametrize(
    ("content", "advice"),
    [
        (b"<!DOCTYPE html><html>", "web page"),
        (b"PK\x03\x04archive/data.pkl" + bytes(100), "pickle"),
        (b"\x80\x02}q\x00." + bytes(100), "pickle"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:00", "Git LFS pointer"),
        (b"", "download it again"),
        (b"\x00" * 7, "download it again"),
    ],
)
def test_what_is_not_safetensors(tmp_path, content, advice):
    path = tmp_path / "file.safetensors"
    path.write_bytes(content)
    with pytest.raises(
        WeightsFileError, match=rf"file\.safetensors \({len(content)} bytes\) cannot be read .*{advice}"
    ):
        inspect(path)
