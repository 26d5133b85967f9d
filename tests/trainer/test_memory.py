"""What saves memory trains the same thing."""

import pytest
import torch
from diffusers.training_utils import EMAModel
from training_results import read

from training import optimizers
from training.average import RunningAverage, averaged
from training.config import OptimizerConfig
from training.stopping import TrainingError
from training.teacher import float8_layers

IN_16 = {"steps": 1, "precision": "bf16"}


def computed(trained) -> torch.Tensor:
    """The teacher's noise prediction, and of a LoRA also the gradient of its output's square."""
    X, i = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0)), torch.tensor([500, 20])
    prompts, empty = trained.prompts.embed(["a house", "a boat"]), trained.prompts.embed([""])
    trajectory = trained.segments.reflow.trajectory
    found = [trained.teacher.derivative(trajectory, prompts, empty, 1.0)(X, i)]
    if trained.teacher.shared:
        (m,) = trained.teacher.network(trained.unet, prompts, None, torch.float32)(X, i)
        m.square().sum().backward()
        found += [weight.grad for weight in trained.unet.parameters() if weight.grad is not None]
    return torch.cat([part.flatten() for part in found])


@pytest.mark.parametrize(("method", "checkpointing"), [("lora", False), ("lora", True), ("full", False)])
def test_a_teacher_in_8_bits_is_one_of_rounded_weights(run, tmp_path, method, checkpointing):
    student = {"method": method, "rank": 4, "gradient_checkpointing": checkpointing}
    in_16, in_8 = (
        run(output=str(tmp_path / str(float8)), student=student, teacher={"float8": float8}, optimizer=IN_16)
        for float8 in (False, True)
    )
    before, found = computed(in_16), computed(in_8)
    for layer in float8_layers(in_16.teacher.unet):
        layer.weight.data = layer.weight.data.to(torch.float8_e4m3fn).to(torch.bfloat16)
    in_16.unet.zero_grad()
    rounded = computed(in_16)
    assert (found - rounded).norm() < 0.1 * (before - rounded).norm()

    layers = {name: layer.weight for name, layer in in_8.teacher.unet.named_modules() if hasattr(layer, "weight")}
    stored = {name for name, weight in layers.items() if weight.dtype == torch.float8_e4m3fn}
    assert "mid_block.resnets.0.conv1" + ".base_layer" * (method == "lora") in stored
    assert not stored & {"conv_in", "conv_out"}
    frozen = [weight.numel() for weight in in_8.teacher.unet.parameters() if not weight.requires_grad]
    assert sum(layers[name].numel() for name in stored) > 0.9 * sum(frozen)
    in_8.train()


def test_8_bits_want_16(run):
    with pytest.raises(TrainingError, match=r'teacher\.float8 is true with optimizer\.precision "no", expected "bf16"'):
        run(teacher={"float8": True})


@pytest.mark.parametrize("device", ["cpu", "cpu:0"])  # by name another device than that of the weights
def test_the_running_average_is_diffusers_own(device):
    torch.manual_seed(0)
    weights = [torch.nn.Parameter(torch.randn(4, 3)), torch.nn.Parameter(torch.randn(5))]
    ours, theirs = RunningAverage(weights, 0.7, torch.device(device)), EMAModel(weights, 0.7)
    for _ in range(5):
        for weight in weights:
            weight.data += torch.randn(weight.shape)
        ours.step(weights)
        theirs.step(weights)
    before = [weight.clone() for weight in weights]
    with averaged(ours, weights):
        for weight, own, expected in zip(weights, before, theirs.shadow_params, strict=True):
            assert (weight - expected).abs().max() < 1e-6 < (own - expected).abs().max()
    assert all(map(torch.equal, weights, before))


def test_without_a_running_average(run):
    """There is none in memory or in states, and the delta is that of the weights themselves."""
    settings = {"student": {"ema_decay": 0.0}, "optimizer": {"steps": 2}}
    trained = run(**settings)
    assert trained.ema is None
    delta, _ = read(trained.train())
    weights = trained.unet.state_dict()
    assert all(torch.equal(dW, weights[key] - trained.base[key]) for key, dW in delta.items())
    (state,) = (trained.segments.folder.parent / "states").iterdir()
    assert {path.name for path in state.glob("custom*")} == {"custom_checkpoint_0.pkl"}  # the schedule's
    assert run(**settings).step == 2


def test_text_encoders_and_vae_are_off_the_card_in_a_step(run):
    """Steps run while what is cached has no numbers at all: on the meta device, as if that were the CPU of a card."""
    trained = run(optimizer={"steps": 4}, cache={"endpoints": 16, "uses": 1})
    trained.prompts.embed([row for step in range(4) for rows in trained.segments.batches(step) for row in rows.prompts])
    trained.teacher.resting_place = torch.device("meta")
    trained.train()
    teacher = trained.teacher
    assert {part.device.type for part in (teacher.vae, *teacher.text_encoders)} == {"meta"}
    assert teacher.device.type == "cpu"


def test_a_lora_sits_on_the_teachers_own_weights(run):
    trained = run(student={"method": "lora", "rank": 4})
    assert trained.accelerator.unwrap_model(trained.unet) is trained.teacher.unet
    assert trained.base == {}


@pytest.mark.parametrize("kind", ["adamw", "adafactor"])
def test_memory_of_the_optimizers(kind):
    weights = [torch.nn.Parameter(torch.randn(*shape)) for shape in ((8, 6, 3, 3), (40, 16), (16,))]
    config = OptimizerConfig(steps=1, batch_size=1, kind=kind)
    optimizer = optimizers.make(config, weights, torch.device("cpu"))
    for weight in weights:
        weight.grad = torch.randn_like(weight)
    optimizer.step()
    kept = [value for state in optimizer.state.values() for value in state.values() if torch.is_tensor(value)]
    assert optimizers.state_bytes(kind, weights) == sum(value.nbytes for value in kept if value.ndim)


def test_adafactor_steps_as_far_as_the_rate_says():
    """Of a gradient alike everywhere the step is rate * sign, as AdamW's first one is."""
    weight = torch.nn.Parameter(torch.zeros(6, 4))
    weight.grad = torch.full((6, 4), -3.0)
    config = OptimizerConfig(steps=1, batch_size=1, kind="adafactor", learning_rate=1e-3)
    optimizers.make(config, [weight], torch.device("cpu")).step()
    assert weight.detach().numpy() == pytest.approx(1e-3, rel=1e-5)


def test_8_bit_adamw_wants_cuda(run):
    with pytest.raises(TrainingError, match=r'optimizer\.kind is "adamw_8bit" on the device "cpu", expected a CUDA'):
        run(optimizer={"kind": "adamw_8bit"}, teacher={"path": "none"})  # before it is loaded
