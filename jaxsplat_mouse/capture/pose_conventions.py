"""Conventions of camera poses, and the changes from one to another.

The package's poses are OpenCV's: world-to-camera, column vectors, x right, y down, z forward.
"""

from __future__ import annotations

import numpy as np

# Left of a world-to-camera pose: from OpenGL's axes (y up, z backward) to OpenCV's, and back.
OPENGL_AXES = np.diag([1.0, -1.0, -1.0, 1.0])


def transpose_rotations(poses: np.ndarray) -> np.ndarray:
  """Returns poses (V, 4, 4) with transposed rotations, as written for row vectors (MATLAB)."""
  changed = poses.copy()
  changed[:, :3, :3] = poses[:, :3, :3].transpose(0, 2, 1)
  return changed


def centers_to_translations(poses: np.ndarray) -> np.ndarray:
  """Returns poses (V, 4, 4) whose last column held the cameras' centres C; it becomes -R C."""
  changed = poses.copy()
  changed[:, :3, 3] = -np.einsum("vij,vj->vi", poses[:, :3, :3], poses[:, :3, 3])
  return changed
