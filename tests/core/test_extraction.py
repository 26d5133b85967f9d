"""Making a delta file, and writing it whole or not at all."""

import pytest
import torch
from safetensors.torch import load_file

from perflow_core.extraction import Extraction, source_dtype
from perflow_core.safe_write import write_new


def collected(rank, share=0.0):
    generator = torch.Generator().manual_seed(0)
    extraction = Extraction(rank, share)
    for key, shape in {
        "m.a.weight": (64, 64),
        "m.a.bias": (64,),
        "m.norm.weight": (64,),
        "m.c.weight": (64, 32, 3, 3),
    }.items():
        extraction.add(key, torch.randn(shape, generator=generator), torch.float32)
    return extraction


def test_whole():
    extraction = collected(0)
    assert list(extraction.tensors) == ["m.a.diff", "m.a.diff_b", "m.norm.diff", "m.c.diff"]
    assert extraction.kept == 1
    assert extraction.worst == {}
    assert extraction.metadata()["rank"] == "full"


def test_low_rank_keeps_biases_and_norms_whole():
    extraction = collected(8)
    assert set(extraction.tensors) == {
        "m.a.lora_up.weight", "m.a.lora_down.weight", "m.a.alpha", "m.a.diff_b", "m.norm.diff",
        "m.c.lora_up.weight", "m.c.lora_down.weight", "m.c.alpha",
    }  # fmt: skip
    assert extraction.tensors["m.a.alpha"] == 8
    assert list(extraction.worst) == ["m.c", "m.a"]
    metadata = extraction.metadata(windows="4")
    assert (metadata["format"], metadata["rank"], metadata["windows"]) == ("perflow-delta", "8", "4")
    assert float(metadata["energy_kept"]) == pytest.approx(extraction.kept, abs=1e-6)
    assert 0.1 < extraction.kept < 0.6


def test_share_of_energy_is_kept():
    extraction = collected(0, 0.9)
    assert extraction.kept >= 0.9
    assert "-" in extraction.metadata()["rank"] or extraction.ranks


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_precision_of_the_source_is_found_behind_a_loader_that_widens(dtype):
    weights = [torch.ones(4), torch.randn(64, generator=torch.Generator().manual_seed(0)).to(dtype)]
    assert source_dtype([weight.float() for weight in weights]) == dtype
    assert source_dtype(weights[1:]) == dtype
    assert source_dtype([weights[1].to(torch.float8_e4m3fn)]) == torch.float16


def test_damaged_model_is_told():
    with pytest.raises(ValueError, match=r"difference at m\.a\.weight is NaN or Inf"):
        Extraction(0, 0.0).add("m.a.weight", torch.tensor([[float("nan")]]), torch.float32)


def test_written_whole(tmp_path):
    path = tmp_path / "delta.safetensors"
    write_new({"a": torch.ones(2)}, path, {"windows": "4"})
    assert torch.equal(load_file(str(path))["a"], torch.ones(2))
    assert [file.name for file in tmp_path.iterdir()] == ["delta.safetensors"]


def test_never_over_another(tmp_path):
    path = tmp_path / "delta.safetensors"
    path.write_bytes(b"mine")
    with pytest.raises(FileExistsError):
        write_new({"a": torch.ones(2)}, path, {})
    assert path.read_bytes() == b"mine"
    assert [file.name for file in tmp_path.iterdir()] == ["delta.safetensors"]


def test_nothing_is_left_of_a_failed_write(tmp_path, monkeypatch):
    def full(*args):
        (tmp_path / ".delta.safetensors.1.unfinished").touch()
        raise OSError("No space left on device")

    monkeypatch.setattr("os.getpid", lambda: 1)
    monkeypatch.setattr("safetensors.torch.save_file", full)
    with pytest.raises(OSError, match="No space left"):
        write_new({"a": torch.ones(2)}, tmp_path / "delta.safetensors", {})
    assert list(tmp_path.iterdir()) == []
