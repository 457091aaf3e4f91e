"""Checks of a whole calibration; every format reader passes its `Rig` through `check_rig`.

All cameras of a capture look at one animal, so their optical axes nearly meet in front of them. A
rig whose axes meet only under another pose convention is refused, and the message names that
convention. Labels, if the file has any, must lie where the cameras project their points.
"""

from __future__ import annotations

import pathlib
import warnings

import numpy as np

from jaxsplat_mouse.cameras import nearest_point_to_axes
from jaxsplat_mouse.capture.pose_conventions import OPENGL_AXES, transpose_rotations
from jaxsplat_mouse.capture.rig import Rig, project_points
from jaxsplat_mouse.errors import InputError

# Median label error as a share of the focal length: people are off by a few pixels, wrong
# conventions by hundreds.
MAX_LABEL_ERROR = 0.01
# Other conventions are tried if the axes miss one another by more than this share of the distance.
_MAX_MISS = 0.1
_MIN_GAIN = 3.0  # another convention must bring the axes this many times nearer to be named


def check_rig(path: pathlib.Path, rig: Rig) -> Rig:
  """Returns a rig whose cameras are consistent with one another.

  Args:
    path: the calibration file, for messages.
    rig: cameras that were checked one by one (`io.checks`).

  Returns:
    The same rig.

  Raises:
    InputError: there is no camera, a name or a pose occurs twice, the cameras do not look at one
      place, or the labels are far from their projections.
  """
  if len(rig) == 0:
    raise InputError(path, "", "no camera; expected at least one")
  doubles = [name for i, name in enumerate(rig.names) if name in rig.names[:i]]
  if doubles:
    raise InputError(path, doubles[0], "named twice; expected a different name for each camera")
  _check_different(path, rig)
  _check_labels(path, rig)
  _check_axes(path, rig)
  return rig


def label_errors(rig: Rig) -> np.ndarray:
  """Median distance in pixels between labels and their projections, (V,); NaN without labels."""
  if rig.labels is None:
    return np.full(len(rig), np.nan)
  pixels = rig.labels.pixels
  with np.errstate(all="ignore"):  # labels of a broken file may be any number
    off = np.linalg.norm(project_points(rig, rig.labels.points) - pixels, axis=-1)
  # A point that is labelled in an image but lies behind its camera is wrong by any measure.
  off = np.where(np.isnan(off) & np.isfinite(pixels).all(-1), np.inf, off)
  with warnings.catch_warnings():
    warnings.simplefilter("ignore", RuntimeWarning)  # a camera without any label
    return np.nanmedian(off, axis=-1)


def axes_miss(world_to_camera: np.ndarray) -> tuple[float, int] | None:
  """Measures how far the optical axes of cameras (V, 4, 4) are from meeting in one point.

  Returns:
    The mean distance of the axes from the point nearest to all of them, as a share of the cameras'
    distance from it, and the number of cameras that have it in front; None for parallel axes.
  """
  point = nearest_point_to_axes(world_to_camera)
  if point is None:
    return None
  seen = world_to_camera[:, :3, :3] @ point + world_to_camera[:, :3, 3]
  miss = np.linalg.norm(seen[:, :2], axis=-1)
  distance = np.linalg.norm(seen, axis=-1)
  return float((miss / np.maximum(distance, 1e-12)).mean()), int((seen[:, 2] > 0).sum())


def _check_different(path: pathlib.Path, rig: Rig) -> None:
  """Refuses two cameras of one position and orientation."""
  reach = max(float(np.abs(rig.centers - rig.centers.mean(0)).max()), 1e-9)
  place = np.concatenate([rig.world_to_camera[:, :3, :3].reshape(-1, 9), rig.centers / reach], 1)
  for i in range(1, len(rig)):
    same = np.flatnonzero(np.abs(place[:i] - place[i]).max(1) < 1e-6)
    if len(same):
      problem = f"the same pose as {rig.names[same[0]]}; expected different viewpoints"
      raise InputError(path, rig.names[i], problem)


def _check_labels(path: pathlib.Path, rig: Rig) -> None:
  """Refuses labels that are far from where the cameras project their points."""
  errors, limits = label_errors(rig), MAX_LABEL_ERROR * rig.matrices[:, 0, 0]
  if np.any(errors > limits):
    listed = " ".join(f"{e:.1f}" for e in errors)
    problem = f"the labels are a median of {listed} px from where the cameras project them"
    raise InputError(path, "calibration", f"{problem}; expected at most {limits.min():.1f}")


def _check_axes(path: pathlib.Path, rig: Rig) -> None:
  """Refuses poses that make sense only under another convention, and names it."""
  poses, count = rig.world_to_camera, len(rig)
  if count < 3:
    return
  found = axes_miss(poses)
  miss, in_front = found or (np.inf, count)
  others = {
    "with the rotations transposed (row vectors)": transpose_rotations(poses),
    "with the poses inverted (camera-to-world)": np.linalg.inv(poses),
    "with OpenGL axes (y and z flipped)": OPENGL_AXES @ poses,
  }
  tried = {how: axes_miss(other) for how, other in others.items()}
  fits = {how: m[0] for how, m in tried.items() if m is not None and m[1] == count}
  best = min(fits, key=fits.__getitem__) if fits else ""
  better = miss > _MAX_MISS and best != "" and fits[best] < min(miss / _MIN_GAIN, _MAX_MISS)
  if in_front < 0.5 * count:
    problem = f"{count - in_front} of {count} cameras have their backs to where they would meet"
  elif better and found is None:
    problem = "the cameras' axes are parallel"
  elif better:
    problem = f"the cameras' axes miss one another by {miss:.0%} of the distance"
  else:
    return
  hint = f"; {best} they meet to {fits[best]:.0%}" if best else ""
  expected = "; expected OpenCV world-to-camera poses of cameras that look at one animal"
  raise InputError(path, "calibration", problem + hint + expected)
