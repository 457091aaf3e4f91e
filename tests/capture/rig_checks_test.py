"""Checks that readers share: of one value, and of all cameras together."""

from __future__ import annotations

import dataclasses
import pathlib

import numpy as np
import pytest

from jaxsplat_mouse.capture import pose_conventions, rig_checks
from jaxsplat_mouse.capture.rig import Labels, project_points
from jaxsplat_mouse.io import checks
from tests.capture.formats.capture_fixtures import make_rig, refused, write_huge_header, write_image

PATH = pathlib.Path("rig.mat")


def test_numbers_of_any_type_become_float64():
  for value in ([[1, 2]], np.array([[1, 2]], np.uint8), np.array([[1, 2]], np.float32)):
    found = checks.numbers(PATH, "K", value, (None, 2))
    assert found.dtype == np.float64
    assert found.tolist() == [[1, 2]]


@pytest.mark.parametrize(
  "value",
  [[1, 2], [[1], [2, 3]], "text", None, True, [[1, 1j]], [[1, float("inf")]], [[1, 1e31]], {}],
)
def test_what_is_no_array_of_the_shape_is_refused(value):
  assert "expected N x 2 numbers" in refused(
    lambda: checks.numbers(PATH, "K", value, (None, 2)), "rig.mat", "K"
  )


def test_rotations_of_four_decimals_pass_and_worse_do_not():
  turn = make_rig().world_to_camera[1, :3, :3]
  assert np.array_equal(checks.rotation(PATH, "R", turn.round(4)), turn.round(4))
  assert "not a rotation" in refused(
    lambda: checks.rotation(PATH, "R", turn.round(2)), "rig.mat", "R"
  )


def test_skew_beyond_reason_is_refused():
  matrix = np.array([[30, 4, 5], [0, 30, 5], [0, 0, 1.0]])
  assert "skew 4" in refused(lambda: checks.intrinsics(PATH, "K", matrix), "rig.mat", "K")


@pytest.mark.parametrize("value", ["Camera 1", "cam.left", "左"])
def test_names_of_folders_pass(value: str):
  assert checks.camera_name(PATH, "names", value) == value


@pytest.mark.parametrize(
  "value", ["", " ", ".", "..", "a/b", "a\\b", "C:", "a\nb", "a\0b", None, 3]
)
def test_names_that_lead_elsewhere_are_refused(value):
  refused(lambda: checks.camera_name(PATH, "names", value), "rig.mat", "names")


@pytest.mark.parametrize("file", ["../a", "a/../../b", "/a", "C:/a", "", "a\0", ".", "x" * 9999, 5])
def test_paths_that_lead_out_are_refused(tmp_path, file):
  refused(lambda: checks.path_inside(tmp_path, file, PATH, "file_path"), "rig.mat", "file_path")


def test_camera_names_are_stems_where_those_tell_cameras_apart():
  assert checks.camera_names(["images/a.png", "images/b.png"]) == ("a", "b")
  assert checks.camera_names(["x/0.png", "y/0.png"]) == ("x_0", "y_0")


def test_headers_tell_sizes_without_decoding(tmp_path):
  assert checks.image_size(write_image(tmp_path / "a.png", (7, 5)), "f") == (7, 5)
  assert checks.image_size(write_huge_header(tmp_path / "b.png", 9000), "f") == (9000, 9000)
  for side in (20_000, 2**31 - 1):
    refused(
      lambda side=side: checks.image_size(write_huge_header(tmp_path / "b.png", side), "f"),
      "b.png",
      "f",
    )


def test_a_good_rig_passes_and_points_behind_a_camera_count_as_wrong():
  rig = make_rig()
  assert rig_checks.check_rig(PATH, rig) is rig
  points = np.random.default_rng(0).uniform([10, 0, 0], [70, 60, 40], (20, 3))
  good = dataclasses.replace(rig, labels=Labels(points=points, pixels=project_points(rig, points)))
  assert rig_checks.check_rig(PATH, good) is good
  backs = dataclasses.replace(good, world_to_camera=np.diag([1, -1, -1, 1]) @ rig.world_to_camera)
  assert np.isinf(rig_checks.label_errors(backs)).all()
  assert "median of inf" in refused(
    lambda: rig_checks.check_rig(PATH, backs), "rig.mat", "calibration"
  )


@pytest.mark.parametrize("views", [3, 4, 6])
@pytest.mark.parametrize(
  ("change", "hint"),
  [
    (pose_conventions.transpose_rotations, "rotations transposed"),
    (np.linalg.inv, "poses inverted"),
    (lambda poses: np.diag([1, -1, -1, 1]) @ poses, "OpenGL axes"),
  ],
)
def test_other_conventions_are_refused_by_name(views: int, change, hint: str):
  rig = make_rig(views)
  wrong = dataclasses.replace(rig, world_to_camera=change(rig.world_to_camera))
  assert hint in refused(lambda: rig_checks.check_rig(PATH, wrong), "rig.mat", "calibration")


def test_a_row_of_parallel_cameras_is_no_error():
  rig = make_rig()
  poses = np.tile(np.eye(4), (4, 1, 1))
  poses[:, 0, 3] = [0, 1, 2, 3]
  rig_checks.check_rig(PATH, dataclasses.replace(rig, world_to_camera=poses))
