"""Other readings of a calibration: the mistakes that files and scripts make most often.

A reading changes how the numbers of a calibration are understood and leaves the silhouettes as they
were seen. If the silhouettes agree on a solid under another reading only, that is what went wrong.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np

from jaxsplat_mouse.capture.crops import Crop
from jaxsplat_mouse.capture.pose_conventions import (
  OPENGL_AXES,
  centers_to_translations,
  transpose_rotations,
)

_SIZES = (0.25, 0.5, 2.0, 4.0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class CalibrationHypothesis:
  """One way to understand a calibration.

  Attributes:
    name: what is the case if this reading is the right one.
    poses: (V, 4, 4) as given -> as meant, world to camera.
    crop: a crop and its photograph's width and height as given -> as meant.
    without: a camera that has no say, or None.
  """

  name: str
  poses: Callable[[np.ndarray], np.ndarray] = lambda poses: poses
  crop: Callable[[Crop, tuple[int, int]], Crop] = lambda crop, size: crop
  without: int | None = None


def flip_crop(crop: Crop, size: tuple[int, int], across: bool, down: bool) -> Crop:
  """A crop of the photograph mirrored left-right (`across`) or top-bottom (`down`).

  Mirrored about the photograph's middle; the lens is left as it is, which is within a few pixels.
  """
  fx, fy, cx, cy = crop.intrinsics
  height, width = crop.rgba.shape[:2]
  scale, rgba = crop.cut.scale, crop.rgba
  if across:
    rgba = rgba[:, ::-1]
    cx += scale * (2 * crop.cut.left - size[0]) + width
  if down:
    rgba = rgba[::-1]
    cy += scale * (2 * crop.cut.top - size[1]) + height
  return dataclasses.replace(crop, rgba=rgba, intrinsics=np.array([fx, fy, cx, cy]))


def rescale_intrinsics(crop: Crop, factor: float) -> Crop:
  """A crop whose intrinsics were given for photographs 1 / factor as large."""
  shift = crop.cut.scale * np.array([crop.cut.left, crop.cut.top])
  fx, fy, cx, cy = crop.intrinsics
  moved = (np.array([cx, cy]) + shift) * factor - shift
  return dataclasses.replace(crop, intrinsics=np.array([fx * factor, fy * factor, *moved]))


def exchange_cameras(first: int, second: int) -> Callable[[np.ndarray], np.ndarray]:
  """Poses with those of two cameras exchanged."""

  def change(poses: np.ndarray) -> np.ndarray:
    order = np.arange(len(poses))
    order[[first, second]] = second, first
    return poses[order]

  return change


AS_GIVEN = CalibrationHypothesis(name="as given")
COMMON_MISTAKES = (
  CalibrationHypothesis(
    name="the rotations are transposed (row vectors, as in MATLAB)", poses=transpose_rotations
  ),
  CalibrationHypothesis(
    name="the poses are camera-to-world, not world-to-camera", poses=np.linalg.inv
  ),
  CalibrationHypothesis(
    name="the poses have OpenGL axes (y up, z backward), not OpenCV's",
    poses=lambda p: OPENGL_AXES @ p,
  ),
  CalibrationHypothesis(
    name="the poses are camera-to-world with OpenGL axes",
    poses=lambda poses: OPENGL_AXES @ np.linalg.inv(poses),
  ),
  CalibrationHypothesis(
    name="the translations are the cameras' centres, not -R C", poses=centers_to_translations
  ),
  CalibrationHypothesis(
    name="the photographs are mirrored left-right",
    crop=lambda crop, size: flip_crop(crop, size, True, False),
  ),
  CalibrationHypothesis(
    name="the photographs are mirrored top-bottom",
    crop=lambda crop, size: flip_crop(crop, size, False, True),
  ),
  CalibrationHypothesis(
    name="the photographs are turned by 180 degrees",
    crop=lambda crop, size: flip_crop(crop, size, True, True),
  ),
  *(
    CalibrationHypothesis(
      name=f"the intrinsics are for photographs {1 / factor:g} times as large",
      crop=lambda crop, size, factor=factor: rescale_intrinsics(crop, factor),  # type: ignore[misc]
    )
    for factor in _SIZES
  ),
)
