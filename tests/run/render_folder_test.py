"""Renders at the cameras of a file: any frame and size, and nothing but a scene is replaced."""

from __future__ import annotations

import json
import pathlib

import numpy as np
import pytest

from jaxsplat_mouse.cameras import generate_camera_poses
from jaxsplat_mouse.dataset import camera_file
from jaxsplat_mouse.errors import InputError
from jaxsplat_mouse.io import images, ply
from jaxsplat_mouse.run import render_folder
from jaxsplat_mouse.scene import Similarity
from tests.splat_fixtures import random_gaussians

SIMILARITY = Similarity(
  scale=0.01,
  rotation=np.array([[0.0, 1.0, 0.0], [-1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]),
  translation=np.array([0.3, -0.2, 0.1]),
)


@pytest.fixture
def fitted(tmp_path: pathlib.Path) -> pathlib.Path:
  """A PLY with a transform beside it."""
  folder = tmp_path / "fits" / "scene"
  folder.mkdir(parents=True)
  ply.write_gaussians(folder / "gaussians.ply", random_gaussians(flat=False))
  value = {"input_to_canonical": SIMILARITY.to_json()}
  (folder / "scene.json").write_text(json.dumps(value))
  return folder / "gaussians.ply"


def write_cameras(folder: pathlib.Path, sizes: tuple[int, ...] = (32, 32, 24)) -> pathlib.Path:
  """A camera file in the canonical frame, of images of several sizes."""
  folder.mkdir()
  cameras = [generate_camera_poses(3, image_size=s)[i : i + 1] for i, s in enumerate(sizes)]
  names = [f"images/cam_{i:03d}.png" for i in range(len(sizes))]
  return camera_file.write_scene_cameras(folder, cameras, names, scene_id="views")


def read_views(folder: pathlib.Path) -> list[np.ndarray]:
  return [images.read_image(folder / name) for name in camera_file.read_cameras(folder).names]


def test_cameras_of_the_input_frame_see_the_same(
  fitted: pathlib.Path, tmp_path: pathlib.Path
) -> None:
  given = write_cameras(tmp_path / "canonical")
  assert render_folder.render_to_folder(fitted, given, tmp_path / "a") == 3
  read = camera_file.read_cameras(given)
  there = SIMILARITY.inverse().world_to_camera(read.world_to_camera)
  frames = json.loads(given.read_text())
  for frame, pose in zip(frames["frames"], there, strict=True):
    frame["w2c"] = pose.tolist()
  (tmp_path / "input").mkdir()
  moved = tmp_path / "input" / "opencv_cameras.json"
  moved.write_text(json.dumps(frames))
  assert render_folder.render_to_folder(fitted, moved, tmp_path / "b", "input") == 3
  for one, other in zip(read_views(tmp_path / "a"), read_views(tmp_path / "b"), strict=True):
    assert one[..., 3].max() > 100
    assert np.mean(one.astype(int) != other) < 0.01  # the transform there and back is rounded
  # the cameras are written as they were given
  back = camera_file.read_cameras(tmp_path / "b")
  np.testing.assert_array_equal(back.world_to_camera, there)
  np.testing.assert_array_equal(back.sizes, [[32, 32], [32, 32], [24, 24]])
  assert back.id == "views"


def test_alpha_is_straight_and_nothing_hides_under_it(
  fitted: pathlib.Path, tmp_path: pathlib.Path
) -> None:
  render_folder.render_to_folder(fitted, write_cameras(tmp_path / "c"), tmp_path / "a")
  for view in read_views(tmp_path / "a"):
    assert view.shape[2] == 4 and not view[view[..., 3] == 0].any()


def test_the_input_frame_wants_its_transform(fitted: pathlib.Path, tmp_path: pathlib.Path) -> None:
  (fitted.parent / "scene.json").unlink()
  with pytest.raises(InputError, match=r"scene\.json: no such file"):
    render_folder.render_to_folder(fitted, write_cameras(tmp_path / "c"), tmp_path / "a", "input")


def test_the_filter_of_the_fit_is_used(fitted: pathlib.Path, tmp_path: pathlib.Path) -> None:
  given = write_cameras(tmp_path / "c")
  render_folder.render_to_folder(fitted, given, tmp_path / "papers")
  path = fitted.parent / "scene.json"
  value = json.loads(path.read_text())
  wide = 4.0 * float(generate_camera_poses(1, image_size=32).footprints[0])
  path.write_text(json.dumps({**value, "filter_width": wide}))
  render_folder.render_to_folder(fitted, given, tmp_path / "own")
  narrow, broad = (read_views(tmp_path / name)[0][..., 3] for name in ("papers", "own"))
  assert (broad > 0).sum() > 1.2 * (narrow > 0).sum()
  for bad in (-1.0, "wide", float("inf")):
    path.write_text(json.dumps({**value, "filter_width": bad}))
    with pytest.raises(InputError, match=r"scene\.json: filter_width: .*, expected a positive"):
      render_folder.render_to_folder(fitted, given, tmp_path / "bad")


def test_only_a_scene_is_replaced(fitted: pathlib.Path, tmp_path: pathlib.Path) -> None:
  given = write_cameras(tmp_path / "c")
  for _ in range(2):
    assert render_folder.render_to_folder(fitted, given, tmp_path / "deep" / "a") == 3
  (tmp_path / "deep" / "notes.txt").write_text("mine")
  with pytest.raises(InputError, match=r"holds (a|notes\.txt); expected a new folder"):
    render_folder.render_to_folder(fitted, given, tmp_path / "deep")
  with pytest.raises(InputError, match="holds notes"):
    render_folder.render_to_folder(fitted, given, tmp_path / "deep" / "notes.txt")
  assert (tmp_path / "deep" / "notes.txt").read_text() == "mine"
