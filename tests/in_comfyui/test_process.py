"""What starting ComfyUI in the test process leaves of that process as it was."""

import sys

ARGUMENTS = list(sys.argv)


def test_the_arguments_stay(comfyui):
    assert sys.argv == ARGUMENTS


def test_comfyui_has_its_own(comfyui):
    import comfy.cli_args

    assert comfy.cli_args.args.cpu
    assert comfy.cli_args.args.base_directory == str(comfyui.base)
