"""Hypotheses about what is wrong with a calibration: the mistakes that files most often contain.

A hypothesis changes how the numbers of a calibration are understood; the silhouettes stay as they
were seen. If the silhouettes agree on a solid under one hypothesis only, it names the mistake.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping

import numpy as np

from jaxsplat_mouse.capture.crops import Crop
from jaxsplat_mouse.capture.lens import Pinhole
from jaxsplat_mouse.capture.pose_conventions import (
  OPENGL_AXES,
  centers_to_translations,
  transpose_rotations,
)

_SIZE_FACTORS = (0.25, 0.5, 2.0, 4.0)


@dataclasses.dataclass(frozen=True, kw_only=True)
class CalibrationHypothesis:
  """One way to understand a calibration.

  Attributes:
    name: the mistake that the hypothesis assumes, as a clause.
    poses: maps the poses (V, 4, 4) of the file to world-to-camera poses.
    crop: maps a crop, with its photograph's width and height, to the crop as it was meant.
    without: number of a camera that is left out; None for none.
    exchanges: whether two cameras are exchanged, which no pose of a right pairing imitates.
  """

  name: str
  poses: Callable[[np.ndarray], np.ndarray] = lambda poses: poses
  crop: Callable[[Crop, tuple[int, int]], Crop] = lambda crop, size: crop
  without: int | None = None
  exchanges: bool = False


def flip_crop(crop: Crop, size: tuple[int, int], across: bool, down: bool) -> Crop:
  """Mirrors a crop about the middle of its photograph.

  The lens is left as it is, which is right to within a few pixels.

  Args:
    crop: the crop.
    size: width and height of the photograph, pixels.
    across: mirror left and right.
    down: mirror top and bottom.
  """
  fx, fy, cx, cy = crop.intrinsics
  height, width = crop.rgba.shape[:2]
  scale, rgba = crop.region.scale, crop.rgba
  if across:
    rgba = rgba[:, ::-1]
    cx += scale * (2 * crop.region.left - size[0]) + width
  if down:
    rgba = rgba[::-1]
    cy += scale * (2 * crop.region.top - size[1]) + height
  return dataclasses.replace(crop, rgba=rgba, intrinsics=np.array([fx, fy, cx, cy]))


def rescale_intrinsics(crop: Crop, factor: float) -> Crop:
  """Corrects a crop whose intrinsics were given for photographs 1 / factor times as large."""
  shift = crop.region.scale * np.array([crop.region.left, crop.region.top])
  fx, fy, cx, cy = crop.intrinsics
  moved = (np.array([cx, cy]) + shift) * factor - shift
  return dataclasses.replace(crop, intrinsics=np.array([fx * factor, fy * factor, *moved]))


def exchange_cameras(first: int, second: int) -> Callable[[np.ndarray], np.ndarray]:
  """Returns a function that exchanges the poses (V, 4, 4) of two cameras."""

  def change(poses: np.ndarray) -> np.ndarray:
    order = np.arange(len(poses))
    order[[first, second]] = second, first
    return poses[order]

  return change


def exchange_intrinsics(
  first: int, second: int, pinholes: Mapping[int, Pinhole], matrices: np.ndarray
) -> Callable[[Crop, tuple[int, int]], Crop]:
  """Returns a function that gives the crops of two cameras each the intrinsics of the other.

  The lens is left as it is, which is right to within a few pixels for two of one make.

  Args:
    first: one camera.
    second: the other.
    pinholes: the ideal cameras that crops are parts of, by number of the camera.
    matrices: (V, 3, 3) of the photographs.
  """

  def change(crop: Crop, size: tuple[int, int]) -> Crop:
    del size
    if crop.view not in (first, second):
      return crop
    own, other = matrices[crop.view], matrices[second if crop.view == first else first]
    focal = pinholes[crop.view].intrinsics[:2] / np.diag(own)[:2]  # pinhole pixels per raw pixel
    moved = crop.intrinsics.copy()
    moved[:2] = crop.region.scale * focal * np.diag(other)[:2]
    moved[2:] += crop.region.scale * focal * (other[:2, 2] - own[:2, 2])
    return dataclasses.replace(crop, intrinsics=moved)

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
    poses=lambda poses: OPENGL_AXES @ poses,
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
    for factor in _SIZE_FACTORS
  ),
)
