"""What stays in `deltas` and `states`: the last ones of the run, whatever else is there, and one to go on from."""

import pytest
import safetensors.torch
import torch

from training import saving, state
from training.config import SaveConfig
from training.stopping import Stopped, TrainingError


def test_deltas_are_kept_by_step_and_the_users_own_copies_stay(tmp_path):
    def write(name: str, step: int, run: str = "this"):
        path = tmp_path / f"{name}.safetensors"
        safetensors.torch.save_file({"dW": torch.zeros(1)}, path, {"run": run, "steps": str(step)})
        return path

    write("perflow-000001", 1)
    write("perflow-000001-2", 1, "another")
    kept = [write(f"perflow-{name}", step) for name, step in (("000002", 2), ("000003", 3), ("000003-2", 3))]
    own = [write(f"perflow-{name}", 1) for name in ("best", "000001-best", "1", "000001-2-3")]
    saving.keep_last(kept[-1], SaveConfig(keep_deltas=0))
    assert len(list(tmp_path.iterdir())) == 9
    saving.keep_last(kept[-1], SaveConfig(keep_deltas=2))
    assert sorted(tmp_path.iterdir()) == sorted([*kept, *own, tmp_path / "perflow-000001-2.safetensors"])


class NoSpace:
    """In place of accelerate's save_state."""

    def __call__(self, folder: str) -> None:
        raise OSError("No space left on device")


def test_a_state_that_is_there_is_not_written_again(run, tmp_path):
    """It is the only one to go on from, and whatever happens then must leave it."""
    trained = run(optimizer={"steps": 1})
    trained.train()
    path = tmp_path / "run" / "states" / "step-00000001"
    before = (path / "run.json").stat().st_mtime_ns
    trained.accelerator.save_state = NoSpace()
    trained._save()
    assert (path / "run.json").stat().st_mtime_ns == before
    assert state.last(trained.config) == path


def test_stopped_in_the_first_round(run, tmp_path):
    """A state, but no delta of a student that has learned nothing."""
    stopped = run()
    stopped.stop_requested.set()
    with pytest.raises(Stopped):
        stopped.train()
    assert [path.name for path in (tmp_path / "run" / "states").iterdir()] == ["step-00000000"]
    assert not (tmp_path / "run" / "deltas").exists()


def test_a_broken_state_names_the_older_one(run, tmp_path):
    """Each of its files cut off in its turn."""
    run(optimizer={"steps": 2}, save={"every": 1, "keep_states": 2}).train()
    older, newest = sorted((tmp_path / "run" / "states").iterdir())
    for name in ("run.json", "model.safetensors", "optimizer.bin", "custom_checkpoint_0.pkl"):
        whole = (newest / name).read_bytes()
        (newest / name).write_bytes(whole[: len(whole) // 2])
        with pytest.raises(TrainingError) as error:
            run(optimizer={"steps": 3})
        assert "\n" not in str(error.value)
        assert f"{newest} to go on from {older}, or choose another output." in str(error.value)
        (newest / name).write_bytes(whole)
    (newest / "model.safetensors").unlink()
    (older / "run.json").unlink()
    with pytest.raises(TrainingError, match=r"delete .*step-00000002 to begin again, or choose another output\."):
        run(optimizer={"steps": 3})


def test_killed_between_a_state_and_its_delta(run, tmp_path):
    """The delta is written at the next start, once, and what was begun of it is deleted."""
    few = {"optimizer": {"steps": 2}, "save": {"every": 1}}
    last = run(**few).train()
    whole = last.read_bytes()
    (last.parent / "mine.safetensors").write_bytes(whole)
    last.unlink()
    begun = [last.with_name(f"{last.stem}.0f3a.unfinished")]
    begun += (
        tmp_path / "run" / folder / ".made_with.json.12.unfinished" for folder in ("prompts/process-1", "latents")
    )
    for path in begun:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(whole[:100])
    run(**few)  # the user's own copy is of that step and run
    assert not any(path.exists() for path in begun)
    assert not last.exists()
    (last.parent / "mine.safetensors").unlink()
    further = {"optimizer": {"steps": 3}, "save": {"every": 1}}
    run(**further)
    assert last.read_bytes() == whole
    run(**further, student={"ema_on": "cpu"}).train()
    assert {path.name for path in last.parent.iterdir()} == {f"perflow-00000{n}.safetensors" for n in (1, 2, 3)}
