"""A camera out of step, or one that moved, is named; masks that wobble accuse nobody."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np
import pytest

from jaxsplat_mouse.capture import camera_faults
from jaxsplat_mouse.capture.silhouette_coherence import Outlines, stack_outlines
from tests.capture import pose_refinement_test as film

pytest.importorskip("cv2")
LATE = 2  # the camera at fault
LAG = 0.3  # moments: its pictures are that much too old
MOMENTS = 6


def outlines_of_camera(lag: float) -> Outlines:
  """Outlines (M, ...) of the camera at fault, `lag` moments too old."""
  pose = film.true_poses()[LATE]
  rows = [[film.trace(pose, moment - lag)] for moment in range(MOMENTS)]
  return jax.tree.map(lambda leaf: leaf[:, 0], stack_outlines(rows))


@pytest.fixture(scope="module")
def right() -> Outlines:
  return film.film().select(range(MOMENTS))


def test_a_late_camera_is_named_with_its_offset(right: Outlines) -> None:
  late = camera_faults.with_view(right, LATE, outlines_of_camera(LAG))
  read = lambda view, offset: outlines_of_camera(LAG * (1 - offset)) if view == LATE else None
  fault = camera_faults.find_camera_fault(film.true_poses(), late, read)
  assert fault is not None and (fault.view, fault.offset) == (LATE, 1)
  assert fault.shifted < 0.5 * fault.contradiction
  assert "pictures 1 frame later: try --offsets=Cam:1" in fault.line("Cam")


def test_a_camera_that_moved_is_named_without_one(right: Outlines) -> None:
  moved = outlines_of_camera(0.0)
  rays, intrinsics = moved.rays.copy(), moved.intrinsics.copy()
  rays[3:] += np.array([8.0, -6.0], np.float32) / film.FOCAL  # the picture moves by 10 pixels
  intrinsics[3:, 2:] += intrinsics[3:, :2] * np.array([8.0, -6.0], np.float32) / film.FOCAL
  bumped = camera_faults.with_view(
    right, LATE, dataclasses.replace(moved, rays=rays, intrinsics=intrinsics)
  )
  fault = camera_faults.find_camera_fault(film.true_poses(), bumped, lambda view, offset: None)
  assert fault is not None and (fault.view, fault.offset) == (LATE, 0)
  assert "--without=Cam" in fault.line("Cam")


def test_right_cameras_are_not_accused(right: Outlines) -> None:
  nothing = lambda view, offset: None
  assert camera_faults.find_camera_fault(film.true_poses(), right, nothing) is None
