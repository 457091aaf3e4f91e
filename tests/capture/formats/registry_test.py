"""All formats under one call, and FaceLift folders, which have no reader of another name."""

from __future__ import annotations

import json
import pathlib
import shutil
import subprocess
import sys

import numpy as np
import pytest

from jaxsplat_mouse.cameras import generate_camera_poses
from jaxsplat_mouse.capture.formats import registry
from jaxsplat_mouse.dataset import camera_file
from tests.capture.formats.format_fixtures import write_image
from tests.io.file_fixtures import refused, write_huge_header

NAMES = [f"images/cam_{i:03d}.png" for i in range(5)]


@pytest.fixture
def scene(tmp_path) -> pathlib.Path:
  for name in NAMES:
    write_image(tmp_path / name, (32, 32))
  cameras = generate_camera_poses(num_views=5, image_size=32)
  camera_file.write_scene_cameras(tmp_path, cameras, NAMES)
  return tmp_path


def edit(folder: pathlib.Path, frame: int, **values: object) -> None:
  path = folder / "opencv_cameras.json"
  data = json.loads(path.read_text())
  data["frames"][frame] |= values
  path.write_text(json.dumps(data))


def test_a_facelift_folder_is_a_capture_of_one_moment(scene):
  capture = registry.read_capture("facelift", scene)
  truth = generate_camera_poses(num_views=5, image_size=32)
  np.testing.assert_allclose(capture.rig.world_to_camera, truth.world_to_camera, atol=1e-6)
  np.testing.assert_allclose(capture.rig.matrices[:, [0, 1], [0, 1]], truth.intrinsics[:, :2])
  np.testing.assert_allclose(capture.rig.matrices[:, :2, 2], truth.intrinsics[:, 2:])
  assert capture.rig.names == tuple(f"cam_{i:03d}" for i in range(5))
  assert capture.rig.sizes.tolist() == [[32, 32]] * 5
  assert (capture.up, capture.masks) == ("+z", None)
  assert capture.frames.tolist() == [[0] * 5]
  assert [stream.images[0] for stream in capture.pictures] == [scene / name for name in NAMES]


def test_facelift_refusals(scene):
  call = lambda: registry.read_capture("facelift", scene)
  edit(scene, 1, w=31)
  assert "31 x 32" in refused(call, "opencv_cameras.json", "frames[1].file_path")
  edit(scene, 1, w=32, file_path="../cam.png")
  assert "leads out" in refused(call, "opencv_cameras.json", "frames[1].file_path")
  edit(scene, 1, file_path=NAMES[0])
  assert "named twice" in refused(call, "opencv_cameras.json", "images_cam_000")
  write_huge_header(scene / "images/huge.png")
  edit(scene, 1, file_path="images/huge.png")
  assert "too large to decode" in refused(call, "huge.png", "frames[1].file_path")


@pytest.mark.parametrize("format", registry.FORMATS)
def test_every_format_reports_a_missing_folder_and_an_empty_one(tmp_path, format: str):
  for extra in ("h5py", "av"):
    pytest.importorskip(extra)
  problem = refused(lambda: registry.read_capture(format, tmp_path / "no"), "no", "")
  assert "no such file or folder" in problem
  refused(lambda: registry.read_capture(format, tmp_path), str(tmp_path), "")


@pytest.mark.parametrize("format", [f for f in registry.FORMATS if f != "facelift"])
def test_a_wrong_format_gets_a_hint_at_the_right_one(scene, format: str):
  problem = refused(lambda: registry.read_capture(format, scene), "", "")
  assert problem.endswith("; it looks like a capture of --format=facelift")


def test_a_folder_too_high_or_too_low_gets_a_hint_at_the_right_one(scene, tmp_path_factory):
  walk = tmp_path_factory.mktemp("laboratory") / "walk"
  shutil.copytree(scene, walk)
  for folder in (walk / "images", walk.parent):
    problem = refused(lambda folder=folder: registry.read_capture("facelift", folder), "", "")
    assert problem.endswith(f"; did you mean --input={walk}?")


def test_an_error_inside_a_capture_of_the_right_format_gets_no_hint(scene):
  (scene / "opencv_cameras.json").write_text("{")
  assert "--" not in refused(lambda: registry.read_capture("facelift", scene), "json", "")


def test_a_format_that_is_none_is_named():
  with pytest.raises(ValueError, match=r"expected one of dannce, sdannce, .* got 'avi'"):
    registry.read_capture("avi", ".")


def test_the_real_head_is_read(shared_dir):
  folder = shared_dir / "data" / "facelift_head" / "input"
  rig = registry.read_capture("facelift", folder).rig
  assert len(rig) == 6
  assert np.allclose(np.linalg.norm(rig.centers, axis=1), 2.7, atol=1e-3)


def test_every_reader_in_the_folder_is_registered():
  folder = pathlib.Path(registry.__file__).parent
  modules = {"registry", "label3d", "__init__"}  # label3d is shared by dannce and sdannce
  modules |= {format.module for format in registry._FORMATS.values()}
  assert {file.stem for file in folder.glob("*.py")} == modules


def test_the_registry_and_the_options_are_light():
  """`python -m jaxsplat_mouse.prepare --help` imports them."""
  code = """
import sys
from jaxsplat_mouse.capture import prepare_options
from jaxsplat_mouse.capture.formats import registry
found = {"jax", "PIL", "scipy", "h5py", "av", "cv2", "rich"} & set(sys.modules)
assert not found, found
"""
  subprocess.run([sys.executable, "-c", code], check=True)


def test_optional_packages_are_imported_by_the_reader_that_needs_them():
  code = """
import sys
import importlib
from jaxsplat_mouse.capture.formats import registry
for format in registry._FORMATS.values():
  importlib.import_module(f"jaxsplat_mouse.capture.formats.{format.module}")
found = {"scipy", "h5py", "av", "cv2"} & set(sys.modules)
assert not found, found
"""
  subprocess.run([sys.executable, "-c", code], check=True)
