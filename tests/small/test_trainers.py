"""The trainers at their smallest size, and pack."""

import flow_files
import pytest
import torch
from safetensors.torch import load_file, save_file

from small_model.networks import storage
from small_model.networks.flow_transformer import flow_transformer
from small_model.trainers import (
    pack,
    train_autoencoder,
    train_classifier,
    train_flow,
    train_style,
    train_teacher,
    training_loop,
)
from small_model.trainers.dataset import trained_autoencoder
from small_model.trainers.restore import restore

HOW = dict(pictures=8, minutes=0.01, batch=2, rate=1e-4)


@pytest.fixture
def restored(tmp_path):
    restore(tmp_path)
    return tmp_path


@pytest.fixture(scope="module")
def tokenizer(comfyui_path):
    return comfyui_path / "comfy" / "sd1_tokenizer"


def moved(file, name, *parts) -> bool:
    """Whether the averages in a state file are close to the stored weights, and are not them."""
    found = {key: weight for part in storage.averaged(file, *parts) for key, weight in part.items()}
    stored, _ = storage.read(storage.WEIGHTS / f"{name}.safetensors")
    stored = {key: weight for part in storage.networks(stored, *parts) for key, weight in part.items()}
    apart = sum(float((found[key] - stored[key]).norm()) for key in stored)
    return 0 < apart < 0.1 * sum(float(weight.norm()) for weight in stored.values())


def test_autoencoder_goes_on_from_its_state(tmp_path, capsys):
    train_autoencoder.train(tmp_path, **HOW, from_stored=True)
    first = torch.load(tmp_path / "autoencoder.pt", weights_only=True)["state"]
    assert moved(tmp_path / "autoencoder.pt", "autoencoder", "encoder", "decoder")
    longer = HOW | dict(minutes=first["seconds"] / 60 + 0.01)
    train_autoencoder.train(tmp_path, **longer, from_stored=False)
    again = torch.load(tmp_path / "autoencoder.pt", weights_only=True)["state"]
    assert again["step"] > first["step"] > 0
    assert again["seconds"] >= 60 * longer["minutes"]
    assert again["standardised"]


def test_the_decoder_alone(tmp_path):
    """The encoder stays as it is; the decoder goes on, is what the folder's autoencoder has, and fits no other."""
    train_autoencoder.train(tmp_path, **HOW, from_stored=True)
    before = storage.averaged(tmp_path / "autoencoder.pt", "encoder", "decoder")
    for minutes in (HOW["minutes"], 1.01 * HOW["minutes"]):
        train_autoencoder.train(tmp_path, **HOW | {"minutes": minutes}, from_stored=False, decoder_alone=True)
    after = [network.state_dict() for network in trained_autoencoder(tmp_path)]
    same = [all(torch.equal(one[name], other[name]) for name in one) for one, other in zip(before, after, strict=True)]
    assert same == [True, False]
    other = torch.load(tmp_path / "autoencoder.pt", weights_only=True)
    other["state"]["ema"][0] += 1
    training_loop.save(other, tmp_path / "autoencoder.pt")
    with pytest.raises(
        ValueError, match=r"decoder.pt was trained for another encoder than that of autoencoder.pt, exp"
    ):
        trained_autoencoder(tmp_path)


def test_latents_become_standardised(tmp_path, monkeypatch):
    """From random weights, in the first step."""
    monkeypatch.setattr(train_autoencoder, "STANDARDISED_AT", 0.0)
    train_autoencoder.train(tmp_path, **HOW, from_stored=False)
    assert torch.load(tmp_path / "autoencoder.pt", weights_only=True)["state"]["standardised"]


def test_teacher(restored, tokenizer, capsys):
    (restored / "teacher.pt").unlink()
    train_teacher.train(restored, tokenizer, **HOW, from_stored=True)
    assert moved(restored / "teacher.pt", "teacher", "unet")
    assert "7.86M weights, 8 latents" in capsys.readouterr().out


def test_flow(tmp_path, tokenizer, capsys):
    train_autoencoder.train(tmp_path, **HOW, from_stored=True, channels=16)
    train_flow.train(tmp_path, tokenizer, **HOW)
    (weights,) = storage.averaged(tmp_path / "flow.pt", "unet")
    torch.manual_seed(0)
    first = flow_transformer().state_dict()
    assert weights.keys() == first.keys()
    apart = sum(float((weights[name] - first[name]).norm()) for name in first)
    assert 0 < apart < 0.1 * sum(float(weight.norm()) for weight in first.values())
    assert "9.37M weights, 8 latents" in capsys.readouterr().out


def test_style_of_all_weights(restored, tokenizer):
    file = train_style.train(restored, "woodcut", tokenizer, **HOW, rank=0)
    assert file.name == "tuned.pt"
    assert moved(file, "teacher", "unet")


def test_style_as_a_lora(restored, tokenizer):
    pytest.importorskip("peft")
    tensors = load_file(train_style.train(restored, "neon", tokenizer, **HOW, rank=2))
    ups = {name: up for name, up in tensors.items() if name.endswith(".lora_up.weight")}
    assert any(up.any() for up in ups.values())
    assert "lora_unet_mid_block_attentions_0_transformer_blocks_0_attn1_to_out_0.lora_up.weight" in ups
    assert len(tensors) == 3 * len(ups)


def test_classifier(restored, monkeypatch, capsys):
    monkeypatch.setattr(train_classifier, "TESTED", 4)
    out = restored / "classifier.safetensors"
    arguments = ["train_classifier", str(restored), "--pictures", "70", "--seen", "128", "--out", str(out)]
    monkeypatch.setattr("sys.argv", arguments)
    train_classifier.main()
    assert load_file(out).keys() == load_file(storage.WEIGHTS / out.name).keys()
    assert "through the autoencoder: subject " in capsys.readouterr().out


@pytest.fixture
def packed_to(tmp_path, monkeypatch):
    """Where pack writes; its table is made with two drawings."""
    monkeypatch.setattr(pack, "BATCH", 2)
    monkeypatch.setattr(pack, "WEIGHTS", tmp_path / "weights")
    return tmp_path / "weights"


def test_pack_stores_the_flow_model(tmp_path, packed_to, tokenizer, capsys):
    torch.manual_seed(0)
    network, pair = flow_transformer(), train_autoencoder.first_weights(from_stored=True, channels=16)
    both = dict(zip(("encoder", "decoder"), (part.state_dict() for part in pair), strict=True))
    weights = [weight for part in both.values() for weight in part.values()]
    training_loop.save({**both, "state": training_loop.first_state(weights)}, tmp_path / "autoencoder.pt")
    state = training_loop.first_state(network.parameters())
    training_loop.save({"unet": network.state_dict(), "state": state}, tmp_path / "flow.pt")
    pack.main(tmp_path, tokenizer, None, flow=True)
    assert capsys.readouterr().out.count("stored") == 2
    assert {file.name for file in packed_to.iterdir()} == {"flow_autoencoder.safetensors", "flow_teacher.safetensors"}
    stored, _ = storage.read(packed_to / "flow_teacher.safetensors")
    assert stored.keys() == dict(network.named_parameters()).keys()  # places are computed
    name = "transformer_blocks.0.attn.to_q.weight"
    assert float((stored[name] - network.state_dict()[name]).norm() / stored[name].norm()) < 1e-2
    assert sum(file.stat().st_size for file in packed_to.iterdir()) < 11.5e6


def test_pack_stores_a_low_rank_delta_alone(tmp_path, packed_to, tokenizer, capsys):
    """Its alphas are its ranks, which is what loaders take without them."""
    pairs, said = flow_files.low_rank(), flow_files.metadata("flow_delta")
    save_file(pairs, tmp_path / "trained.safetensors", said)
    pack.main(tmp_path, tokenizer, tmp_path / "trained.safetensors", flow=True)
    assert [file.name for file in packed_to.iterdir()] == ["flow_delta.safetensors"]
    found, metadata = storage.read(packed_to / "flow_delta.safetensors")
    assert metadata == said
    assert found.keys() == {name for name in pairs if not name.endswith(".alpha")}
    up, down = (f"diffusion_model.joint_blocks.0.x_block.attn.qkv.lora_{half}.weight" for half in ("up", "down"))
    change = pairs[up] @ pairs[down]
    error = float((found[up] @ found[down] - change).norm() / change.norm())
    assert 1e-4 < error < 1e-2
    assert f"{pack.relative(pack.changes(found), pack.changes(pairs)):.2e}  stored" in capsys.readouterr().out


def test_pack_refuses_another_delta_for_the_flow_model(tmp_path, packed_to, tokenizer):
    delta = storage.WEIGHTS / "delta.safetensors"
    with pytest.raises(SystemExit, match=r"delta\.safetensors has 0 low-rank tensors and windows at the sigmas None"):
        pack.main(tmp_path, tokenizer, delta, flow=True)
    assert not packed_to.exists()


def test_pack_stores_what_was_trained(restored, packed_to, tokenizer, capsys):
    """A student's delta is the difference to the teacher as stored."""
    delta, metadata = storage.read(storage.WEIGHTS / "delta.safetensors")
    save_file(delta, restored / "student.safetensors", metadata)
    pack.main(restored, tokenizer, restored / "student.safetensors")
    assert capsys.readouterr().out.count("stored") == 3
    teacher, _ = storage.read(packed_to / "teacher.safetensors")
    packed, said = storage.read(packed_to / "delta.safetensors")
    before, _ = storage.read(storage.WEIGHTS / "teacher.safetensors")
    assert said == metadata
    name = "mid_block.resnets.0.conv1.weight"
    student = before[name] + delta[name]
    assert float((teacher[name] + packed[name] - student).norm() / student.norm()) < 1e-3
