"""Which moments and frames the options select, and which options are refused."""

from __future__ import annotations

import pathlib

import numpy as np
import pytest

from jaxsplat_mouse.capture.prepare_options import parse_offsets, select_moments, shift_frames
from jaxsplat_mouse.capture.raw_capture import Stream
from jaxsplat_mouse.errors import InputError
from tests.capture.recording_fixtures import make_capture, make_rig


@pytest.mark.parametrize(
  ("text", "expected"),
  [
    ("", range(10)),
    ("2:8:3", [2, 5]),
    (":3", [0, 1, 2]),
    ("7:", [7, 8, 9]),
    ("4", [4]),
    ("0:100:5", [0, 5]),
  ],
)
def test_frames_are_python_slices(text: str, expected: list[int]) -> None:
  assert select_moments(text, 10).tolist() == list(expected)


@pytest.mark.parametrize("text", ["a", "1:2:3:4", "0:5:0", "20:30", "-3:", "1.5"])
def test_frames_that_mean_nothing_are_refused(text: str) -> None:
  with pytest.raises(InputError, match="--frames"):
    select_moments(text, 10)


def test_offsets() -> None:
  assert parse_offsets("Camera1:3, Camera4:-1") == {"Camera1": 3, "Camera4": -1}
  assert parse_offsets("") == {}
  for text in ("Camera1", "Camera1:x", ":3", "Camera1:1,Camera1:2"):
    with pytest.raises(InputError, match="--offsets"):
      parse_offsets(text)


def test_offsets_move_one_camera_and_stop_at_the_start(tmp_path: pathlib.Path) -> None:
  capture = make_capture(tmp_path, make_rig(), [Stream()] * 5, [Stream()] * 5, 4)
  capture.frames[3, 1] = -1
  frames = shift_frames(capture, {"Camera2": 2, "Camera5": -1})
  assert frames[:, 1].tolist() == [2, 3, 4, -1]
  assert frames[:, 4].tolist() == [-1, 0, 1, 2]
  assert (frames[:, [0, 2, 3]] == np.arange(4)[:, None]).all()
  with pytest.raises(InputError, match="Camera11: no such camera; did you mean Camera1"):
    shift_frames(capture, {"Camera11": 1})
