"""The camera file: written and read back, images of several sizes, numbers that JSON lacks."""

from __future__ import annotations

import json
import os
import pathlib

import numpy as np
import pytest

from jaxsplat_mouse.cameras import Cameras, generate_camera_poses
from jaxsplat_mouse.dataset import camera_file


def test_cameras_round_trip_through_the_file(tmp_path: pathlib.Path):
  cameras = generate_camera_poses(num_views=5, image_size=64)
  names = [f"images/{i}.png" for i in range(5)]
  path = camera_file.write_scene_cameras(
    tmp_path,
    cameras,
    names,
    scene_id="a",
    extra={"units": "mm"},
    frame_extra=[{"k": i} for i in range(5)],
  )
  assert path.name == "opencv_cameras.json"
  read = camera_file.read_cameras(tmp_path)
  np.testing.assert_array_equal(read.world_to_camera, cameras.world_to_camera)
  np.testing.assert_array_equal(read.intrinsics, cameras.intrinsics)
  assert (read.id, read.names, read.extra) == ("a", tuple(names), {"units": "mm"})
  assert [e["k"] for e in read.frame_extra] == list(range(5))
  frame = json.loads(path.read_text())["frames"][0]
  assert {"w", "h", "fx", "fy", "cx", "cy", "w2c", "file_path"} <= set(frame)
  assert (frame["w"], frame["h"]) == (64, 64)


def test_cameras_of_different_sizes_come_in_groups(tmp_path: pathlib.Path):
  small, large = (generate_camera_poses(num_views=3, image_size=s) for s in (32, 64))
  wide = Cameras(
    world_to_camera=small.world_to_camera, intrinsics=small.intrinsics, width=48, height=32
  )
  batches = [small[0], large[1], small[2], wide[1]]
  camera_file.write_scene_cameras(tmp_path, batches, ["a", "b", "c", "d"])
  read = camera_file.read_cameras(tmp_path / "opencv_cameras.json")
  assert read.sizes.tolist() == [[32, 32], [64, 64], [32, 32], [48, 32]]
  groups = read.groups()
  assert [index.tolist() for index, _ in groups] == [[0, 2], [1], [3]]
  assert [(c.width, c.height, len(c)) for _, c in groups] == [(32, 32, 2), (64, 64, 1), (48, 32, 1)]
  np.testing.assert_array_equal(groups[0][1].world_to_camera, small.world_to_camera[[0, 2]])


def test_cameras_that_json_cannot_hold_are_refused(tmp_path: pathlib.Path):
  cameras = generate_camera_poses(num_views=3)
  with pytest.raises(ValueError, match="as many of each"):
    camera_file.write_scene_cameras(tmp_path, cameras, ["a"])
  cameras.intrinsics[1, 0] = np.nan
  with pytest.raises(ValueError, match="JSON"):
    camera_file.write_scene_cameras(tmp_path, cameras, ["a", "b", "c"])
  assert not os.listdir(tmp_path)
