"""Checks of all cameras together: good rigs pass, other conventions are refused by name."""

from __future__ import annotations

import dataclasses
import pathlib

import numpy as np
import pytest

from jaxsplat_mouse.capture import pose_conventions, rig_checks
from jaxsplat_mouse.capture.rig import Labels, project_points
from tests.capture.formats.format_fixtures import make_rig
from tests.io.file_fixtures import refused

PATH = pathlib.Path("rig.mat")


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
