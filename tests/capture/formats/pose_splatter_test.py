"""Pose Splatter projects: cameras in HDF5, an up axis, a configuration of paths."""

from __future__ import annotations

import json
import pathlib
import shutil
import zipfile

import numpy as np
import pytest

from jaxsplat_mouse.capture.formats import pose_splatter
from jaxsplat_mouse.capture.rig import project_points
from tests.capture.formats.format_fixtures import make_rig, same_rig, write_video
from tests.io.file_fixtures import refused

h5py = pytest.importorskip("h5py")


def values() -> dict[str, np.ndarray]:
  rig = make_rig(lens=False)
  half = np.array([[0, 0, 0.5], [0, 0, 0.5], [0, 0, 0]])
  return {
    "rotation": rig.world_to_camera[:, :3, :3],
    "translation": rig.world_to_camera[:, :3, 3],
    "intrinsic": rig.matrices - half,
  }


def write_cameras(file: pathlib.Path, arrays: dict[str, np.ndarray]) -> pathlib.Path:
  with h5py.File(file, "w") as opened:
    for key, value in arrays.items():
      opened[f"camera_parameters/{key}"] = value
  return file


@pytest.fixture
def project_dir(tmp_path) -> pathlib.Path:
  write_cameras(tmp_path / "camera_params.h5", values())
  video = write_video(tmp_path / "videos/0.mp4", 2)
  for i in range(1, 4):
    shutil.copy(video, tmp_path / f"videos/{i}.mp4")
  shutil.copytree(tmp_path / "videos", tmp_path / "masks")
  return tmp_path


def test_a_folder_without_configuration_is_read(project_dir):
  capture = pose_splatter.read_capture(project_dir)
  same_rig(capture.rig, make_rig(lens=False))
  assert (capture.rig.unit, capture.up) == ("", "cameras")
  assert capture.frames.tolist() == [[0] * 4, [1] * 4]
  assert capture.masks is not None
  assert capture.masks[3].video == project_dir / "masks/3.mp4"


@pytest.mark.parametrize("sign", [1, -1])
def test_a_world_with_an_up_axis_is_turned_and_nothing_else(project_dir, sign: int):
  """The rig stands upright about an oblique axis; either end of the line gives the same."""
  turn = np.linalg.qr(np.random.default_rng(0).normal(size=(3, 3)))[0]
  turn *= np.linalg.det(turn)
  arrays = values()
  arrays["rotation"] = arrays["rotation"] @ turn.T
  write_cameras(project_dir / "camera_params.h5", arrays)
  up = turn @ [0, 0, 1.0]
  np.savez(project_dir / "vertical_lines.npz", up=sign * 3 * up)
  capture = pose_splatter.read_capture(project_dir)
  assert capture.up == "+z"
  found, truth = capture.rig, make_rig(lens=False)
  np.testing.assert_allclose(found.axes[:, 2], truth.axes[:, 2], atol=1e-9)
  point = np.array([[40.0, 30, 20], [50, 35, 30]])
  own = pose_splatter.read_rig(project_dir / "camera_params.h5")
  from jaxsplat_mouse.canonical import rotation_to_z

  moved = point @ turn.T @ rotation_to_z(up).T
  np.testing.assert_allclose(project_points(found, moved), project_points(truth, point), atol=1e-9)
  np.testing.assert_allclose(
    project_points(own, point @ turn.T), project_points(truth, point), atol=1e-9
  )


def test_a_configuration_names_the_files(project_dir, tmp_path):
  (project_dir / "out").mkdir()
  shutil.move(project_dir / "camera_params.h5", project_dir / "out/cams.h5")
  config = {
    "data_directory": str(project_dir),
    "project_directory": "out/",
    "camera_fn": "cams.h5",
    "video_fns": [f"videos/{i}.mp4" for i in (3, 2, 1, 0)],
    "mask_video_fns": [f"masks/{i}.mp4" for i in range(4)],
    "image_downsample": 4,
  }
  (project_dir / "mouse.json").write_text(json.dumps(config))
  capture = pose_splatter.read_capture(project_dir / "mouse.json")
  same_rig(capture.rig, make_rig(lens=False))
  assert capture.pictures[0].video == project_dir / "videos/3.mp4"


@pytest.mark.parametrize(
  ("config", "field", "problem"),
  [
    ({"video_fns": ["../0.mp4"] * 4}, "video_fns[0]", "leads out of the folder"),
    ({"video_fns": ["/etc/passwd"] * 4}, "video_fns[0]", "is absolute"),
    ({"video_fns": ["videos/0.mp4"]}, "video_fns", "1 files; expected one for each of 4"),
    ({"mask_video_fns": [None] * 4}, "mask_video_fns[0]", "expected a path inside"),
    ({"camera_fn": "../cams.h5"}, "camera_fn", "leads out of the folder"),
    ({"camera_fn": 3}, "camera_fn", "no text"),
    ({"vertical_lines_fn": "/tmp/up.npz"}, "vertical_lines_fn", "is absolute"),
  ],
)
def test_paths_that_lead_out_are_refused(project_dir, config: dict, field: str, problem: str):
  (project_dir / "config.json").write_text(json.dumps(config))
  assert problem in refused(lambda: pose_splatter.read_capture(project_dir), "config.json", field)


def spoil(arrays: dict[str, np.ndarray], case: str) -> None:
  match case:
    case "nan":
      arrays["translation"][1, 1] = np.nan
    case "mirrored":
      arrays["rotation"][2] *= -1
    case "shape":
      arrays["rotation"] = arrays["rotation"][:, :2]
    case "count":
      arrays["intrinsic"] = arrays["intrinsic"][:3]
    case "focal":
      arrays["intrinsic"][0, 0, 0] = 0
    case "key":
      del arrays["intrinsic"]
    case "text":
      arrays["rotation"] = np.array([b"no"] * 4)
    case "inverse":
      arrays["translation"] = make_rig().centers
      arrays["rotation"] = arrays["rotation"].transpose(0, 2, 1)


@pytest.mark.parametrize(
  ("case", "field", "problem"),
  [
    ("nan", "camera_parameters/translation", "not finite"),
    ("mirrored", "camera_parameters/rotation[2]", "mirrored"),
    ("shape", "camera_parameters/rotation", "shape (4, 2, 3)"),
    ("count", "camera_parameters/intrinsic", "shape (3, 3, 3)"),
    ("focal", "camera_parameters/intrinsic[0]", "fx = 0"),
    ("key", "camera_parameters/intrinsic", "missing; found rotation, translation"),
    ("text", "camera_parameters/rotation", "expected N x 3 x 3 numbers"),
    ("inverse", "calibration", "poses inverted (camera-to-world)"),
  ],
)
def test_cameras_that_cannot_be_are_refused(tmp_path, case: str, field: str, problem: str):
  arrays = values()
  spoil(arrays, case)
  file = write_cameras(tmp_path / "camera_params.h5", arrays)
  assert problem in refused(lambda: pose_splatter.read_rig(file), "camera_params.h5", field)


def test_cut_missing_and_outward_files_are_refused(project_dir):
  file = project_dir / "camera_params.h5"
  whole = file.read_bytes()
  file.write_bytes(whole[: len(whole) // 2])
  refused(lambda: pose_splatter.read_capture(project_dir), "camera_params.h5", "")
  file.unlink()
  assert "no such file" in refused(lambda: pose_splatter.read_capture(project_dir), "h5", "")
  with h5py.File(file, "w") as opened:
    opened["camera_parameters"] = h5py.ExternalLink("/etc/passwd", "/x")
  refused(lambda: pose_splatter.read_capture(project_dir), "camera_params.h5", "camera_parameters")
  write_cameras(file, values())
  (project_dir / "masks/2.mp4").unlink()
  refused(lambda: pose_splatter.read_capture(project_dir), "2.mp4", "mask_video_fns[2]")


def test_an_up_axis_that_is_none_is_refused(project_dir):
  file = project_dir / "vertical_lines.npz"
  call = lambda: pose_splatter.read_capture(project_dir)
  for value, problem in (
    (np.zeros(3), "zero"),
    (np.array([0, np.nan, 1]), "not finite"),
    (np.ones(4), "expected 3 numbers"),
    (np.array(["up"]), "expected 3 numbers"),
  ):
    np.savez(file, up=value)
    assert problem in refused(call, "vertical_lines.npz", "up")
  np.savez(file, down=np.ones(3))
  assert "missing" in refused(call, "vertical_lines.npz", "up")
  np.savez(file, up=np.array([object()]), allow_pickle=True)
  assert "broken" in refused(call, "vertical_lines.npz", "up")
  with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
    archive.writestr("up.npy", bytes(10 << 20))
  assert "larger than three numbers" in refused(call, "vertical_lines.npz", "up")
  header = b"\x93NUMPY\x01\x00v\x00{'descr': '<f8', 'fortran_order': False, 'shape': (%d,), }"
  with zipfile.ZipFile(file, "w") as archive:
    archive.writestr("up.npy", (header % (1 << 44)).ljust(127) + b"\n" + bytes(24))
  refused(call, "vertical_lines.npz", "up")
  file.write_bytes(b"PK")
  assert "broken" in refused(call, "vertical_lines.npz", "up")
