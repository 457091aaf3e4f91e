"""By how much each camera of a rig was off, as a person would say it.

Corrected poses keep the world of the given calibration in the mean of all cameras, so that one
camera that was turned seems to have turned all others a little the other way. Here the world is
kept by most cameras: what all cameras share is the motion that leaves the sum of their own motions
least, not of the squares, so a single wrong camera stands alone.
"""

from __future__ import annotations

import numpy as np

_BOX = 0.6  # half the side of the box around the animal, radii
_STEPS = 20
_LEAST = 0.2  # pixels: motions below it weigh alike
_NUDGE = 1e-6


def camera_motions(
  given: np.ndarray, found: np.ndarray, focal: np.ndarray, center: np.ndarray, radius: float
) -> np.ndarray:
  """Computes how far points near the animal move in each camera, but for what all cameras share.

  Args:
    given: (V, 4, 4) world to camera.
    found: (V, 4, 4) other poses of the same cameras.
    focal: (V,) focal lengths, pixels.
    center: (3,) of the animal.
    radius: of the animal.

  Returns:
    (V,) root mean square motion, pixels.
  """
  line = np.linspace(-_BOX, _BOX, 4)
  box = np.stack(np.meshgrid(line, line, line), -1).reshape(-1, 3)
  wanted = _slopes(given, center + radius * box)

  def motions(shared: np.ndarray) -> np.ndarray:
    """(V, N, 2) pixels that points move by, after a motion and growth (7,) of the world."""
    turned = np.exp(shared[6]) * box @ _rotation(shared[:3]).T
    points = center + radius * (turned + shared[3:6])
    return focal[:, None, None] * (_slopes(found, points) - wanted)

  shared = np.zeros(7)
  for _ in range(_STEPS):
    now = motions(shared)
    weight = 1.0 / np.maximum(_sizes(now), _LEAST)
    columns = [(motions(shared + _NUDGE * axis) - now) / _NUDGE for axis in np.eye(7)]
    jacobian = np.stack(columns, -1) * np.sqrt(weight)[:, None, None, None]
    target = -now * np.sqrt(weight)[:, None, None]
    step = np.linalg.lstsq(jacobian.reshape(-1, 7), target.reshape(-1), rcond=None)[0]
    shared = shared + step
    if np.abs(step).max() < 1e-9:
      break
  return _sizes(motions(shared))


def _slopes(poses: np.ndarray, points: np.ndarray) -> np.ndarray:
  """x / z and y / z (V, N, 2) of points (N, 3) in cameras (V, 4, 4)."""
  seen = np.einsum("vij,nj->vni", poses[:, :3, :3], points) + poses[:, None, :3, 3]
  return seen[..., :2] / seen[..., 2:]


def _rotation(vector: np.ndarray) -> np.ndarray:
  """Rotation (3, 3) about a vector (3,) by its length in radians (Rodrigues)."""
  angle = float(np.linalg.norm(vector))
  x, y, z = vector
  cross = np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])
  around = np.sinc(angle / np.pi) * cross
  return np.eye(3) + around + 0.5 * np.sinc(angle / (2 * np.pi)) ** 2 * cross @ cross


def _sizes(motions: np.ndarray) -> np.ndarray:
  """Root mean squares (V,) of motions (V, N, 2)."""
  return np.sqrt(np.square(motions).sum(-1).mean(-1))
