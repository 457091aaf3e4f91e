"""Turntable videos."""

from __future__ import annotations

import io
import pathlib
import sys

import numpy as np
import pytest

from jaxsplat_mouse.errors import ConfigError
from jaxsplat_mouse.report import turntable


def test_a_turntable_shows_every_view_once(tmp_path: pathlib.Path) -> None:
  av = pytest.importorskip("av", reason="needs the extra `video`")
  rgba = np.zeros((5, 65, 64, 4), np.uint8)
  for i, view in enumerate(rgba):
    view[:, 10 * i : 10 * i + 10] = (200, 30, 30, 255)
  turntable.write_turntable(tmp_path, "a", rgba)
  data = (tmp_path / "turntables" / "a.mp4").read_bytes()
  with av.open(io.BytesIO(data)) as container:
    frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)]
  assert [frame.shape for frame in frames] == [(64, 64, 3)] * 5
  for i, frame in enumerate(frames):
    red = np.flatnonzero(frame[32, :, 1] < 128)
    assert abs(red.mean() - (10 * i + 4.5)) < 1.5 and frame[32, -2].min() > 230


def test_a_turntable_is_cut_to_the_animal(tmp_path: pathlib.Path) -> None:
  av = pytest.importorskip("av", reason="needs the extra `video`")
  rgba = np.zeros((2, 128, 128, 4), np.uint8)
  rgba[0, 40:60, 40:80] = rgba[1, 60:80, 50:70] = 255
  turntable.write_turntable(tmp_path, "a", rgba)
  with av.open(str(tmp_path / "turntables" / "a.mp4")) as container:
    height, width = next(container.decode(video=0)).to_ndarray(format="rgb24").shape[:2]
  assert 40 < width < 60 and 40 < height < 60


def test_a_missing_library_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
  monkeypatch.setitem(sys.modules, "av", None)
  with pytest.raises(ConfigError, match=r"report\.turntable: .*jaxsplat-mouse\[video\]"):
    turntable.import_video_library()
