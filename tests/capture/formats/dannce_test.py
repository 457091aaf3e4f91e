"""DANNCE and Label3D recordings: two real files, faithful ones, and broken ones."""

from __future__ import annotations

import dataclasses
import pathlib
import re
import shutil

import numpy as np
import pytest

from jaxsplat_mouse.capture import pose_conventions, rig_checks
from jaxsplat_mouse.capture.formats import dannce, label3d
from jaxsplat_mouse.capture.rig import project_points
from tests.capture.formats.format_fixtures import as_matlab, label_points, make_rig, same_rig
from tests.io.file_fixtures import refused, touch, write_mat

pytest.importorskip("scipy")


@pytest.fixture
def data() -> dict:
  return as_matlab(make_rig(), label_points())


def write_recording(folder: pathlib.Path, data: dict, version: str = "5") -> pathlib.Path:
  write_mat(folder / "label3d_dannce.mat", data, version)
  for camera in data.get("camnames", []):
    touch(folder / "videos" / camera.replace("/", "_") / "0.mp4")
  return folder


# ------------------------------------------------------------------------------------- real files


@pytest.mark.parametrize("recording", ["markerless_mouse_1", "markerless_mouse_2"])
def test_real_labels_lie_where_the_cameras_project_them(
  shared_dir: pathlib.Path, capsys: pytest.CaptureFixture, recording: str
):
  rig = dannce.read_rig(shared_dir / "data" / "dannce_rigs" / recording)
  no_skew = rig.matrices.copy()
  no_skew[:, 0, 1] = 0
  variants = {
    "lens and skew": rig,
    "lens only": dataclasses.replace(rig, matrices=no_skew),
    "pinhole": dataclasses.replace(rig, matrices=no_skew, distortion=0 * rig.distortion),
  }
  errors = {name: rig_checks.label_errors(variant) for name, variant in variants.items()}
  with capsys.disabled():
    print(f"\n{recording}: median label error per camera, px")
    for name, error in errors.items():
      print(f"  {name:14}", " ".join(f"{e:.4f}" for e in error))
  assert rig.labels is not None
  assert len(rig.labels.points) > 1500
  assert errors["lens and skew"].max() < 0.01
  assert errors["lens only"].min() > 0.05
  assert errors["pinhole"].min() > 0.2
  assert np.median(errors["pinhole"]) > 1.0


def test_the_real_rig_agrees_with_its_readme(shared_dir: pathlib.Path):
  rig = dannce.read_rig(shared_dir / "data/dannce_rigs/markerless_mouse_1/label3d_dannce.mat")
  distance = np.linalg.norm(rig.centers, axis=1)
  assert rig.names == tuple(f"Camera{i}" for i in range(1, 7))
  assert rig.unit == "mm"
  assert np.allclose(rig.matrices[:, 0, 1].round(1), [-5.8, 1.4, -0.9, -5.9, -1.3, -4.9])
  assert distance.min() == pytest.approx(246, abs=1)
  assert distance.max() == pytest.approx(415, abs=1)
  assert label3d.recording_up(rig) == "+z"


def test_a_real_rig_that_is_transposed_is_refused_without_labels(shared_dir: pathlib.Path):
  rig = dannce.read_rig(shared_dir / "data/dannce_rigs/markerless_mouse_1")
  wrong = dataclasses.replace(
    rig, labels=None, world_to_camera=pose_conventions.transpose_rotations(rig.world_to_camera)
  )
  problem = refused(lambda: rig_checks.check_rig(pathlib.Path("f.mat"), wrong), "f.mat", "calib")
  assert "21% of the distance" in problem
  assert "rotations transposed (row vectors) they meet to 4%" in problem


def test_the_raw_capture_is_read(shared_dir: pathlib.Path):
  capture = dannce.read_capture(shared_dir / "data" / "capture_spot")
  assert capture.moments.tolist() == [1, 34, 68, 101, 134, 168]
  assert capture.frames.tolist() == [[i] * 6 for i in range(6)]
  assert capture.rig.labels is None
  assert capture.masks is not None
  for stream, mask, camera in zip(capture.pictures, capture.masks, capture.rig.names, strict=True):
    assert stream.video is not None
    assert stream.video.is_file()
    assert stream.video.parts[-3:] == ("videos", camera, "0.mp4")
    assert mask.video == stream.video.parents[2] / "masks" / camera / "0.mp4"


# ------------------------------------------------------------------------------------- generated


@pytest.mark.parametrize("version", ["5", "7", "7.3"])
def test_every_version_of_the_file_gives_the_same_rig(tmp_path, data, version: str):
  truth = make_rig()
  capture = dannce.read_capture(write_recording(tmp_path, data, version))
  same_rig(capture.rig, truth)
  assert capture.rig.names == truth.names
  assert (capture.rig.unit, capture.up) == ("mm", "+z")
  assert capture.masks is None
  assert capture.frames.tolist() == [[i] * 4 for i in range(5)]
  assert capture.moments.tolist() == [1, 11, 21, 31, 41]
  labels = capture.rig.labels
  assert labels is not None
  np.testing.assert_allclose(labels.points, label_points(), atol=1e-9)
  np.testing.assert_allclose(labels.pixels, project_points(truth, label_points()), atol=1e-9)


def test_the_file_itself_can_be_named(tmp_path, data):
  write_recording(tmp_path, data)
  other = write_mat(tmp_path / "other_dannce.mat", data)
  assert len(dannce.read_capture(other).rig) == 4
  assert "label3d_dannce.mat, other_dannce.mat" in refused(
    lambda: dannce.read_capture(tmp_path), str(tmp_path), ""
  )


def test_cameras_are_joined_by_sample_and_not_by_row(tmp_path, data):
  data["sync"][1]["data_sampleID"] = np.array([[11], [21], [31], [41], [51]])
  data["sync"][2]["data_frame"] = np.array([[7], [6], [5], [4], [3]])
  capture = dannce.read_capture(write_recording(tmp_path, data))
  assert capture.moments.tolist() == [1, 11, 21, 31, 41, 51]
  assert capture.frames[:, 0].tolist() == [0, 1, 2, 3, 4, -1]
  assert capture.frames[:, 1].tolist() == [-1, 0, 1, 2, 3, 4]
  assert capture.frames[:, 2].tolist() == [7, 6, 5, 4, 3, -1]


def test_labels_are_joined_by_sample_too(tmp_path, data):
  entry = data["labelData"][1]
  for key in ("data_2d", "data_3d"):
    entry[key] = entry[key][::-1]
  entry["data_sampleID"] = entry["data_sampleID"][:, ::-1]
  data["labelData"][0]["data_3d"][0, :3] = np.nan
  labels = dannce.read_capture(write_recording(tmp_path, data)).rig.labels
  assert labels is not None
  np.testing.assert_allclose(labels.points, label_points()[1:])
  np.testing.assert_allclose(labels.pixels, project_points(make_rig(), label_points())[:, 1:])


def test_a_recording_without_labels_has_none(tmp_path, data):
  data["labelData"] = np.zeros((0, 0))
  assert dannce.read_capture(write_recording(tmp_path, data)).rig.labels is None


def test_no_sample_in_common_is_refused(tmp_path, data):
  data["sync"][3]["data_sampleID"] = data["sync"][3]["data_sampleID"] + 1
  problem = refused(
    lambda: dannce.read_capture(write_recording(tmp_path, data)), ".mat", "data_sampleID"
  )
  assert "common to all cameras" in problem
  assert "Camera4 2-42" in problem


def test_a_file_written_for_columns_is_read_too(tmp_path, data):
  for params in data["params"]:
    params["K"], params["r"] = params["K"].T, params["r"].T
  same_rig(dannce.read_capture(write_recording(tmp_path, data)).rig, make_rig())


def test_labels_decide_which_way_the_rotations_stand(tmp_path, data, caplog):
  for params in data["params"]:
    params["r"] = params["r"].T
  same_rig(dannce.read_capture(write_recording(tmp_path, data)).rig, make_rig())
  assert "transposed" in caplog.text
  del data["labelData"]
  problem = refused(
    lambda: dannce.read_capture(write_recording(tmp_path, data)), ".mat", "calibration"
  )
  assert "transposed (row vectors)" in problem


def test_a_scale_that_the_labels_contradict_is_refused(tmp_path, data):
  for entry in data["labelData"]:
    entry["data_3d"] = 10 * entry["data_3d"]
  problem = refused(
    lambda: dannce.read_capture(write_recording(tmp_path, data)), ".mat", "calibration"
  )
  assert re.search(r"median of [\d.inf ]+ px", problem)


def test_two_radial_terms_and_axes_that_hang_down(tmp_path):
  flip = np.diag([1.0, -1.0, -1.0, 1.0])
  truth = make_rig()
  truth = dataclasses.replace(truth, world_to_camera=truth.world_to_camera @ flip)
  data = as_matlab(truth)
  for params in data["params"]:
    params["RDistort"] = params["RDistort"][:, :2]
  capture = dannce.read_capture(write_recording(tmp_path, data))
  assert capture.up == "-z"
  assert (capture.rig.distortion[:, 4] == 0).all()
  assert np.allclose(capture.rig.distortion[:, :4], truth.distortion[:, :4])


# -------------------------------------------------------------------------------------- refusals


def spoil(data: dict, case: str) -> None:
  first, turn = data["params"][0], data["params"][2]["r"]
  match case:
    case "nan":
      first["K"][0, 0] = np.nan
    case "focal":
      first["K"][1, 1] = -5
    case "mirrored":
      data["params"][2]["r"] = turn @ np.diag([1, 1, -1])
    case "scaled":
      data["params"][2]["r"] = 2 * turn
    case "skewed":
      data["params"][2]["r"] = turn + 0.01
    case "shape":
      first["t"] = np.zeros((1, 4))
    case "cell":
      first["t"] = ["a", np.zeros((1, 2))]
    case "radial":
      first["RDistort"] = np.zeros((1, 6))
    case "key":
      del first["TDistort"]
    case "text":
      first["K"] = "K"
    case "no params":
      del data["params"]
    case "no names":
      del data["camnames"]
    case "fewer":
      data["sync"].pop()
    case "twice":
      data["sync"][1]["data_sampleID"][1] = 1
    case "lengths":
      data["sync"][1]["data_frame"] = np.zeros((4, 1))
    case "negative":
      data["sync"][1]["data_frame"] = -np.ones((5, 1))
    case "outside":
      data["camnames"][1] = "../Camera2"
    case "up":
      data["camnames"][1] = ".."
    case "absolute":
      data["camnames"][1] = "/etc"
    case "same name":
      data["camnames"][1] = "Camera1"
    case "same camera":
      data["params"][1] = data["params"][0]
    case "mirror":
      first["m"] = np.ones((1, 1))
    case "label rows":
      data["labelData"][1]["data_2d"] = np.zeros((3, 8))


@pytest.mark.parametrize(
  ("case", "field", "problem"),
  [
    ("nan", "params{1}.K", "not finite"),
    ("focal", "params{1}.K", "fy = -5"),
    ("mirrored", "params{3}.r", "mirrored, determinant -1.000"),
    ("scaled", "params{3}.r", "a scale of 2"),
    ("skewed", "params{3}.r", "not a rotation"),
    ("shape", "params{1}.t", "4 numbers; expected 3"),
    ("cell", "params{1}.t", "expected N numbers"),
    ("radial", "params{1}.RDistort", "6 numbers; expected 2 or 3"),
    ("key", "params{1}.TDistort", "missing; found K, RDistort, r, t"),
    ("text", "params{1}.K", "expected 3 x 3 numbers"),
    ("no params", "params", "missing"),
    ("no names", "camnames", "missing"),
    ("fewer", "sync", "3 entries; expected one for each of 4"),
    ("twice", "sync{2} (Camera2).data_sampleID", "sample 1 occurs twice"),
    ("lengths", "sync{2} (Camera2)", "5 sample numbers for 4 frames"),
    ("negative", "sync{2} (Camera2).data_frame", "negative"),
    ("outside", "camnames{2}", "expected a name of one folder"),
    ("up", "camnames{2}", "expected a name of one folder"),
    ("absolute", "camnames{2}", "expected a name of one folder"),
    ("same name", "Camera1", "named twice"),
    ("same camera", "Camera2", "the same pose as Camera1"),
    ("mirror", "params{1}.m", "mirrored camera"),
    ("label rows", "labelData{2} (Camera2).data_2d", "expected 2 rows"),
  ],
)
def test_what_cannot_be_is_refused(tmp_path, data, case: str, field: str, problem: str):
  spoil(data, case)
  write_recording(tmp_path, data)
  assert problem in refused(lambda: dannce.read_capture(tmp_path), "dannce.mat", field)


def test_videos_go_on_in_parts_and_stray_ones_are_refused(tmp_path, data):
  write_recording(tmp_path, data)
  video = tmp_path / "videos" / "Camera3" / "0.mp4"
  parts = [touch(video.with_name(f"{first}.mp4")) for first in (10500, 3500)]
  stream = dannce.read_capture(tmp_path).pictures[2]
  assert stream.video == video
  assert stream.parts == ((3500, parts[1]), (10500, parts[0]))
  other = touch(video.with_name("copy.mp4"))
  assert "found 0.mp4" in refused(lambda: dannce.read_capture(tmp_path), "Camera3", "Camera3")
  for path in (other, parts[0], video):
    path.unlink()
  assert "found 3500.mp4" in refused(lambda: dannce.read_capture(tmp_path), "Camera3", "Camera3")
  parts[1].unlink()  # that there is none costs the camera alone: its stream leads nowhere
  assert dannce.read_capture(tmp_path).pictures[2].video == video
  inner = touch(video.parent / "636975888610580066" / "0.mp4")
  assert dannce.read_capture(tmp_path).pictures[2].video == inner


def test_masks_are_streams_of_every_camera_or_none(tmp_path, data):
  write_recording(tmp_path, data)
  assert dannce.read_capture(tmp_path).masks is None
  for camera in data["camnames"][:-1]:
    touch(tmp_path / "masks" / camera / "0.mp4")
  masks = dannce.read_capture(tmp_path).masks  # the last leads nowhere, which costs that camera
  assert masks is not None
  assert [m.video for m in masks] == [
    tmp_path / "masks" / camera / "0.mp4" for camera in data["camnames"]
  ]


def test_a_recording_without_its_folder_of_videos_is_refused(tmp_path, data):
  shutil.rmtree(write_recording(tmp_path, data) / "videos")
  problem = refused(lambda: dannce.read_capture(tmp_path), "videos", "")
  assert "no such folder; expected Camera1/0.mp4" in problem
