"""The table of a real model: a small checkpoint by the stock loader, and what is said where FID cannot be had."""

import sys
from argparse import Namespace
from types import ModuleType
from urllib.error import URLError

import pytest
import torch
from environment import UserError
from PIL import Image

from small_model.quality.cells import BASE, DELTA, Cell, Model
from small_model.quality.real_models import RealJudge, RealTable, captioned_pictures


class Colours(RealJudge):
    """Mean colours instead of Inception, brightness instead of CLIP: torchmetrics' networks are not here."""

    def __init__(self):
        pass

    def features(self, pictures):
        return pictures.float().mean((2, 3))

    def scores(self, pictures, captions):
        return pictures.float().mean((1, 2, 3))


@pytest.fixture
def captioned(tmp_path):
    for i in range(4):
        Image.new("RGB", (80, 60), (60 * i, 40, 200 - 60 * i)).save(tmp_path / f"{i}.png")
        (tmp_path / f"{i}.txt").write_text(f"picture {i}\n")
    (tmp_path / "3.txt").unlink()
    return captioned_pictures(tmp_path)


def test_only_pictures_with_captions_count(captioned):
    assert [(path.name, text) for path, text in captioned] == [(f"{i}.png", f"picture {i}") for i in range(3)]


def test_rows_of_a_checkpoint_with_a_delta(comfyui, captioned, tmp_path):
    from trial import small_models

    checkpoint = small_models.make_checkpoint(tmp_path / "real.safetensors", unet_config=small_models.SD15_TINY)
    delta = small_models.make_delta(tmp_path / "real-delta.safetensors", checkpoint)
    told = dict(
        checkpoint=checkpoint, delta=delta, results=tmp_path / "results", size=64, cfg=3.0, perflow_cfg=3.0, pictures=10
    )
    table = RealTable(comfyui, Namespace(**told), captioned, Colours())
    cells = [Cell(Model(BASE), "euler", 4), Cell(Model(BASE, DELTA), "euler", 4)]
    for cell in cells:
        table.fill(cell)
    again = RealTable(comfyui, Namespace(**told), captioned, Colours())
    assert not any(again.missing(cell) for cell in cells)
    base, perflow = (again.row(cell) for cell in cells)
    assert (base["model"], perflow["model"]) == ("base", "PeRFlow")
    for row in (base, perflow):
        assert row["pictures"] == 3
        assert all(row[name] > 0 for name in ("fid", "fid_error", "clip", "clip_error"))
    assert base["clip"] != perflow["clip"]


def test_without_torchmetrics_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchmetrics.image.fid", None)
    with pytest.raises(UserError, match=r'-m pip install "torchmetrics\[image,multimodal\]"` and start this again\.$'):
        RealJudge()


def test_without_a_network_it_says_what_cannot_be_downloaded(monkeypatch):
    def no_network(*_: object) -> torch.nn.Module:
        raise URLError("no network")

    for name, metric in (("image.fid", "FrechetInceptionDistance"), ("multimodal.clip_score", "CLIPScore")):
        module = ModuleType(name)
        setattr(module, metric, no_network)
        monkeypatch.setitem(sys.modules, f"torchmetrics.{name}", module)
    for package in ("torchmetrics", "torchmetrics.image", "torchmetrics.multimodal"):
        monkeypatch.setitem(sys.modules, package, ModuleType(package))
    with pytest.raises(UserError, match=r"are downloaded at run time, and that failed \(URLError: .*no network"):
        RealJudge()
