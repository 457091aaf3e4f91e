"""TensorBoard curves."""

from __future__ import annotations

import pathlib
import sys

import numpy as np
import pytest

from jaxsplat_mouse.dataset.scene_records import SceneRecord
from jaxsplat_mouse.errors import ConfigError
from jaxsplat_mouse.report.tensorboard import TensorBoardWriter


def test_curves_of_two_batches_follow_each_other(
  tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
  library = pytest.importorskip("tensorboardX", reason="needs the extra `tensorboard`")
  got: list[tuple[str, float, int]] = []
  monkeypatch.setattr(library.SummaryWriter, "add_scalar", lambda self, *a: got.append(a))
  writer = TensorBoardWriter(tmp_path / "tensorboard")
  for iteration in (5, 10, 5, 10):
    writer.add_iteration(iteration, {"loss": np.array([1.0, 2.0]), "bad": np.array([np.nan])})
  metrics = {"input_iou": 0.5, "novel_iou": None}
  record = SceneRecord(scene="a", status="done", metrics=metrics, seconds={"fit": 2.0})
  writer.add_scene(record)
  writer.close()
  assert got[:4] == [("fit/loss", 1.5, step) for step in (5, 10, 15, 20)]
  assert got[4:] == [("scene/input_iou", 0.5, 1), ("seconds/fit", 2.0, 1)]
  assert list((tmp_path / "tensorboard").glob("events.*"))


def test_a_missing_library_names_the_extra(
  tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
  monkeypatch.setitem(sys.modules, "tensorboardX", None)
  with pytest.raises(ConfigError, match=r"report\.tensorboard: .*jaxsplat-mouse\[tensorboard\]"):
    TensorBoardWriter(tmp_path)
  TensorBoardWriter(None).close()
