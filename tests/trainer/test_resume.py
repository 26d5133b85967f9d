"""A run that is stopped at any moment goes on bit for bit as if it had not been."""

import multiprocessing
import os
import random
import shutil
import signal
import threading
import time

import pytest
import torch
from PIL import Image
from tqdm import tqdm
from training_results import assert_same, read

from training.stopping import Stopped, TrainingError

STEPS = {"optimizer": {"steps": 11}, "save": {"every": 4}}


LORA = {
    "student": {"method": "lora", "rank": 4, "ema_decay": 0.9, "ema_on": "cpu"},
    "optimizer": STEPS["optimizer"] | {"kind": "adafactor"},
}


@pytest.mark.parametrize("changes", [STEPS, STEPS | LORA])
def test_stopped_and_killed(run, changes, tmp_path):
    straight = run(output=str(tmp_path / "straight"), **changes)
    straight.train()

    stopped = run(**changes)
    step = stopped._one_step

    def stop_in_the_sixth():
        if stopped.step == 5:
            os.kill(os.getpid(), signal.SIGTERM)
        return step()

    stopped._one_step = stop_in_the_sixth
    with pytest.raises(Stopped):
        stopped.train()
    assert stopped.step == 6

    killed = run(**changes)
    assert killed.step == 6
    step_again = killed._one_step

    def break_off_in_the_tenth():
        if killed.step == 9:
            raise MemoryError
        return step_again()

    killed._one_step = break_off_in_the_tenth
    with pytest.raises(MemoryError):
        killed.train()

    last = run(**changes)
    assert last.step == 8  # the last state is from there
    last.train()
    assert straight.losses == stopped.losses + killed.losses[:2] + last.losses
    assert_same(straight, last)


def test_killed_at_any_moment(run, tmp_path):
    """A process that has SIGKILL three times, wherever it is: caches, steps, states or deltas."""
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for i in range(5):
        Image.new("RGB", (64, 64), (50 * i, 90, 30)).save(pictures / f"{i}.png")
        (pictures / f"{i}.txt").write_text(f"picture {i}")
    small = {"data": {"kind": "folder", "path": str(pictures)}, "cache": {"endpoints": 8, "teacher_batch": 4}}
    small |= {"optimizer": {"steps": 7}, "save": {"every": 2}}
    begun = time.monotonic()
    straight = run(output=str(tmp_path / "straight"), **small)
    whole = read(straight.train())
    length = time.monotonic() - begun

    def start() -> None:
        tqdm.set_lock(threading.RLock())  # the old one is shared with this process, and may be taken when it is killed
        run(**small).train()

    moments = [random.random() * length for _ in range(3)]
    for moment in moments:
        process = multiprocessing.get_context("fork").Process(target=start)
        process.start()
        process.join(moment)
        process.kill()
        process.join()
        assert process.exitcode in (0, -signal.SIGKILL), moments
    last = run(**small)
    delta, metadata = read(last.train())
    assert_same(straight, last)
    assert metadata == whole[1]
    assert all(torch.equal(delta[key], dW) for key, dW in whole[0].items()), moments


def test_stopped_while_the_teacher_is_at_work(run, tmp_path):
    straight = run(output=str(tmp_path / "straight"), **STEPS)
    straight.train()
    stopped = run(**STEPS)
    make = stopped.segments._make

    def stop_in_the_second_round(path, *rest):
        if "round-1" in str(path):
            stopped.stop_requested.set()
        make(path, *rest)

    stopped.segments._make = stop_in_the_second_round
    with pytest.raises(Stopped):
        stopped.train()
    assert stopped.step == 8
    last = run(**STEPS)
    last.train()
    assert_same(straight, last)


def test_another_runs_state_is_refused(run):
    run(**STEPS).train()
    with pytest.raises(TrainingError, match=r"made with student\.windows = 4, and it is 2 now"):
        run(**STEPS, student={"windows": 2})
    again = run(optimizer={"steps": 12, "learning_rate": 1e-4}, save={"every": 3})  # these may change
    assert again.step == 11
    assert again.optimizer.param_groups[0]["lr"] == pytest.approx(1e-4)


def test_channels_last_may_change_between_two_starts(configuration, run, tmp_path):
    """AdamW's averages follow the weights' layout."""
    run(optimizer={"steps": 2}).train()
    shutil.copytree(tmp_path / "run", tmp_path / "other")
    ends = [
        run(output=str(tmp_path / name), optimizer={"steps": 6, "channels_last": last})
        for name, last in (("run", True), ("other", False))
    ]
    for end in ends:
        end.train()
    assert ends[1].losses == pytest.approx(ends[0].losses, rel=1e-4)
