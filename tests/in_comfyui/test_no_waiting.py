"""No step waits for the device: values are read on the host once a run, never once a step."""

import pytest
import torch
from host_reads import HostReads


@pytest.fixture
def sampling(comfyui):
    """(prediction_type) -> the model-sampling object."""

    def make(perflow, prediction_type):
        return perflow(prediction_type).get_model_object("model_sampling")

    return make


@pytest.mark.parametrize("prediction_type", ["diff_eps", "ddim_eps", "velocity"])
def test_the_model_sampling_object_reads_nothing(perflow, sampling, prediction_type):
    """Meta tensors have no values: an attempt to read one is an error."""
    ms = sampling(perflow, prediction_type)
    sigma, x = torch.ones(2, device="meta"), torch.ones(2, 4, 8, 8, device="meta")
    assert ms.calculate_input(sigma, x).device.type == "meta"
    assert ms.timestep(sigma).device.type == "meta"
    assert ms.calculate_denoised(sigma, x, x).device.type == "meta"
    assert ms.inverse_noise_scaling(sigma[0], x).device.type == "meta"
    assert ms.sigma(sigma).device.type == "meta"


def test_tables_move_to_a_device_once(perflow, sampling):
    ms = sampling(perflow, "diff_eps")
    device = torch.device("meta")
    assert ms.chord_on(device) is ms.chord_on(device)


def test_the_counter_counts():
    """A test that cannot fail is a defect."""
    with HostReads() as reads:
        torch.ones(1).item()
        bool(torch.ones(1) > 0)
    assert reads.counts["_local_scalar_dense"] == 2


@pytest.mark.parametrize("solver", ["euler", "heun", "ab2"])
def test_reads_do_not_grow_with_the_steps(comfyui, perflow, schedule, sampling, solver):
    """The solvers with our sampling object as their model, 4 steps against 40."""
    ms = sampling(perflow, "diff_eps")
    solvers = comfyui.module("perflow_core.sampling.solvers").SOLVERS

    def model(x, sigma):
        return ms.calculate_denoised(sigma, torch.tanh(ms.calculate_input(sigma, x) + ms.timestep(sigma).mean()), x)

    def reads(steps):
        sigmas = schedule(perflow(), steps)
        with HostReads() as counter:
            solvers[solver](model, torch.ones(1, 4, 4, 4), sigmas, chord=ms.chord)
        return sum(counter.counts.values())

    assert reads(4) == reads(40)
