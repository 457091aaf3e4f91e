"""Checks of single values: what is accepted, and the message for everything else."""

from __future__ import annotations

import pathlib

import numpy as np
import pytest

from jaxsplat_mouse.cameras import look_at
from jaxsplat_mouse.io import checks
from tests.io.file_fixtures import refused

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
  turn = look_at((300.0, 20.0, 100.0), (0.0, 1.0, 2.0))[:3, :3]
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


def test_camera_names_are_stems_where_those_are_unique():
  assert checks.camera_names(["images/a.png", "images/b.png"]) == ("a", "b")
  assert checks.camera_names(["x/0.png", "y/0.png"]) == ("x_0", "y_0")
