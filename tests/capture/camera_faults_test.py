"""A camera that moved, or that contradicts the others all the time, is named; others are not."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from jaxsplat_mouse.capture import camera_faults, pose_refinement
from jaxsplat_mouse.capture.silhouette_coherence import Outlines
from tests.capture import pose_refinement_test as film

pytest.importorskip("cv2")
BLAMED, START = 2, 5
KICK = np.array([5.0, -4.0], np.float32) / film.FOCAL  # the picture moves by six pixels


@pytest.fixture(scope="module")
def right() -> Outlines:
  return film.film()


def kicked(outlines: Outlines, moments: np.ndarray | slice, view: int = BLAMED) -> Outlines:
  """The outlines with the pictures of one camera moved in some moments."""
  leaves = {name: np.array(getattr(outlines, name)) for name in ("rays", "intrinsics", "centroids")}
  leaves["rays"][moments, view] += KICK
  leaves["centroids"][moments, view] += KICK
  leaves["intrinsics"][moments, view, 2:] -= leaves["intrinsics"][moments, view, :2] * KICK
  return dataclasses.replace(outlines, **leaves)


def test_a_camera_that_moved_is_named_with_the_moment(right: Outlines) -> None:
  bumped = kicked(right, slice(START, None))
  poses, _ = pose_refinement.fit_poses(film.shaken(0.3), bumped, stages=film.STAGES)
  fault = camera_faults.find_camera_fault(poses, bumped, stages=film.STAGES)
  assert fault is not None and fault.move is not None
  assert (fault.view, fault.move.start) == (BLAMED, START)
  assert abs(fault.move.pixels - 6.4) < 1.0 and fault.without < 0.3 * fault.contradiction
  moments = range(0, 80, 10)
  text = fault.line("Cam", moments)
  assert "moved between the moments 40 and 50" in text and "--without=Cam" in text
  assert fault.to_json("Cam", moments)["moved"]["between"] == [40, 50]


def test_a_camera_that_wobbles_is_named_with_its_residual(right: Outlines) -> None:
  loose = kicked(right, slice(0, None, 3))
  fault = camera_faults.find_camera_fault(film.true_poses(), loose, stages=film.STAGES)
  assert fault is not None and fault.view == BLAMED and fault.move is None
  residuals = np.array(fault.residuals)
  assert residuals[::3].min() > 1.0 > np.delete(residuals, [0, 3, 6]).max()
  assert "in the quarters of the recording" in fault.line("Cam", range(8))


def test_right_cameras_are_not_accused(right: Outlines) -> None:
  assert camera_faults.find_camera_fault(film.true_poses(), right, stages=film.STAGES) is None
