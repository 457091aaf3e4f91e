"""Checks cameras and silhouettes: the FaceLift orbit, intrinsics, one common solid."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Sequence

import numpy as np

from jaxsplat_mouse.validation.rules import Rules

POSE_TOLERANCE = 1e-5
PIXEL_TOLERANCE = 1e-3


@dataclasses.dataclass(frozen=True, kw_only=True)
class Frame:
  """One frame that could be read.

  Attributes:
    w2c: (4, 4).
    intrinsics: (4,) fx fy cx cy.
    mask: (h, w) bool, alpha > 127.
    hidden: (h, w) bool, pixels that `observed_path` marks as not observed; None for none.
  """

  w2c: np.ndarray
  intrinsics: np.ndarray
  mask: np.ndarray
  hidden: np.ndarray | None = None

  @property
  def possible(self) -> np.ndarray:
    """(h, w) bool, the pixels that the object covers or may cover."""
    return self.mask if self.hidden is None else self.mask | self.hidden


def check_rigid(w2c: np.ndarray) -> Iterator[str]:
  """Yields what keeps a (4, 4) matrix from being a rotation and a translation."""
  if np.abs(w2c[3] - [0, 0, 0, 1]).max() > 1e-6:
    yield f"last row {w2c[3].tolist()}; expected [0, 0, 0, 1]"
  rotation = w2c[:3, :3]
  determinant = np.linalg.det(rotation)
  if determinant < 0:
    yield f"mirrored, determinant {determinant:.3f}; expected +1 (one axis is flipped)"
  elif np.abs(rotation @ rotation.T - np.eye(3)).max() > POSE_TOLERANCE:
    yield f"not a rotation (determinant {determinant:.3f}); expected orthonormal rows"


def check_intrinsics(intrinsics: np.ndarray, rules: Rules) -> Iterator[str]:
  """Yields what differs in fx fy cx cy, pixels, from the field of view and the image's middle."""
  focal = rules.size / 2 / math.tan(math.radians(rules.fov / 2))
  for name, value in zip(("fx", "fy"), intrinsics[:2], strict=True):
    if abs(value - focal) > PIXEL_TOLERANCE:
      fov = math.degrees(2 * math.atan2(rules.size / 2, value))
      yield f"{name}: {value:.4f} (FOV {fov:.2f}); expected {focal:.4f} (FOV {rules.fov:g})"
  for name, value in zip(("cx", "cy"), intrinsics[2:], strict=True):
    if abs(value - rules.size / 2) > PIXEL_TOLERANCE:
      yield f"{name}: {value:.4f}; expected {rules.size / 2:g}"


def orbit_pose(azimuth: float, elevation: float, distance: float) -> np.ndarray:
  """Returns the world-to-camera matrix (4, 4) of an orbit camera.

  The camera is in the direction (azimuth, elevation) and looks at the origin: its right is the
  horizontal tangent, its down the downward tangent of the sphere, its forward the inward radius.

  Args:
    azimuth: counter-clockwise from +X, radians.
    elevation: above the XY plane, radians.
    distance: from the origin, world units.

  Returns:
    float64 (4, 4).
  """
  ca, sa, ce, se = (f(v) for v in (azimuth, elevation) for f in (math.cos, math.sin))
  return np.array(
    [
      [-sa, ca, 0.0, 0.0],
      [se * ca, se * sa, -ce, 0.0],
      [-ce * ca, -ce * sa, -se, distance],
      [0.0, 0.0, 0.0, 1.0],
    ]
  )


def check_pose(w2c: np.ndarray, index: int, rules: Rules) -> Iterator[str]:
  """Yields how far a camera is off the orbit, and the likely mistake.

  Args:
    w2c: (4, 4) world-to-camera.
    index: of the camera on the orbit, from 0.
    rules: the orbit.
  """
  step, lift = 2 * math.pi / rules.views, math.radians(rules.elevation)
  expected = orbit_pose(index * step, lift, rules.distance)
  off = np.abs(w2c - expected).max()
  if off > POSE_TOLERANCE:
    hint = _explain(w2c, index * step, lift, rules.distance)
    yield f"{off:.2g} off the orbit; expected azimuth {math.degrees(index * step):g}{hint}"


def _explain(w2c: np.ndarray, azimuth: float, lift: float, distance: float) -> str:
  """Returns the usual mistake that gives this camera, in words, or where it is."""
  expected = orbit_pose(azimuth, lift, distance)
  mistakes = {
    "sine and cosine of the azimuth swapped": orbit_pose(math.pi / 2 - azimuth, lift, distance),
    "the orbit runs clockwise": orbit_pose(-azimuth, lift, distance),
    "OpenGL axes, y up and z backward": np.diag([1.0, -1.0, -1.0, 1.0]) @ expected,
    "[right, up, forward] instead of [right, down, forward]": np.diag([1, -1, 1, 1.0]) @ expected,
    "[right, -up, -forward]": np.diag([1, 1, -1, 1.0]) @ expected,
    "camera-to-world instead of world-to-camera": np.linalg.inv(expected),
    "the elevation has the wrong sign": orbit_pose(azimuth, -lift, distance),
  }
  for words, matrix in mistakes.items():
    if np.abs(w2c - matrix).max() < 1e-3:
      return f" ({words})"
  center = -w2c[:3, :3].T @ w2c[:3, 3]
  reach = float(np.linalg.norm(center))
  angle = math.degrees(math.atan2(center[1], center[0])) % 360
  up = math.degrees(math.asin(min(1.0, max(-1.0, center[2] / max(reach, 1e-9)))))
  return f" (it is at distance {reach:.4f}, elevation {up:.3f}, azimuth {angle:.3f})"


def check_solid(views: Sequence[Frame], rules: Rules) -> Iterator[str]:
  """Yields a fault where no single solid can cast the silhouettes.

  A scene that fails is checked again with voxels half as large: the first are four pixels wide in a
  usual scene, and a coarse grid covers too little of a tail as thin as that, even of an exact one.
  """
  for resolution in (rules.hull_resolution, 2 * rules.hull_resolution):
    shares = hull_shares(views, resolution)
    worst = int(np.argmin(shares))
    if shares[worst] >= rules.hull_iou:
      return
  yield (
    f"silhouettes do not come from one solid: it explains {shares[worst]:.3f} of "
    f"frames[{worst}]; expected at least {rules.hull_iou:g} of each"
  )


def hull_shares(views: Sequence[Frame], resolution: int) -> np.ndarray:
  """Returns the share (V,) of each silhouette that the visual hull of all of them covers.

  A voxel is kept where every view that sees it has the object within two pixels. Views are taken
  far apart first, so that nearly all voxels are gone after a few of them.
  """
  points = _grid(views, resolution)
  masks = [_grown(view.possible, 2) for view in views]
  for i in _far_apart(len(views)):
    pixel, inside = _project(points, views[i])
    keep = ~inside
    keep[inside] = masks[i].ravel()[pixel[inside]]
    points = points[:, keep]
  shares = np.zeros(len(views))
  for i, (view, mask) in enumerate(zip(views, masks, strict=True)):
    pixel, inside = _project(points, view)
    image = np.zeros(mask.size, bool)
    image[pixel[inside]] = True
    covered = _grown(image.reshape(mask.shape), max(1, max(mask.shape) // resolution))
    if view.hidden is not None:
      mask = view.mask & ~view.hidden
    shares[i] = (covered & mask).sum() / max(1, mask.sum())
  return shares


def _grid(views: Sequence[Frame], resolution: int) -> np.ndarray:
  """Returns the voxel centres (3, n) of the cube that the cameras frame together."""
  poses = np.stack([view.w2c for view in views])
  rotations, translations = poses[:, :3, :3], poses[:, :3, 3]
  centers = -np.einsum("vij,vi->vj", rotations, translations)
  across = np.eye(3) - rotations[:, 2, :, None] * rotations[:, 2, None, :]
  target = np.linalg.lstsq(across.sum(0), np.einsum("vij,vj->i", across, centers), rcond=None)[0]
  half = max(
    np.linalg.norm(center - target) * max(view.mask.shape) / 2 / min(view.intrinsics[:2])
    for center, view in zip(centers, views, strict=True)
  )
  axes = [t + (2 * (np.arange(resolution) + 0.5) / resolution - 1) * half for t in target]
  grid = np.meshgrid(*(axis.astype(np.float32) for axis in axes), indexing="ij")
  return np.stack(grid).reshape(3, -1)


def _project(points: np.ndarray, view: Frame) -> tuple[np.ndarray, np.ndarray]:
  """Returns flat pixel numbers (n,) of points (3, n), and which of them are in the image."""
  height, width = view.mask.shape
  w2c, (fx, fy, cx, cy) = view.w2c.astype(np.float32), view.intrinsics.astype(np.float32)
  x, y, z = w2c[:3, :3] @ points + w2c[:3, 3:]
  inside = z > 1e-6
  z = np.where(inside, z, 1)
  u, v = np.floor(x / z * fx + cx), np.floor(y / z * fy + cy)
  inside &= (u >= 0) & (u < width) & (v >= 0) & (v < height)
  return np.where(inside, v * width + u, 0).astype(np.int32), inside


def _far_apart(count: int) -> list[int]:
  """Returns 0..count-1, each far from those before it (golden-ratio steps round the circle)."""
  turns = np.argsort((np.arange(count) * 0.6180339887) % 1.0)
  return np.argsort(turns).tolist()


def _grown(mask: np.ndarray, radius: int) -> np.ndarray:
  """Returns the mask and what is within `radius` pixels of it along a row or a column."""
  out = mask.copy()
  for step in range(1, radius + 1):
    out[step:] |= mask[:-step]
    out[:-step] |= mask[step:]
    out[:, step:] |= mask[:, :-step]
    out[:, :-step] |= mask[:, step:]
  return out
