"""What starting ComfyUI in the test process leaves of that process as it was."""

import os
import sys

ARGUMENTS = list(sys.argv)


def test_the_arguments_stay(comfyui):
    assert sys.argv == ARGUMENTS


def test_comfyui_has_its_own(comfyui):
    import comfy.cli_args

    assert comfy.cli_args.args.cpu == (os.environ.get("PERFLOW_DEVICE") != "gpu")
    assert comfy.cli_args.args.base_directory == str(comfyui.base)


def test_the_device_is_the_cpu_unless_asked_otherwise(monkeypatch):
    from trial.process import device_arguments

    monkeypatch.delenv("PERFLOW_DEVICE", raising=False)
    assert device_arguments() == ["--cpu"]
    monkeypatch.setenv("PERFLOW_DEVICE", "gpu")
    assert device_arguments() == []
