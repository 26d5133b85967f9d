"""The programs themselves at their smallest size: each runs to its end and prints its figures."""

import json
import subprocess
import sys
from pathlib import Path

import measuring
import pytest
from programs import RUN_BY, THE_RUN_ITSELF, run


def test_no_program_hides_a_package(repository):
    """They are started as programs, so their folder comes first where Python looks for modules."""
    packages = {path.parent.name for path in repository.glob("*/__init__.py")}
    assert {"training", "perflow_core", "nodes", "small_model"} <= packages
    beside = {path.stem for folder in ("benchmarks", "small_model") for path in (repository / folder).iterdir()}
    assert not beside & packages


def test_every_program_is_run_by_a_test(repository):
    programs = {
        path.relative_to(repository).as_posix()
        for folder in ("benchmarks", "scripts", "small_model", "small_model/trainers")
        for path in (repository / folder).glob("*.py")
        if "__main__" in path.read_text(encoding="utf-8")
    }
    assert programs == RUN_BY.keys() | THE_RUN_ITSELF
    for program, test in RUN_BY.items():
        assert Path(program).stem in (repository / "tests" / test).read_text(encoding="utf-8"), program


@pytest.fixture
def here(comfyui, other_folders, monkeypatch, capfd):
    """(program, arguments) -> what it prints; the ComfyUI that it starts is the one of this process."""
    import comfy.cli_args
    from trial import process

    monkeypatch.setattr(process, "start", lambda *_: comfyui)
    monkeypatch.setattr(comfy.cli_args.args, "fp16_unet", comfy.cli_args.args.fp16_unet)  # some programs set it

    def printed(program: str, *arguments: str) -> str:
        run(monkeypatch, program, *arguments)
        return capfd.readouterr().out

    return printed


@pytest.fixture
def no_other_process(comfyui_path, monkeypatch, tmp_path):
    """What these programs start themselves again for is done in this process; their UNet is a tiny one."""
    from trial import small_models

    monkeypatch.setattr(small_models, "SD15_SMALL", small_models.SD15_TINY)

    def in_this_process(what: str, files: str, chosen: dict, show: bool = False):
        module = sys.modules[Path(sys.argv[0]).stem]
        base = tmp_path / f"base of {what}"
        base.mkdir(exist_ok=True)
        return json.loads(json.dumps(module.work(comfyui_path, what, Path(files), base, chosen)))

    monkeypatch.setattr(measuring, "in_own_process", in_this_process)


linux = pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")


@linux
@pytest.mark.usefixtures("no_other_process")
def test_weights(here):
    printed = here("benchmarks/weights.py", "--small", "--pairs", "1", "--rank", "4")
    assert "Apply PeRFlow Delta / stock ModelMergeAdd:" in printed
    assert "Apply PeRFlow Delta / read + add_patches:" in printed
    assert "extrapolated stock / ours as measured whole:" in printed


@linux
@pytest.mark.usefixtures("no_other_process")
def test_training_memory(here):
    printed = here("benchmarks/training_memory.py", "--small", "--rank", "4", "--steps", "1")
    assert printed.count("less the adapters' state / sampling:") == 2


def test_flow_memory(here):
    """2.24B weights and a table of positions in bf16, and 16 bytes for each number of the adapters."""
    (row,) = here("benchmarks/flow_memory.py", "--models", "SD3.5 medium").splitlines()[1:]
    *_, parameters, weights, adapters, rest, together, _ = row.split()
    assert (parameters, weights) == ("2.24B", "4.9")
    assert 0.4 < float(rest) < 2
    assert float(together) == pytest.approx(float(weights) + float(adapters) + float(rest), abs=0.11)


def test_what_is_counted_of_tensors():
    import flow_memory
    import torch

    known = torch.empty(1000, device="meta")
    with flow_memory.Live([known]) as live:
        one = known + 1
        assert live.now == 4000
        two = one[:10] + known[:10]
        assert live.now == 4040
        del one
        assert live.now == 40
        known.add_(two[0])
    assert live.highest == 4040


PROGRAM = """
import sys
sys.path.append({folder!r})
import measuring

def work(what, files, base, chosen):
    if what == "fail":
        raise ValueError("of no use")
    return {{"what": what, "files": files.name, "base": base.is_dir(), "chosen": chosen}}

measuring.child_main(work)
"""


def test_a_process_of_its_own(tmp_path, monkeypatch):
    """It gets what to do, the files and the options; how it failed is said."""
    program = tmp_path / "program.py"
    program.write_text(PROGRAM.format(folder=str(Path(measuring.__file__).parent)))
    monkeypatch.setattr(sys, "argv", [str(program)])
    found = measuring.in_own_process("measure", "models", {"one": 1})
    assert found == {"what": "measure", "files": "models", "base": True, "chosen": {"one": 1}}
    with pytest.raises(SystemExit, match="of no use"):
        measuring.in_own_process("fail", "models", {})


def test_overhead(repository, tmp_path):
    """In a process of its own, which has imported nothing but ComfyUI: what does the pack bring in beside it?"""
    command = [sys.executable, str(repository / "benchmarks" / "overhead.py"), "2", "--tiny"]
    printed = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=True).stdout
    assert printed.count("/ stock euler: ") == 3
    assert "import of the pack: " in printed
    assert "modules that it brings in beside its own: none" in printed


def test_prompt_to_prompt(here, monkeypatch):
    from trial.small_models import unets

    monkeypatch.setattr(unets, "SD15_DRAWN", unets.SD15_TINY)
    assert (
        here("benchmarks/prompt_to_prompt.py", "--small", "--pixels", "64", "--pairs", "2").count(" / unedited: ") == 3
    )


@pytest.mark.usefixtures("no_other_process")
def test_gpu(here, monkeypatch):
    import gpu_measurements

    monkeypatch.setattr(gpu_measurements, "MANY", 6)
    printed = here("benchmarks/gpu.py", "steps", "--sizes", "SD1.5", "--small")
    for what in ("stock euler, base", "PeRFlow Sampler, delta"):
        assert f"waits in a step, {what}: none" in printed
