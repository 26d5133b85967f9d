"""Making a delta, weight by weight."""

import pytest
import torch

from perflow_core.weights.extraction import Extraction, largest_names, source_dtype


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


def test_tensors_are_handed_on_and_not_held():
    seen = {}
    extraction = Extraction(8, 0.0, seen.__setitem__)
    extraction.add("m.a.weight", torch.randn(64, 64, generator=torch.Generator().manual_seed(0)), torch.float16)
    extraction.add("m.a.bias", torch.ones(64), torch.float16)
    assert list(seen) == ["m.a.lora_up.weight", "m.a.lora_down.weight", "m.a.alpha", "m.a.diff_b"]
    assert extraction.tensors == {}
    largest = largest_names([("m.a.weight", 2), ("m.a.bias", 1)])
    assert seen.keys() <= {name for name, _ in largest}


@pytest.mark.parametrize(("key", "rank"), [("m.a.bias", 0), ("m.a.weight", 0), ("m.a.weight", 4)])
def test_what_does_not_fit_the_precision_is_told(key, rank):
    dW = torch.full((64, 64) if key.endswith("weight") else (64,), 1e6 if not rank else 1e11)
    with pytest.raises(ValueError, match=f"difference at {key} is too large for float16, which the models have"):
        Extraction(rank, 0.0).add(key, dW, torch.float16)


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
