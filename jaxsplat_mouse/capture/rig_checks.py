"""What is checked of all cameras of a calibration together; every reader's `Rig` is made here.

Cameras of a capture look at one animal, so their optical axes nearly meet before them: a rig whose
axes meet only under another convention is refused with the numbers. Labels, where there are any,
must lie where the cameras project their points.
"""

from __future__ import annotations

import pathlib
import warnings

import numpy as np

from jaxsplat_mouse.capture.pose_conventions import OPENGL_AXES, transpose_rotations
from jaxsplat_mouse.capture.rig import Rig, project
from jaxsplat_mouse.errors import InputError

# Median, of the focal length: hands are off by a few pixels, wrong conventions by hundreds.
MAX_LABEL_ERROR = 0.01
_MISS = 0.1  # of the distance to where the axes meet, from which other conventions are tried
_GAIN = 3.0  # times nearer that the axes must meet under one of them


def check_rig(path: pathlib.Path, rig: Rig) -> Rig:
  """The rig, whose cameras were checked one by one, if it holds together.

  Raises:
    InputError: no camera, one given twice, cameras that do not look at one place, or labels that
      the calibration does not bring back to where they were made.
  """
  if len(rig) == 0:
    raise InputError(path, "", "no camera; expected at least one")
  doubles = [name for i, name in enumerate(rig.names) if name in rig.names[:i]]
  if doubles:
    raise InputError(path, doubles[0], "named twice; expected one camera a name")
  _check_different(path, rig)
  _check_labels(path, rig)
  _check_meeting(path, rig)
  return rig


def label_errors(rig: Rig) -> np.ndarray:
  """Median distance in pixels between labels and their projections, (V,); NaN without labels."""
  if rig.labels is None:
    return np.full(len(rig), np.nan)
  pixels = rig.labels.pixels
  with np.errstate(all="ignore"):  # labels of a broken file may be any number
    off = np.linalg.norm(project(rig, rig.labels.points) - pixels, axis=-1)
  # a point that was labelled in an image but lies behind its camera is wrong by any measure
  off = np.where(np.isnan(off) & np.isfinite(pixels).all(-1), np.inf, off)
  with warnings.catch_warnings():
    warnings.simplefilter("ignore", RuntimeWarning)  # a camera without any label
    return np.nanmedian(off, axis=-1)


def meeting(world_to_camera: np.ndarray) -> tuple[float, int] | None:
  """How near the optical axes of cameras (V, 4, 4) come to meeting.

  Returns:
    The mean distance of the axes from the point nearest to all, as a share of its distance, and
    the number of cameras that have it before them; None where the axes are parallel.
  """
  rotations, translations = world_to_camera[:, :3, :3], world_to_camera[:, :3, 3]
  centers = -np.einsum("vij,vi->vj", rotations, translations)
  axes = rotations[:, 2]
  across = np.eye(3) - axes[:, :, None] * axes[:, None, :]
  gram = across.sum(0)
  if np.linalg.cond(gram) > 1e4:
    return None
  point = np.linalg.solve(gram, np.einsum("vij,vj->i", across, centers))
  miss = np.linalg.norm(np.einsum("vij,vj->vi", across, point - centers), axis=-1)
  distance = np.linalg.norm(point - centers, axis=-1)
  before = int((((point - centers) * axes).sum(-1) > 0).sum())
  return float((miss / np.maximum(distance, 1e-12)).mean()), before


def _check_different(path: pathlib.Path, rig: Rig) -> None:
  """Refuses a camera that stands and looks exactly as another."""
  reach = max(float(np.abs(rig.centers - rig.centers.mean(0)).max()), 1e-9)
  place = np.concatenate([rig.world_to_camera[:, :3, :3].reshape(-1, 9), rig.centers / reach], 1)
  for i in range(1, len(rig)):
    same = np.flatnonzero(np.abs(place[:i] - place[i]).max(1) < 1e-6)
    if len(same):
      problem = f"the same pose as {rig.names[same[0]]}; expected different viewpoints"
      raise InputError(path, rig.names[i], problem)


def _check_labels(path: pathlib.Path, rig: Rig) -> None:
  errors, limits = label_errors(rig), MAX_LABEL_ERROR * rig.matrices[:, 0, 0]
  if np.any(errors > limits):
    told = " ".join(f"{e:.1f}" for e in errors)
    problem = f"the labels are a median of {told} px from where the cameras project them"
    raise InputError(path, "calibration", f"{problem}; expected at most {limits.min():.1f}")


def _check_meeting(path: pathlib.Path, rig: Rig) -> None:
  """Refuses poses that make sense only under another convention, and says which."""
  poses, count = rig.world_to_camera, len(rig)
  if count < 3:
    return
  found = meeting(poses)
  miss, before = found or (np.inf, count)
  others = {
    "with the rotations transposed (row vectors)": transpose_rotations(poses),
    "with the poses inverted (camera-to-world)": np.linalg.inv(poses),
    "with OpenGL axes (y and z flipped)": OPENGL_AXES @ poses,
  }
  tried = {how: meeting(other) for how, other in others.items()}
  fits = {how: m[0] for how, m in tried.items() if m is not None and m[1] == count}
  best = min(fits, key=fits.__getitem__) if fits else ""
  better = miss > _MISS and best != "" and fits[best] < min(miss / _GAIN, _MISS)
  if before < 0.5 * count:
    problem = f"{count - before} of {count} cameras have their backs to where they would meet"
  elif better and found is None:
    problem = "the cameras' axes are parallel"
  elif better:
    problem = f"the cameras' axes miss one another by {miss:.0%} of the distance"
  else:
    return
  hint = f"; {best} they meet to {fits[best]:.0%}" if best else ""
  expected = "; expected OpenCV world-to-camera poses of cameras that look at one animal"
  raise InputError(path, "calibration", problem + hint + expected)
