"""MAMMAL recordings: pickled cameras, keypoints that check them, videos in step."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import pickle
import shutil

import numpy as np
import pytest

from jaxsplat_mouse.capture import rig_checks
from jaxsplat_mouse.capture.formats import mammal
from jaxsplat_mouse.capture.rig import project_points
from tests.capture.formats.format_fixtures import SIZE, make_rig, same_rig, write_video
from tests.io.file_fixtures import refused, touch

POINTS = np.random.default_rng(0).uniform([10, 0, 0], [70, 60, 40], (7, 5, 3))


def cameras() -> list[dict]:
  rig = make_rig(lens=False)
  half = np.array([[0, 0, 0.5], [0, 0, 0.5], [0, 0, 0]])
  return [
    {
      "K": k - half,
      "R": pose[:3, :3],
      "T": pose[:3, 3],
      "mapx": np.zeros(SIZE[::-1], np.float32),
      "mapy": np.zeros(SIZE[::-1], np.float32),
    }
    for k, pose in zip(rig.matrices, rig.world_to_camera, strict=True)
  ]


def keypoints() -> np.ndarray:
  """(V, T, L, 3), one keypoint of low confidence far off."""
  pixels = project_points(make_rig(lens=False), POINTS.reshape(-1, 3)) - 0.5
  sure = np.full((*pixels.shape[:2], 1), 0.9)
  marks = np.concatenate([pixels, sure], -1).reshape(4, *POINTS.shape[:2], 3)
  marks[1, 2, 3] = [500, 500, 0.1]
  return marks


def write(folder: pathlib.Path, entries: object, marks: np.ndarray | None = None) -> pathlib.Path:
  (folder / "new_cam.pkl").write_bytes(pickle.dumps(entries))
  if marks is not None:
    (folder / "keypoints2d_undist").mkdir()
    for i, view in enumerate(marks):
      (folder / f"keypoints2d_undist/result_view_{i}.pkl").write_bytes(pickle.dumps(view))
  return folder


def test_a_recording_is_read(tmp_path):
  write(tmp_path, cameras(), keypoints())
  video = write_video(tmp_path / "videos_undist/0.mp4", 4)
  for i in range(1, 4):
    shutil.copy(video, tmp_path / f"videos_undist/{i}.mp4")
  write_video(tmp_path / "videos_undist/2.mp4", 3)
  for i in range(4):
    touch(tmp_path / f"simpleclick_undist/{i}.mp4")
  capture = mammal.read_capture(tmp_path)
  same_rig(capture.rig, make_rig(lens=False))
  assert capture.rig.names == ("0", "1", "2", "3")
  assert capture.rig.sizes.tolist() == [list(SIZE)] * 4
  assert (capture.rig.unit, capture.up) == ("mm", "cameras")
  assert capture.frames.tolist() == [[0] * 4, [1] * 4, [2] * 4, [3, 3, -1, 3]]
  assert capture.moments.tolist() == [0, 1, 2, 3]
  assert capture.pictures[3].video == tmp_path / "videos_undist/3.mp4"
  assert capture.masks is not None
  assert capture.masks[2].video == tmp_path / "simpleclick_undist/2.mp4"


def test_keypoints_are_triangulated_into_labels(tmp_path):
  rig = mammal.read_rig(write(tmp_path, cameras(), keypoints()))
  assert rig.labels is not None
  np.testing.assert_allclose(rig.labels.points, POINTS.reshape(-1, 3), atol=1e-6)
  assert np.isnan(rig.labels.pixels[1, 13]).all()
  assert np.isfinite(rig.labels.pixels).sum() == rig.labels.pixels.size - 2
  assert rig_checks.label_errors(rig).max() < 1e-6


def test_keypoints_refuse_other_conventions(tmp_path):
  entries = cameras()
  for entry in entries:
    entry["R"] = entry["R"].T
  problem = refused(
    lambda: mammal.read_rig(write(tmp_path, entries, keypoints())), "new_cam.pkl", "calibration"
  )
  assert "labels are a median of" in problem


def test_a_keypoint_that_one_camera_alone_misplaces_is_an_error_and_not_averaged(tmp_path):
  marks = keypoints()
  marks[2, :, :, :2] += 5
  problem = refused(
    lambda: mammal.read_rig(write(tmp_path, cameras(), marks)), "new_cam.pkl", "calibration"
  )
  assert "px from where the cameras project them" in problem


def test_the_pickle_may_hold_translations_as_columns_and_cameras_by_number(tmp_path):
  entries = cameras()
  for entry in entries:
    entry["T"] = entry["T"][:, None]
    del entry["mapx"]
  rig = mammal.read_rig(write(tmp_path, dict(enumerate(entries))))
  same_rig(rig, make_rig(lens=False))
  assert not rig.sizes.any()
  assert rig.labels is None


def change(entries: list[dict], case: str) -> object:
  first = entries[0]
  match case:
    case "nan":
      first["T"] = first["T"] * np.nan
    case "mirrored":
      first["R"] = np.diag([1, 1, -1]) @ first["R"]
    case "transposed":
      first["K"] = first["K"].T
    case "focal":
      first["K"] = first["K"] * [[-1], [1], [1]]
    case "key":
      del first["R"]
    case "shape":
      first["R"] = first["R"][:2]
    case "huge":
      first["mapx"] = np.zeros((20_000, 1), np.float32)
    case "opencv":
      return [
        {**e, "R": np.diag([1.0, -1, -1]) @ e["R"], "T": e["T"] * [1, -1, -1]} for e in entries
      ]
    case "none":
      return []
    case "number":
      return 7
    case "flat":
      return [1, 2, 3]
  return entries


@pytest.mark.parametrize(
  ("case", "field", "problem"),
  [
    ("nan", "[0].T", "not finite"),
    ("mirrored", "[0].R", "mirrored"),
    ("transposed", "[0].K", "it is transposed"),
    ("focal", "[0].K", "fx = -30"),
    ("key", "[0].R", "missing; found K, T, mapx, mapy"),
    ("shape", "[0].R", "shape (2, 3)"),
    ("huge", "[0].mapx", "1 x 20000 pixels"),
    ("opencv", "calibration", "OpenGL axes"),
    ("none", "", "no list of cameras"),
    ("number", "", "no list of cameras"),
    ("flat", "[0]", "expected fields"),
  ],
)
def test_what_cannot_be_is_refused(tmp_path, case: str, field: str, problem: str):
  write(tmp_path, change(cameras(), case))
  assert problem in refused(lambda: mammal.read_rig(tmp_path), "new_cam.pkl", field)


@dataclasses.dataclass
class Payload:
  command: str

  def __reduce__(self):
    return os.system, (self.command,)


@pytest.mark.parametrize("name", ["new_cam.pkl", "keypoints2d_undist/result_view_2.pkl"])
def test_a_payload_does_not_run(tmp_path, name: str):
  write(tmp_path, cameras(), keypoints())
  proof = tmp_path / "proof"
  (tmp_path / name).write_bytes(pickle.dumps([Payload(f"touch {proof}")]))
  problem = refused(lambda: mammal.read_rig(tmp_path), pathlib.Path(name).name, "")
  assert "system" in problem
  assert not proof.exists()


def test_missing_and_cut_files_are_refused(tmp_path):
  assert "cannot be read" in refused(lambda: mammal.read_rig(tmp_path), "new_cam.pkl", "")
  write(tmp_path, cameras())
  assert "no such video" in refused(lambda: mammal.read_capture(tmp_path), "0.mp4", "0")
  path = tmp_path / "new_cam.pkl"
  path.write_bytes(path.read_bytes()[:-20])
  assert "cut short" in refused(lambda: mammal.read_rig(tmp_path), "new_cam.pkl", "")


def test_keypoints_of_differing_shapes_are_refused(tmp_path):
  write(tmp_path, cameras(), keypoints())
  file = tmp_path / "keypoints2d_undist/result_view_1.pkl"
  file.write_bytes(pickle.dumps(np.zeros((7, 4, 3))))
  assert "(7, 4, 3)" in refused(lambda: mammal.read_rig(tmp_path), "keypoints2d_undist", "")
  file.write_bytes(pickle.dumps(np.zeros((7, 4))))
  assert "no array" in refused(lambda: mammal.read_rig(tmp_path), "result_view_1.pkl", "")
