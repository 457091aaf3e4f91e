"""Faults of recordings, for `recordings.py`: what labs get wrong, in the amounts they do."""

from __future__ import annotations

import dataclasses
import math

import cv2
import numpy as np

from benchmarks import matte_film
from jaxsplat_mouse.capture.rig import Rig
from jaxsplat_mouse.procedural_mouse.disturb import exposure_gains, rotation_about

BUMPED_CAMERA = 2
SWAPPED_CAMERAS = 1, 4
_WAVE = 12.0  # pixels, the width of a wobble


@dataclasses.dataclass(frozen=True, kw_only=True)
class Fault:
  """What is wrong with what a recording says about its pictures.

  Attributes:
    turn: standard deviation of each camera's turn about each of its axes, degrees.
    shift: of its centre along each axis, millimetres.
    focal: of its focal length, relative.
    grow: pixels by which masks are too wide; negative for too narrow.
    wobble: pixels by which their outlines wobble, smoothly, anew in every picture.
    hard: masks have no soft edge.
    holes: masks have holes, a bite, and a piece of shadow that is taken for the animal.
    late: `recording_films.LATE_CAMERA` delivers the frame before.
    bump: degrees by which `BUMPED_CAMERA` is turned half-way through the recording.
    swapped: `SWAPPED_CAMERAS` have each other's files.
    exposure: spread of the cameras' gains.
    most_lost: dB that `prepare` may lose against the recording without faults; None where no limit
      is set, or where the recording has to be refused.
  """

  turn: float = 0.0
  shift: float = 0.0
  focal: float = 0.0
  grow: float = 0.0
  wobble: float = 0.0
  hard: bool = False
  holes: bool = False
  late: bool = False
  bump: float = 0.0
  swapped: bool = False
  exposure: float = 0.0
  most_lost: float | None = None


FAULTS = {
  "none": Fault(most_lost=0.05),
  "pose_0.15": Fault(turn=0.15, shift=0.5, most_lost=0.5),
  "pose_0.5": Fault(turn=0.5, shift=1.0),
  "pose_1": Fault(turn=1.0, shift=5.0, most_lost=1.0),
  "pose_2": Fault(turn=2.0, most_lost=1.5),
  "focal": Fault(focal=0.003),
  "calibration": Fault(turn=0.15, shift=0.5, focal=0.002),
  "wide": Fault(grow=2, most_lost=1.0),
  "narrow": Fault(grow=-1),
  "wobble": Fault(grow=1, wobble=1, hard=True, most_lost=1.0),
  "holes": Fault(holes=True),
  "late": Fault(late=True, most_lost=1.0),
  "bumped": Fault(bump=1.0),
  "exposure": Fault(exposure=0.15),
  "swapped": Fault(swapped=True),
  "all": Fault(turn=0.5, grow=1, wobble=1, hard=True, exposure=0.15, most_lost=1.5),
}


def spoil_rig(rig: Rig, fault: Fault, seed: int) -> Rig:
  """Returns a rig (V,) in millimetres as a wrong calibration describes it."""
  rng = np.random.default_rng([seed, 1])
  poses, matrices = rig.world_to_camera.copy(), rig.matrices.copy()
  for i, pose in enumerate(poses):
    center = -pose[:3, :3].T @ pose[:3, 3] + fault.shift * rng.normal(size=3)
    pose[:3, :3] = rotation_about(math.radians(fault.turn) * rng.normal(size=3)) @ pose[:3, :3]
    pose[:3, 3] = -pose[:3, :3] @ center
    # The skew is a share of the focal length; the principal point stays.
    matrices[i, :2, :2] *= 1.0 + fault.focal * rng.normal()
  return dataclasses.replace(rig, world_to_camera=poses, matrices=matrices)


def spoil_mask(alpha: np.ndarray, fault: Fault, rng: np.random.Generator) -> np.ndarray:
  """Returns a mask (H, W) uint8 as a bad segmentation gives it."""
  mask = alpha
  if fault.grow or fault.wobble or fault.hard:
    offset: float | np.ndarray = fault.grow
    if fault.wobble:
      noise = cv2.GaussianBlur(rng.normal(size=alpha.shape).astype(np.float32), (0, 0), _WAVE)
      offset = fault.grow + fault.wobble * noise / noise.std()
    mask = matte_film.move_outline(alpha, offset, hard=fault.hard)
  return matte_film.bite(mask, rng) if fault.holes else mask


def camera_gains(fault: Fault, views: int, seed: int) -> np.ndarray:
  """Returns the exposure (V, 3) of each camera."""
  if not fault.exposure:
    return np.ones((views, 3), np.float32)
  return exposure_gains(views, seed, fault.exposure)


def bump_of(fault: Fault, seed: int) -> np.ndarray:
  """Returns the turn (3, 3) of `BUMPED_CAMERA`, old camera axes to new ones."""
  axis = np.random.default_rng([seed, 3]).normal(size=3)
  return rotation_about(math.radians(fault.bump) * axis / np.linalg.norm(axis))


def stream_order(fault: Fault, views: int) -> list[int]:
  """Returns the number (V,) of the camera whose pictures each camera's files hold."""
  order = list(range(views))
  if fault.swapped:
    a, b = SWAPPED_CAMERAS
    order[a], order[b] = order[b], order[a]
  return order
