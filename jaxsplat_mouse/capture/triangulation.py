"""Points in space from their places in several images, by the direct linear transform.

Labels of a calibration file were triangulated with its own cameras: where cameras are corrected,
the places in the images stay, as a person or a network marked them, and the points follow.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from jaxsplat_mouse.capture.lens import to_normalized
from jaxsplat_mouse.capture.rig import Labels, Rig


def triangulate(projections: np.ndarray, pixels: np.ndarray) -> np.ndarray:
  """Triangulates points by the direct linear transform.

  Args:
    projections: (V, 3, 4) world to homogeneous pixels.
    pixels: (V, N, 2), NaN where a camera does not see the point.

  Returns:
    (N, 3) in the world.
  """
  seen = np.isfinite(pixels).all(-1)
  flat = np.where(seen[..., None], pixels, 0.0)
  rows = flat[..., None] * projections[:, None, 2:] - projections[:, None, :2]
  rows = np.where(seen[..., None, None], rows, 0.0) / np.abs(projections[:, None, :2]).max(
    (2, 3), keepdims=True
  )
  system = rows.transpose(1, 0, 2, 3).reshape(pixels.shape[1], -1, 4)
  homogeneous = np.linalg.svd(system, full_matrices=False)[2][:, -1]
  return homogeneous[:, :3] / homogeneous[:, 3:]


def triangulate_raw(rig: Rig, pixels: np.ndarray) -> np.ndarray:
  """Triangulates points from raw photographs, lens and skew included.

  Args:
    rig: V cameras.
    pixels: (V, N, 2), centres at +0.5; NaN where a camera does not see the point.

  Returns:
    (N, 3) in the world; NaN for points that fewer than two cameras see.
  """
  straight = np.full(pixels.shape, np.nan)
  for view, own in enumerate(pixels):
    seen = np.isfinite(own).all(-1)
    straight[view, seen] = to_normalized(rig, view, own[seen])
  enough = np.isfinite(straight).all(-1).sum(0) >= 2
  points = np.full((pixels.shape[1], 3), np.nan)
  points[enough] = triangulate(rig.world_to_camera[:, :3], straight[:, enough])
  return points


def labels_follow(rig: Rig) -> Rig:
  """Returns a rig whose labelled points are triangulated with its own cameras."""
  if rig.labels is None:
    return rig
  points = triangulate_raw(rig, rig.labels.pixels)
  points = np.where(np.isfinite(points), points, rig.labels.points)
  return dataclasses.replace(rig, labels=Labels(points=points, pixels=rig.labels.pixels))
