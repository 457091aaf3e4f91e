"""s-DANNCE recordings: one calibration file a camera, with sync files or cameras in step."""

from __future__ import annotations

import pathlib
import shutil

import numpy as np
import pytest

from jaxsplat_mouse.capture.formats import sdannce
from tests.capture.formats.format_fixtures import as_matlab, make_rig, same_rig, write_video
from tests.io.file_fixtures import refused, write_mat

pytest.importorskip("scipy")


def write_calibration(folder: pathlib.Path, version: str = "5") -> pathlib.Path:
  for i, params in enumerate(as_matlab(make_rig())["params"]):
    write_mat(folder / "calibration" / f"hires_cam{i + 1}_params.mat", params, version)
  return folder


@pytest.fixture
def recording(tmp_path) -> pathlib.Path:
  write_calibration(tmp_path)
  video = write_video(tmp_path / "videos/Camera1/0.mp4", 3)
  for i in range(2, 5):
    (tmp_path / f"videos/Camera{i}").mkdir()
    shutil.copy(video, tmp_path / f"videos/Camera{i}/0.mp4")
  return tmp_path


def test_a_recording_in_step_is_read(recording):
  write_video(recording / "videos/Camera2/0.mp4", 2)
  capture = sdannce.read_capture(recording)
  same_rig(capture.rig, make_rig())
  assert capture.rig.names == ("Camera1", "Camera2", "Camera3", "Camera4")
  assert (capture.rig.unit, capture.up) == ("mm", "+z")
  assert capture.frames.tolist() == [[0] * 4, [1] * 4, [2, -1, 2, 2]]
  assert capture.masks is None


@pytest.mark.parametrize("version", ["5", "7.3"])
def test_sync_files_join_by_sample(recording, version: str):
  for i in range(1, 5):
    data = {
      "data_frame": np.arange(3.0)[:, None],
      "data_sampleID": 1 + 100 / 3 * np.arange(3.0)[:, None] + 100 // 3 * (i == 2),
    }
    write_mat(recording / f"sync/Camera{i}_sync.mat", data, version)
  capture = sdannce.read_capture(recording)
  assert capture.moments.tolist() == [1, 34, 67, 100]
  assert capture.frames[:, 0].tolist() == [0, 1, 2, -1]
  assert capture.frames[:, 1].tolist() == [-1, 0, 1, 2]
  (recording / "sync/Camera3_sync.mat").unlink()
  refused(lambda: sdannce.read_capture(recording), "Camera3_sync.mat", "")


def test_numbers_above_nine_keep_their_order(tmp_path):
  for i, params in enumerate(as_matlab(make_rig(11))["params"]):
    write_mat(tmp_path / f"hires_cam{i + 1}_params.mat", params)
  rig = sdannce.read_rig(tmp_path)
  assert rig.names == tuple(f"Camera{i}" for i in range(1, 12))
  same_rig(rig, make_rig(11))


def test_what_is_missing_or_broken_is_refused(tmp_path):
  assert "expected hires_cam1_params.mat" in refused(lambda: sdannce.read_rig(tmp_path), "", "")
  write_calibration(tmp_path)
  assert "no such folder" in refused(lambda: sdannce.read_capture(tmp_path), "videos", "")
  file = tmp_path / "calibration/hires_cam2_params.mat"
  whole = file.read_bytes()
  file.write_bytes(whole[:-200])
  assert "cut short" in refused(lambda: sdannce.read_rig(tmp_path), "hires_cam2_params.mat", "")
  write_mat(file, {"K": np.eye(3), "t": np.zeros((1, 3))})
  assert "missing" in refused(lambda: sdannce.read_rig(tmp_path), "hires_cam2_params.mat", "r")
  file.unlink()
  problem = refused(lambda: sdannce.read_rig(tmp_path), "calibration", "hires_cam2_params.mat")
  assert "without gaps" in problem
