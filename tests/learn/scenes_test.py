"""Scenes in memory: resampled with their intrinsics, broken ones left out and named."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from jaxsplat_mouse.cameras import generate_camera_poses
from jaxsplat_mouse.dataset import writer
from jaxsplat_mouse.errors import InputError
from jaxsplat_mouse.learn.training import built_in_scenes
from jaxsplat_mouse.learn.training.scenes import from_scene, read_scenes
from jaxsplat_mouse.scene import scene_from_rgba

SIZE = 32


def spotted(views: int) -> np.ndarray:
  """(V, S, S, 4) uint8: an opaque 8 x 8 square of a colour of its own in every view."""
  rgba = np.zeros((views, SIZE, SIZE, 4), np.uint8)
  for i, view in enumerate(rgba):
    view[8:16, 4:12] = [10 * i, 100, 200, 255]
  return rgba


def test_reads_the_scenes_of_a_list_and_reports_broken_ones(tmp_path):
  cameras = generate_camera_poses(4, image_size=SIZE)
  for name in ("a", "b", "c"):
    writer.write_scene(tmp_path, name, spotted(4), cameras)
  (tmp_path / "b" / "images" / "cam_001.png").write_bytes(b"no image")
  path = tmp_path / "train.txt"
  path.write_text("a\nb\nc\n")
  scenes, problems = read_scenes(path, SIZE // 2)
  assert len(scenes) == 2 and scenes.rgba.shape == (2, 4, 16, 16, 4)
  assert [p.folder.name for p in problems] == ["b"] and "cam_001.png" in problems[0].problem
  np.testing.assert_array_equal(scenes.rgba[0, 3, 4:8, 2:6], [[[30, 100, 200, 255]] * 4] * 4)
  assert scenes.rgba[0, 3].astype(int).sum() == 16 * (30 + 100 + 200 + 255)
  np.testing.assert_allclose(scenes.intrinsics[0], np.asarray(cameras.intrinsics) / 2)
  np.testing.assert_allclose(scenes.world_to_camera[1], cameras.world_to_camera, atol=1e-6)
  for name in ("a", "c"):
    (tmp_path / name / "opencv_cameras.json").unlink()
  with pytest.raises(InputError, match="none of 3 scenes"):
    read_scenes(path, SIZE)


def test_a_padded_view_becomes_a_square_of_what_its_camera_saw():
  cameras = generate_camera_poses(1, image_size=SIZE)
  whole = scene_from_rgba(cameras, spotted(1) / np.float32(255))
  # The camera saw rows 6 to 22 and columns 2 to 14: 16 is the longer side.
  scene = dataclasses.replace(whole, frames=np.array([[2, 6, 14, 22]], np.float32))
  found = from_scene(scene, 16)
  assert found.rgba.shape == (1, 1, 16, 16, 4) and found.counts.tolist() == [1]
  covered = np.argwhere(found.rgba[0, 0, ..., 3] > 0)
  assert covered.min(0).tolist() == [2, 2] and covered.max(0).tolist() == [9, 9]
  k = np.asarray(cameras.intrinsics)[0]
  np.testing.assert_allclose(found.intrinsics[0, 0], k - [0, 0, 2, 6], rtol=1e-6)


def test_built_in_scenes_are_the_views_that_their_cameras_see():
  scenes = built_in_scenes.make_scenes("solids", [3, 4], 32, views=3, processes=1)
  assert scenes.rgba.shape == (2, 3, 32, 32, 4) and scenes.counts.tolist() == [3, 3]
  every = built_in_scenes.make_scenes("solids", [3], 32, processes=1)
  same = [
    int(np.flatnonzero((every.world_to_camera[0] == pose).all((1, 2)))[0])
    for pose in scenes.world_to_camera[0]
  ]
  np.testing.assert_array_equal(every.rgba[0, same], scenes.rgba[0])
  with pytest.raises(ValueError, match="mice, solids"):
    built_in_scenes.make_scenes("rats", [0], 32)
  with pytest.raises(ValueError, match="1 to 32"):
    built_in_scenes.make_scenes("mice", [0], 32, views=33)
