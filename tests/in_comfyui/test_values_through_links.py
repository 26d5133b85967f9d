"""What widgets would not take comes through links unchecked: each is told in one sentence, and at once."""

import math

import pytest
import torch

NAN, INF = math.nan, math.inf
SCHEDULE = {"steps": 4, "denoise": 1.0, "end": "zero", "steps_per_window": ""}
PHASES = {"steps": 4, "grid": "trailing", "phases": 4, "denoise": 1.0, "end": "zero", "pcm_timesteps": 50}
SAMPLING = {"prediction_type": "diff_eps", "windows": 4, "align_steps": True}
EXTRACT = {"filename_prefix": "delta", "rank": 0, "energy": 0.0, "prediction_type": "diff_eps", "windows": 4}
NOISE = {"seed_from": 0, "seed_to": 1, "frames": 2}


@pytest.fixture
def call(run, perflow, analytic, apply_delta):
    """(node, inputs): the node with the model that it is for."""

    def execute(node, **inputs):
        if node == "PeRFlowApplyDelta":
            return apply_delta(analytic, **inputs)
        models = {
            "PeRFlowWindowSchedule": {"model": perflow(), **SCHEDULE},
            "PCMPhaseSchedule": {"model": analytic, **PHASES},
            "PeRFlowModelSampling": {"model": analytic, **SAMPLING},
            "PeRFlowExtractDelta": {"model_perflow": analytic, "model_base": analytic, **EXTRACT},
            "InstaFlowNoise": NOISE,
            "InstaFlowModelSampling": {"model": analytic, "family": "rectified_flow", "align_steps": True},
            "PeRFlowSampler": {"solver": "euler"},
        }
        return run(node, **(models[node] | inputs))

    return execute


@pytest.mark.parametrize(
    ("node", "name", "value", "expected"),
    [
        *(("PeRFlowWindowSchedule", "steps", value, "1 to 1000") for value in (0, -3, 10**9)),
        *(("PeRFlowWindowSchedule", "denoise", value, "0 to 1") for value in (1.7, NAN, -0.1, INF)),
        ("PeRFlowWindowSchedule", "end", "nowhere", "one of zero, reference"),
        *(("PCMPhaseSchedule", "steps", value, "1 to 1000") for value in (0, -3, 10**9)),
        *(("PCMPhaseSchedule", "denoise", value, "0 to 1") for value in (1.7, NAN)),
        ("PCMPhaseSchedule", "phases", 0, "1 to 40"),
        ("PCMPhaseSchedule", "pcm_timesteps", 0, "1 to 1000"),
        ("PCMPhaseSchedule", "grid", "even", "one of trailing, training_edges, tcd"),
        ("PeRFlowModelSampling", "windows", 0, "1 to 100"),
        ("PeRFlowModelSampling", "prediction_type", "v\u202e", "one of auto, diff_eps, ddim_eps, velocity"),
        ("PeRFlowExtractDelta", "rank", -3, "0 to 4096"),
        ("PeRFlowExtractDelta", "windows", 0, "1 to 100"),
        *(("PeRFlowExtractDelta", "energy", value, "0 to 1") for value in (NAN, 1.5, -1.0)),
        *(("PeRFlowApplyDelta", "strength", value, "-10 to 10") for value in (NAN, INF, 99.0)),
        ("PeRFlowApplyDelta", "windows", -1, "0 to 100"),
        ("InstaFlowNoise", "frames", 0, "1 to 4096"),
        ("InstaFlowModelSampling", "family", "pcm", "one of rectified_flow, rectified_diffusion"),
        ("PeRFlowSampler", "solver", "x" * 1000, "one of euler, heun, ab2"),
    ],
)
def test_told_in_one_sentence(call, node, name, value, expected):
    with pytest.raises(
        ValueError, match=f"^{name} is .*, expected {expected}: change what is connected to {name}"
    ) as caught:
        call(node, **{name: value})
    assert len(str(caught.value)) < 200
    assert str(caught.value).isprintable()


def test_training(train, analytic):
    for inputs in ({"steps": 0}, {"rank": -3}, {"learning_rate": NAN}, {"guidance": INF}):
        (name,) = inputs
        with pytest.raises(ValueError, match=f"^{name} is .*: change what is connected to {name}"):
            train(analytic, **inputs)


@pytest.mark.parametrize("value", [NAN, INF])
def test_plot(run, perflow, value):
    sigmas = torch.tensor([14.6, value, 0.0])
    with pytest.raises(ValueError, match=r"^sigmas holds NaN or Inf, expected noise levels: connect Window Schedule"):
        run("PeRFlowSchedulePlot", model=perflow(), sigmas=sigmas)


@pytest.mark.parametrize(
    "text", ["999999,1,1,1", "1001,0,0,0", "400,400,400,400", "9" * 5000 + ",1,1,1", "1," * 5000 + "1"]
)
def test_steps_per_window_is_bounded(call, text):
    with pytest.raises(ValueError, match=r"^steps_per_window .*, expected") as caught:
        call("PeRFlowWindowSchedule", steps_per_window=text)
    assert len(str(caught.value)) < 250


def test_leading_zeros_count_nothing(call):
    found = call("PeRFlowWindowSchedule", steps_per_window="0" * 5000 + "2,1,1,01")[0]
    assert torch.equal(found, call("PeRFlowWindowSchedule", steps_per_window="2,1,1,1")[0])


@pytest.mark.parametrize("grid", ["trailing", "training_edges", "tcd"])
def test_the_smallest_denoise_is_one_step_at_the_end_of_the_grid(call, grid):
    """Not a grid of four thousand million points."""
    (sigmas,) = call("PCMPhaseSchedule", grid=grid, denoise=1e-9)
    assert len(sigmas) == 2
    assert torch.equal(sigmas, call("PCMPhaseSchedule", grid=grid, denoise=1 / 2000)[0])
