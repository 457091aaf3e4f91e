"""Refined cameras in the formats of recordings: they read back, and nothing else changes."""

from __future__ import annotations

import dataclasses
import importlib
import json
import pathlib
import pickle
import shutil
import tomllib
from collections.abc import Callable

import numpy as np
import pytest

from jaxsplat_mouse.capture import calibration_export
from jaxsplat_mouse.capture.formats import colmap, dannce, mammal, pose_splatter, registry, sdannce
from jaxsplat_mouse.capture.prepare_options import PrepareOptions
from jaxsplat_mouse.capture.raw_capture import Capture
from jaxsplat_mouse.capture.rig import OPENCV_FIRST_PIXEL, Rig, project_points
from jaxsplat_mouse.io import matlab
from jaxsplat_mouse.procedural_mouse.disturb import rotation_about
from tests.capture.formats.format_fixtures import (
  SIZE,
  as_matlab,
  label_points,
  make_rig,
  same_rig,
  write_image,
  write_video,
)
from tests.io.file_fixtures import refused, write_mat

pytest.importorskip("scipy")
pytest.importorskip("h5py")
pytest.importorskip("cv2")
SMALL = 0.05  # of a correction that labels of small pictures survive
HALF = np.array([[0, 0, OPENCV_FIRST_PIXEL], [0, 0, OPENCV_FIRST_PIXEL], [0, 0, 0]])


def refine(rig: Rig, focal: float = 1.0, size: float = 1.0) -> Rig:
  """The second and third camera turned and moved; the second with another focal length."""
  poses, matrices = rig.world_to_camera.copy(), rig.matrices.copy()
  for view in (1, 2):
    turn = np.eye(4)
    turn[:3, :3] = rotation_about(size * np.radians([0.5, -0.3, 0.2 * view]))
    turn[:3, 3] = size * np.array([0.3, -0.7, view])
    poses[view] = turn @ poses[view]
  matrices[1, [0, 1], [0, 1]] *= focal
  return dataclasses.replace(rig, world_to_camera=poses, matrices=matrices)


def capture_of(folder: pathlib.Path, rig: Rig) -> Capture:
  """A capture whose streams no writer reads."""
  none = np.zeros((1, len(rig)), np.int64)
  return Capture(path=folder, rig=rig, pictures=(), masks=None, frames=none, moments=none[:, 0])


def write_back(format: str, capture: Capture, refined: Rig, folder: pathlib.Path) -> pathlib.Path:
  folder.mkdir()
  registry.write_rig(format, capture, refined, folder)
  return folder


# -------------------------------------------------------------------------------------- formats


@pytest.mark.parametrize("focal", [1.0, 1.003])
@pytest.mark.parametrize("version", ["5", "7", "7.3"])
@pytest.mark.parametrize("columns", [False, True], ids=["rows", "columns"])
def test_dannce(tmp_path: pathlib.Path, version: str, columns: bool, focal: float) -> None:
  content = as_matlab(make_rig(), label_points())
  if columns:
    for params in content["params"]:
      params["K"], params["r"], params["t"] = params["K"].T, params["r"].T, params["t"].T
  content["note"] = "kept"
  file = write_mat(tmp_path / "label3d_dannce.mat", content, version)
  given = dannce.read_rig(tmp_path)
  refined = refine(given, focal, SMALL)
  folder = write_back("dannce", capture_of(tmp_path, given), refined, tmp_path / "out")
  assert [p.name for p in folder.iterdir()] == [file.name]
  same_rig(dannce.read_rig(folder), refined)
  names = (*content, "note")
  before, after = (matlab.read_matlab(f, names) for f in (file, folder / file.name))
  np.testing.assert_equal(after["params"][0], before["params"][0])
  for key in ("RDistort", "TDistort"):
    np.testing.assert_equal([p[key] for p in after["params"]], [p[key] for p in before["params"]])
  assert after["params"][1]["t"].shape == before["params"][1]["t"].shape
  for value in (before, after):
    del value["params"]
    for entry in value["labelData"]:
      del entry["data_3d"]
  np.testing.assert_equal(after, before)


def test_a_dannce_file_without_changes_stays_to_the_byte(tmp_path: pathlib.Path) -> None:
  file = write_mat(tmp_path / "label3d_dannce.mat", as_matlab(make_rig()), "7")
  given = dannce.read_rig(tmp_path)
  folder = write_back("dannce", capture_of(tmp_path, given), given, tmp_path / "out")
  assert (folder / file.name).read_bytes() == file.read_bytes()


def test_labelled_points_are_those_of_the_refined_cameras(tmp_path: pathlib.Path) -> None:
  """What was marked in the images stays; the points were triangulated with the cameras as given."""
  truth = make_rig()
  wrong = refine(truth, 1.0, SMALL)
  marked, content = as_matlab(truth, label_points()), as_matlab(wrong)
  content["labelData"] = marked["labelData"]
  for entry in content["labelData"]:
    entry["data_3d"] = entry["data_3d"] + 0.5
    entry["data_3d"][1, :3] = np.nan
  write_mat(tmp_path / "label3d_dannce.mat", content)
  given = dannce.read_rig(tmp_path)
  folder = write_back("dannce", capture_of(tmp_path, given), truth, tmp_path / "out")
  labels = dannce.read_rig(folder).labels
  assert labels is not None
  np.testing.assert_allclose(labels.points, np.delete(label_points(), 4, 0), atol=1e-6)


def test_labels_that_transpose_rotations_do_so_again(tmp_path: pathlib.Path) -> None:
  """K for row vectors, r for column vectors: labels decide, before and after."""
  content = as_matlab(make_rig(), label_points())
  for params in content["params"]:
    params["r"] = params["r"].T
  write_mat(tmp_path / "label3d_dannce.mat", content)
  given = dannce.read_rig(tmp_path)
  same_rig(given, make_rig())
  refined = refine(given, 1.0, SMALL)
  folder = write_back("dannce", capture_of(tmp_path, given), refined, tmp_path / "out")
  same_rig(dannce.read_rig(folder), refined)


def test_a_file_that_changed_meanwhile_is_not_mixed_with_older_poses(
  tmp_path: pathlib.Path,
) -> None:
  write_mat(tmp_path / "label3d_dannce.mat", as_matlab(make_rig()))
  capture = capture_of(tmp_path, dannce.read_rig(tmp_path))
  write_mat(tmp_path / "label3d_dannce.mat", as_matlab(refine(make_rig())))
  (tmp_path / "out").mkdir()
  problem = refused(
    lambda: registry.write_rig("dannce", capture, refine(capture.rig), tmp_path / "out"),
    "label3d_dannce.mat",
    "params{2}.r",
  )
  assert "expected the calibration that was read" in problem


def test_real_rigs(shared_dir: pathlib.Path, tmp_path: pathlib.Path) -> None:
  for name in ("markerless_mouse_1", "markerless_mouse_2"):
    recording = shared_dir / "data" / "dannce_rigs" / name
    given = dannce.read_rig(recording)
    refined = refine(given, 1.001, 0.2)
    folder = write_back("dannce", capture_of(recording, given), refined, tmp_path / name)
    found = dannce.read_rig(folder)
    same_rig(found, refined)
    assert found.labels is not None and given.labels is not None
    np.testing.assert_array_equal(found.labels.pixels, given.labels.pixels)


@pytest.mark.parametrize("version", ["5", "7.3"])
def test_sdannce(tmp_path: pathlib.Path, version: str) -> None:
  for i, params in enumerate(as_matlab(make_rig())["params"]):
    write_mat(tmp_path / "calibration" / f"hires_cam{i + 1}_params.mat", params, version)
  given = sdannce.read_rig(tmp_path)
  refined = refine(given, 1.003)
  folder = write_back("sdannce", capture_of(tmp_path, given), refined, tmp_path / "out")
  same_rig(sdannce.read_rig(folder), refined)


@pytest.mark.parametrize("wrap", [list, lambda rows: dict(enumerate(rows))], ids=["list", "dict"])
def test_mammal(tmp_path: pathlib.Path, wrap: Callable) -> None:
  rig = make_rig(lens=False)
  maps = np.arange(SIZE[0] * SIZE[1], dtype=np.float32).reshape(SIZE[::-1])
  entries = [
    {"K": k - HALF, "R": pose[:3, :3], "T": pose[:3, 3:], "mapx": maps, "mapy": maps}
    for k, pose in zip(rig.matrices, rig.world_to_camera, strict=True)
  ]
  (tmp_path / "new_cam.pkl").write_bytes(pickle.dumps(wrap(entries)))
  given = mammal.read_rig(tmp_path)
  folder = write_back("mammal", capture_of(tmp_path, given), refine(given), tmp_path / "out")
  same_rig(mammal.read_rig(folder), refine(given))
  written = pickle.loads((folder / "new_cam.pkl").read_bytes())
  assert isinstance(written, type(wrap([])))
  np.testing.assert_array_equal(written[1]["mapy"], maps)
  assert written[1]["T"].shape == (3, 1)


@pytest.mark.parametrize("turned", [False, True], ids=["as it is", "up turned"])
def test_pose_splatter(tmp_path: pathlib.Path, turned: bool) -> None:
  import h5py

  rig = make_rig(lens=False)
  poses = rig.world_to_camera
  if turned:
    world = np.eye(4)
    world[:3, :3] = rotation_about(np.array([0.5, -0.3, 0.2]))
    poses = poses @ world
    np.savez(tmp_path / "vertical_lines.npz", up=world[2, :3])
  with h5py.File(tmp_path / "camera_params.h5", "w") as file:
    file["camera_parameters/rotation"] = poses[:, :3, :3]
    file["camera_parameters/translation"] = poses[:, :3, 3:]
    file["camera_parameters/intrinsic"] = rig.matrices - HALF
    file["other"] = np.arange(3)
  video = write_video(tmp_path / "videos/0.mp4", 2)
  for i in range(1, 4):
    shutil.copy(video, tmp_path / f"videos/{i}.mp4")
  capture = pose_splatter.read_capture(tmp_path)
  before = (tmp_path / "camera_params.h5").read_bytes()
  refined = refine(capture.rig, 1.003)
  folder = write_back("pose_splatter", capture, refined, tmp_path / "out")
  assert (tmp_path / "camera_params.h5").read_bytes() == before
  shutil.copy(folder / "camera_params.h5", tmp_path / "camera_params.h5")
  found = pose_splatter.read_capture(tmp_path).rig
  if not turned:  # the cameras decide which way is up, and two of them have moved
    same_rig(found, refined)
  relative = found.world_to_camera @ np.linalg.inv(found.world_to_camera[0])
  wanted = refined.world_to_camera @ np.linalg.inv(refined.world_to_camera[0])
  np.testing.assert_allclose(relative, wanted, atol=1e-9)
  with h5py.File(folder / "camera_params.h5") as file:
    assert file["other"][2] == 2 and file["camera_parameters/translation"].shape == (4, 3, 1)


@pytest.mark.parametrize("times", [1, 2])
def test_transforms(tmp_path: pathlib.Path, times: int) -> None:
  rig = make_rig()
  frames = [
    {
      "file_path": write_image(tmp_path / f"images/{t}_{i}.png").relative_to(tmp_path).as_posix(),
      "transform_matrix": (np.linalg.inv(pose) @ np.diag([1.0, -1, -1, 1])).tolist(),
      "time": t / 2,
      **dict(zip(("fl_x", "fl_y", "cx", "cy"), k[[0, 1, 0, 1], [0, 1, 2, 2]], strict=True)),
      **dict(zip(("k1", "k2", "p1", "p2", "k3"), d, strict=True)),
    }
    for t in range(times)
    for i, (k, pose, d) in enumerate(
      zip(rig.matrices, rig.world_to_camera, rig.distortion, strict=True)
    )
  ]
  content = {"aabb_scale": 16, "frames": frames}
  (tmp_path / "transforms.json").write_text(json.dumps(content))
  capture = registry.read_capture("transforms", tmp_path)
  refined = refine(capture.rig, 1.003)
  folder = write_back("transforms", capture, refined, tmp_path / "out")
  shutil.copytree(tmp_path / "images", folder / "images")
  found = registry.read_capture("transforms", folder)
  same_rig(found.rig, refined)
  assert len(found.moments) == times
  assert json.loads((folder / "transforms.json").read_text())["aabb_scale"] == 16


def without_skew(rig: Rig) -> Rig:
  matrices = rig.matrices.copy()
  matrices[:, 0, 1] = 0
  return dataclasses.replace(rig, matrices=matrices)


@pytest.mark.parametrize("k3", [True, False], ids=["FULL_OPENCV", "OPENCV"])
def test_colmap(tmp_path: pathlib.Path, k3: bool) -> None:
  """A text model of any rig, which is read, refined and written under the names of its images."""
  rig = without_skew(make_rig())
  if not k3:
    rig = dataclasses.replace(rig, distortion=rig.distortion * [1, 1, 1, 1, 0])
  names = [f"deep/{name}.png" for name in rig.names]
  (tmp_path / "sparse").mkdir()
  for name in names:
    write_image(tmp_path / "images" / name)
  colmap.write_text_model(rig, names, tmp_path / "sparse")
  capture = registry.read_capture("colmap", tmp_path)
  same_rig(capture.rig, rig)
  folder = write_back("colmap", capture, refine(capture.rig, 1.003), tmp_path / "out")
  shutil.copytree(tmp_path / "images", folder / "images")
  same_rig(registry.read_capture("colmap", folder).rig, refine(capture.rig, 1.003))


def test_anipose(tmp_path: pathlib.Path) -> None:
  """Read with OpenCV, as Anipose does: rvec and tvec, pixels that count from 0."""
  import cv2

  rig = without_skew(make_rig())
  calibration_export.write_anipose(rig, tmp_path / "calibration.toml")
  found = tomllib.loads((tmp_path / "calibration.toml").read_text())
  points = np.random.default_rng(0).uniform(0, 40, (5, 3))
  expected = project_points(rig, points)
  for i, name in enumerate(rig.names):
    camera = found[f"cam_{i}"]
    assert camera["name"] == name and camera["size"] == list(SIZE)
    values = [np.array(camera[k]) for k in ("rotation", "translation", "matrix", "distortions")]
    pixels, _ = cv2.projectPoints(points, *values)
    np.testing.assert_allclose(pixels[:, 0] + OPENCV_FIRST_PIXEL, expected[i], atol=1e-9)


# ---------------------------------------------------------------------------------------- options


def options(tmp_path: pathlib.Path, *exports: str, format: str = "dannce") -> PrepareOptions:
  return PrepareOptions(
    format=format, input=tmp_path, output=tmp_path / "scenes", write_calibration=exports
  )


def test_what_cannot_be_written_is_refused_before_any_work(tmp_path: pathlib.Path) -> None:
  rig = make_rig()
  check = lambda *exports, format="dannce": refused(
    lambda: calibration_export.check_exports(options(tmp_path, *exports, format=format), rig),
    "--write_calibration",
    exports[-1],
  )
  assert "expected some of own, anipose, colmap" in check("own", "matlab")
  assert "skew of these cameras (px: Camera1 -0.15" in check("anipose")
  assert "dannce, sdannce, mammal" in check("own", format="facelift")
  calibration_export.check_exports(options(tmp_path, "own"), rig)


def test_every_format_has_the_writer_that_the_registry_promises() -> None:
  for name, format in registry._FORMATS.items():
    module = importlib.import_module(f"jaxsplat_mouse.capture.formats.{format.module}")
    assert hasattr(module, "write_rig") == (name in registry.WRITABLE), name
