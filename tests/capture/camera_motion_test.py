"""One wrong camera stands alone; a motion that all cameras share is none."""

from __future__ import annotations

import numpy as np
import pytest

from jaxsplat_mouse.capture.camera_motion import camera_motions
from jaxsplat_mouse.procedural_mouse.disturb import rotation_about
from tests.capture.formats.format_fixtures import make_rig

CENTER, RADIUS, FOCAL = np.array([40.0, 30.0, 20.0]), 40.0, np.full(6, 1000.0)


def turned(pose: np.ndarray, degrees: float) -> np.ndarray:
  turn = np.eye(4)
  turn[:3, :3] = rotation_about(np.radians(degrees) * np.array([0.6, -0.8, 0.0]))
  return turn @ pose


def test_one_turned_camera_stands_alone() -> None:
  given = make_rig(6).world_to_camera
  found = given.copy()
  found[2] = turned(found[2], 1.0)
  motions = camera_motions(given, found, FOCAL, CENTER, RADIUS)
  assert motions[2] == pytest.approx(1000 * np.tan(np.radians(1.0)), rel=0.05)
  assert np.delete(motions, 2).max() < 0.3


def test_what_all_share_is_none() -> None:
  given = make_rig(6).world_to_camera
  world = np.eye(4)
  world[:3, :3] = rotation_about(np.array([0.02, -0.01, 0.03]))
  world[:3, 3] = [1.0, -2.0, 0.5]
  found = given @ world
  found[:, :3, 3] *= 1.01
  assert camera_motions(given, found, FOCAL, CENTER, RADIUS).max() < 1e-6


def test_cameras_that_are_all_off_are_so() -> None:
  rng = np.random.default_rng(0)
  given = make_rig(6).world_to_camera
  found = np.stack(
    [turned(pose, angle) for pose, angle in zip(given, rng.normal(size=6), strict=True)]
  )
  motions = camera_motions(given, found, FOCAL, CENTER, RADIUS)
  assert np.median(motions) > 2.0
