"""Weights in 16 and in 8 bits."""

import pytest
import torch
from safetensors.torch import load_file

from small_model.networks.storage import WEIGHTS, averaged, pack, read, unpack, write
from small_model.trainers.dataset import trained_autoencoder
from small_model.trainers.restore import restore


@pytest.fixture
def tensors():
    """Rows of very different size, one of them zero, and a bias."""
    random = torch.Generator().manual_seed(0)
    sizes = torch.tensor([1.0, 1e-2, 1e-4, 0.0, 3e-6]).view(-1, 1, 1, 1)
    return {
        "layer.weight": torch.randn(5, 7, 3, 3, generator=random) * sizes,
        "layer.bias": torch.randn(5, generator=random),
    }


def test_eight_bits_are_within_half_a_step_of_each_row(tensors):
    wanted, found = tensors["layer.weight"], unpack(pack(tensors, 8))["layer.weight"]
    limits = wanted.flatten(1).abs().amax(1)
    off = (found - wanted).flatten(1).abs().amax(1)
    assert (off <= limits / 254 * 1.01 + limits.half().float().sub(limits).abs()).all()
    assert (off[:3] > limits[:3] / 300).all()  # and not much less: 8 bits are used, no more
    assert off[3] == 0
    packed = pack(tensors, 8)
    assert packed["layer.weight"].dtype == torch.int8
    assert packed["layer.bias"].dtype == torch.float16  # one number a channel is not worth a limit


def test_sixteen_bits_are_float16(tensors):
    assert torch.equal(unpack(pack(tensors, 16))["layer.weight"], tensors["layer.weight"].half().float())


@pytest.mark.parametrize("bits", [8, 16])
def test_a_file_gives_back_what_it_was_given(tensors, tmp_path, bits):
    file = tmp_path / "new" / "weights.safetensors"
    write(tensors, file, bits, {"windows": "4"})
    found, metadata = read(file)
    assert metadata == {"windows": "4"}
    assert found.keys() == tensors.keys()
    for name, tensor in unpack(pack(tensors, bits)).items():
        assert torch.equal(found[name], tensor)
    write({"other": torch.zeros(1)}, file, bits)  # in place of the older one
    assert load_file(file).keys() == {"other"}
    assert [path.name for path in file.parent.iterdir()] == [file.name]


def test_the_stored_weights_come_back_as_a_training_leaves_them(tmp_path):
    restore(tmp_path)
    stored, _ = read(WEIGHTS / "teacher.safetensors")
    (found,) = averaged(tmp_path / "teacher.pt", "unet")
    assert found.keys() == stored.keys()
    assert all(torch.equal(found[name], stored[name]) for name in stored)
    stored, _ = read(WEIGHTS / "autoencoder.safetensors")
    for part, network in zip(("encoder", "decoder"), trained_autoencoder(tmp_path), strict=True):
        assert all(torch.equal(weight, stored[f"{part}.{name}"]) for name, weight in network.state_dict().items())


def test_a_training_of_ones_own_is_not_written_over(tmp_path):
    (tmp_path / "autoencoder.pt").write_bytes(b"mine")
    with pytest.raises(FileExistsError, match=r"autoencoder.pt is there already"):
        restore(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ["autoencoder.pt"]
