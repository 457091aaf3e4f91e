"""Resamples photographs into crops of an ideal pinhole, without distortion and skew.

A crop's pixels are looked up in the raw photograph directly, so each is interpolated once, however
far the crop is moved, undistorted and reduced. `rig.distort` is the lens model; OpenCV only
interpolates, since its own undistortion ignores the skew.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from jaxsplat_mouse.capture.rig import Rig, distort

_NEWTON_STEPS = 12
_CONVERGED = 1e-7  # normalised coordinates: 2e-4 px at a focal length of 2000 px
_BORDER_POINTS = 65
_SUPPORT = 3  # pixels that a cubic lookup reads on either side, and one for rounding


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pinhole:
  """A camera without distortion and skew, with the pose of a real one.

  Attributes:
    intrinsics: (4,) fx fy cx cy in pixels, centres at +0.5.
    seen: x0 y0 x1 y1, the largest rectangle of whole pixels that the raw photograph covers.
  """

  intrinsics: np.ndarray
  seen: tuple[int, int, int, int]


@dataclasses.dataclass(frozen=True, kw_only=True)
class CropRegion:
  """A part of a pinhole's image, resampled to a scale.

  Attributes:
    left: first column, pinhole pixels.
    top: first row, pinhole pixels.
    width: of the crop, in its own pixels.
    height: of the crop, in its own pixels.
    scale: crop pixels per pinhole pixel, at most 1.
  """

  left: int
  top: int
  width: int
  height: int
  scale: float = 1.0

  def intrinsics(self, pinhole: Pinhole) -> np.ndarray:
    """Returns fx fy cx cy (4,) in pixels of the crop."""
    fx, fy, cx, cy = pinhole.intrinsics
    return self.scale * np.array([fx, fy, cx - self.left, cy - self.top])


def undistort(points: np.ndarray, distortion: np.ndarray) -> np.ndarray:
  """Inverts `rig.distort` with Newton's method, which starts from the given points.

  There is no inverse beyond the radius where the fitted polynomial turns back on itself.

  Args:
    points: (..., 2) distorted normalised coordinates.
    distortion: (5,) k1 k2 p1 p2 k3.

  Returns:
    (..., 2) normalised pinhole coordinates, float64; NaN where there is no inverse.
  """
  wanted = np.asarray(points, np.float64)
  found = wanted.copy()
  with np.errstate(all="ignore"):
    for _ in range(_NEWTON_STEPS):
      jacobian = _jacobian(found, distortion)
      wrong = distort(found, distortion) - wanted
      determinant = np.linalg.det(jacobian)[..., None]
      (a, b), (c, d) = np.moveaxis(jacobian, (-2, -1), (0, 1))
      x, y = wrong[..., 0], wrong[..., 1]
      found = found - np.stack([d * x - b * y, a * y - c * x], -1) / determinant
    missed = np.abs(distort(found, distortion) - wanted).max(-1) > _CONVERGED
    missed |= ~np.isfinite(found).all(-1) | (np.linalg.det(_jacobian(found, distortion)) <= 0)
  return np.where(missed[..., None], np.nan, found)


def _jacobian(points: np.ndarray, distortion: np.ndarray) -> np.ndarray:
  """Derivative (..., 2, 2) of `distort` at normalised points (..., 2)."""
  k1, k2, p1, p2, k3 = np.asarray(distortion, np.float64)
  x, y = points[..., 0], points[..., 1]
  r2 = x * x + y * y
  radial = 1.0 + r2 * (k1 + r2 * (k2 + r2 * k3))
  slope = 2.0 * (k1 + r2 * (2.0 * k2 + 3.0 * r2 * k3))  # d radial / d x = slope x
  xx = radial + slope * x * x + 2.0 * p1 * y + 6.0 * p2 * x
  yy = radial + slope * y * y + 6.0 * p1 * y + 2.0 * p2 * x
  xy = slope * x * y + 2.0 * p1 * x + 2.0 * p2 * y
  return np.stack([np.stack([xx, xy], -1), np.stack([xy, yy], -1)], -2)


def make_pinhole(rig: Rig, view: int, size: tuple[int, int]) -> Pinhole:
  """Builds the pinhole that replaces a camera.

  A camera without distortion and skew keeps its matrix, so that crops copy its pixels. Any other
  gets one focal length, the largest magnification of the lens anywhere in the photograph, so that
  no detail of the raw pixels is lost.

  Args:
    rig: the cameras.
    view: number of the camera.
    size: width and height of its raw photographs.

  Raises:
    ValueError: the lens model has no inverse over most of the photograph.
  """
  matrix, distortion = rig.matrices[view], rig.distortion[view]
  width, height = size
  cx, cy = matrix[:2, 2]
  if not distortion.any() and matrix[0, 1] == 0:
    intrinsics = np.array([matrix[0, 0], matrix[1, 1], cx, cy])
    return Pinhole(intrinsics=intrinsics, seen=(0, 0, width, height))
  grid = np.stack(np.meshgrid(np.linspace(0, width, 17), np.linspace(0, height, 17)), -1)
  points = to_normalized(rig, view, grid)
  valid = np.isfinite(points).all(-1)
  if valid.mean() < 0.5:
    raise ValueError(
      f"{rig.names[view]}: the lens model folds back on itself over {1 - valid.mean():.0%} of the "
      f"{width} x {height} photograph; expected k1 k2 p1 p2 k3 of a real lens, for normalised "
      "coordinates, and intrinsics for photographs of this size"
    )
  gain = matrix[:2, :2] @ _jacobian(points[valid], distortion)
  focal = float(np.linalg.svd(gain, compute_uv=False)[..., 0].max())
  intrinsics = np.array([focal, focal, cx, cy])
  return Pinhole(intrinsics=intrinsics, seen=_seen(rig, view, intrinsics, size))


def to_normalized(rig: Rig, view: int, pixels: np.ndarray) -> np.ndarray:
  """Maps raw pixels to normalised pinhole coordinates.

  Args:
    rig: the cameras.
    view: number of the camera.
    pixels: (..., 2) raw pixels, centres at +0.5.

  Returns:
    (..., 2) float64; NaN where the lens model has no inverse.
  """
  matrix = rig.matrices[view]
  bent = (np.asarray(pixels, np.float64) - matrix[:2, 2]) @ np.linalg.inv(matrix[:2, :2]).T
  return undistort(bent, rig.distortion[view])


def to_pinhole(rig: Rig, view: int, pinhole: Pinhole, pixels: np.ndarray) -> np.ndarray:
  """Maps raw pixels to pixels of the pinhole's image.

  Args:
    rig: the cameras.
    view: number of the camera.
    pinhole: the ideal camera that replaces it.
    pixels: (..., 2) raw pixels, centres at +0.5.

  Returns:
    (..., 2) pinhole pixels; NaN where the lens model has no inverse.
  """
  return to_normalized(rig, view, pixels) * pinhole.intrinsics[:2] + pinhole.intrinsics[2:]


def _seen(
  rig: Rig, view: int, intrinsics: np.ndarray, size: tuple[int, int]
) -> tuple[int, int, int, int]:
  """Returns the rectangle between the innermost points of the photograph's undistorted sides."""
  pinhole = Pinhole(intrinsics=intrinsics, seen=(0, 0, 0, 0))
  width, height = size
  x, y = np.linspace(0, width, _BORDER_POINTS), np.linspace(0, height, _BORDER_POINTS)

  def side(xs: np.ndarray | float, ys: np.ndarray | float, axis: int) -> np.ndarray:
    points = np.stack(np.broadcast_arrays(xs, ys), -1)
    return to_pinhole(rig, view, pinhole, points)[..., axis]

  left, right = np.nanmax(side(0.0, y, 0)), np.nanmin(side(width, y, 0))
  top, bottom = np.nanmax(side(x, 0.0, 1)), np.nanmin(side(x, height, 1))
  return int(np.ceil(left)), int(np.ceil(top)), int(right), int(bottom)


def lookup_points(
  rig: Rig,
  view: int,
  pinhole: Pinhole,
  region: CropRegion,
  box: tuple[int, int, int, int] | None = None,
) -> np.ndarray:
  """Computes where the pixels of a crop lie in the raw photograph.

  A pixel of a reduced crop is the mean over n x n points, n = ceil(1 / scale).

  Args:
    rig: the cameras.
    view: number of the camera.
    pinhole: the ideal camera that replaces it.
    region: the crop.
    box: x0 y0 x1 y1 of the crop's pixels that are needed; by default all.

  Returns:
    (n (y1 - y0), n (x1 - x0), 2) float64 raw pixels, centres at +0.5.
  """
  n = int(np.ceil(1.0 / region.scale - 1e-9))
  fx, fy, cx, cy = pinhole.intrinsics
  x0, y0, x1, y1 = box or (0, 0, region.width, region.height)
  x = ((np.arange(n * x0, n * x1) + 0.5) / (n * region.scale) + region.left - cx) / fx
  y = ((np.arange(n * y0, n * y1) + 0.5) / (n * region.scale) + region.top - cy) / fy
  points = distort(np.stack(np.meshgrid(x, y), -1), rig.distortion[view])
  matrix = rig.matrices[view]
  return points @ matrix[:2, :2].T + matrix[:2, 2]


def raw_pixel_box(points: np.ndarray, size: tuple[int, int]) -> tuple[int, int, int, int]:
  """x0 y0 x1 y1 of the raw pixels that a lookup at `points` (..., 2) reads, inside the image."""
  low = np.floor(points.min((0, 1)) - _SUPPORT).astype(int)
  high = np.ceil(points.max((0, 1)) + _SUPPORT).astype(int)
  x0, y0 = (int(np.clip(v, 0, side - 1)) for v, side in zip(low, size, strict=True))
  x1, y1 = (int(np.clip(v, 1, side)) for v, side in zip(high, size, strict=True))
  return x0, y0, max(x1, x0 + 1), max(y1, y0 + 1)


def resample(image: np.ndarray, points: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
  """Interpolates a raw image bicubically (a = -0.75, as OpenCV does); 0 beyond its border.

  Args:
    image: (H, W) or (H, W, C <= 4) float32.
    points: (n h, n w, 2) from `lookup_points`.
    shape: (h, w) of the result.

  Returns:
    (h, w) or (h, w, C) float32; values may overshoot by a few percent.
  """
  import cv2

  x, y = (np.ascontiguousarray(points[..., i] - 0.5, np.float32) for i in (0, 1))
  dense = cv2.remap(np.ascontiguousarray(image, np.float32), x, y, cv2.INTER_CUBIC)
  height, width = shape
  n = len(points) // height
  if n == 1:
    return dense
  return dense.reshape(height, n, width, n, *dense.shape[2:]).mean((1, 3))


def resample_rgba(
  color: np.ndarray, alpha: np.ndarray, points: np.ndarray, shape: tuple[int, int]
) -> np.ndarray:
  """Interpolates a photograph and its silhouette together, colours weighted by coverage.

  Pixels outside the silhouette have no weight, so no background enters the outline.

  Args:
    color: (H, W, 3) straight colour in [0, 1].
    alpha: (H, W) coverage in [0, 1].
    points: (n h, n w, 2) from `lookup_points`.
    shape: (h, w) of the result.

  Returns:
    (h, w, 4) uint8, straight alpha, colour 0 where alpha is 0.
  """
  weighted = np.concatenate([color * alpha[..., None], alpha[..., None]], -1)
  rgba = resample(weighted, points, shape)
  rgba[..., :3] /= np.maximum(rgba[..., 3:], np.float32(1e-3))
  np.clip(rgba, 0.0, 1.0, out=rgba)
  result = (rgba * np.float32(255) + np.float32(0.5)).astype(np.uint8)
  result[result[..., 3] == 0] = 0
  return result
