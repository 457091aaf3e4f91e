"""A calibrated rig as its file describes it: lenses with distortion and skew, in float64.

Every format reader returns a `Rig`; the rest of the package works with `Cameras`, which are ideal
pinholes. `lens.py` resamples images from the first to the second.

The lens model, for a world point X (OpenCV's, with the skew that OpenCV's functions leave out):

    (x, y) = (Xc / Zc, Yc / Zc),  Xc = R X + t,  r² = x² + y²
    x' = x (1 + k1 r² + k2 r⁴ + k3 r⁶) + 2 p1 x y + p2 (r² + 2 x²)
    y' = y (1 + k1 r² + k2 r⁴ + k3 r⁶) + p1 (r² + 2 y²) + 2 p2 x y
    pixel = K (x', y', 1),  K = [[fx, s, cx], [0, fy, cy], [0, 0, 1]]

Pixel centres are at +0.5. Where a file follows OpenCV, whose (0, 0) is the centre of the first
pixel, its reader adds `OPENCV_FIRST_PIXEL` to cx and cy.
"""

from __future__ import annotations

import dataclasses

import numpy as np

OPENCV_FIRST_PIXEL = 0.5  # where the centre of OpenCV's pixel (0, 0) lies in this package


@dataclasses.dataclass(frozen=True, kw_only=True)
class Labels:
  """Points that a person or a network marked in the images, with their triangulation.

  Attributes:
    points: (N, 3) in the world of the rig.
    pixels: (V, N, 2) in the raw images, pixel centres at +0.5; NaN for an unmarked point.
  """

  points: np.ndarray
  pixels: np.ndarray


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rig:
  """V calibrated cameras.

  Attributes:
    names: V unique names, in the order of all other fields.
    matrices: (V, 3, 3) float64, K with skew, pixels of the raw image.
    world_to_camera: (V, 4, 4) float64, OpenCV axes, in the unit of the file.
    distortion: (V, 5) float64, k1 k2 p1 p2 k3; zeros for undistorted images.
    sizes: (V, 2) int, width and height of the raw images; 0 where the file names no size.
    unit: of the world, as the format defines it: "mm", "m", or "" for undefined.
    labels: marked points of the file that can check the calibration; None for no labels.
  """

  names: tuple[str, ...]
  matrices: np.ndarray
  world_to_camera: np.ndarray
  distortion: np.ndarray
  sizes: np.ndarray
  unit: str = ""
  labels: Labels | None = None

  def __len__(self) -> int:
    """Returns the number of cameras."""
    return len(self.names)

  @property
  def centers(self) -> np.ndarray:
    """Camera centres in the world (V, 3): -R^T t."""
    rotations, translations = self.world_to_camera[:, :3, :3], self.world_to_camera[:, :3, 3]
    return -np.einsum("vji,vj->vi", rotations, translations)

  @property
  def axes(self) -> np.ndarray:
    """Unit viewing directions in the world, (V, 3)."""
    return self.world_to_camera[:, 2, :3]


def distort(points: np.ndarray, distortion: np.ndarray) -> np.ndarray:
  """Maps normalised pinhole coordinates through a lens.

  Args:
    points: (..., 2) x / z and y / z in the camera's frame.
    distortion: (5,) k1 k2 p1 p2 k3.

  Returns:
    (..., 2) distorted normalised coordinates, float64.
  """
  k1, k2, p1, p2, k3 = np.asarray(distortion, np.float64)
  x, y = np.moveaxis(np.asarray(points, np.float64), -1, 0)
  r2 = x * x + y * y
  radial = 1.0 + r2 * (k1 + r2 * (k2 + r2 * k3))
  return np.stack(
    [
      x * radial + 2.0 * p1 * x * y + p2 * (r2 + 2.0 * x * x),
      y * radial + p1 * (r2 + 2.0 * y * y) + 2.0 * p2 * x * y,
    ],
    -1,
  )


def project_points(rig: Rig, points: np.ndarray) -> np.ndarray:
  """Projects world points to pixels of the raw images, lens and skew included.

  Args:
    rig: V cameras.
    points: (N, 3), or (V, N, 3) for one set per camera, world units.

  Returns:
    (V, N, 2) float64; NaN for points at or behind a camera's plane.
  """
  points = np.broadcast_to(np.asarray(points, np.float64), (len(rig), *np.shape(points)[-2:]))
  rotations, translations = rig.world_to_camera[:, :3, :3], rig.world_to_camera[:, :3, 3]
  seen = np.einsum("vij,vnj->vni", rotations, points) + translations[:, None]
  depth = np.where(seen[..., 2] > 0, seen[..., 2], np.nan)
  flat = seen[..., :2] / depth[..., None]
  bent = np.stack([distort(xy, d) for xy, d in zip(flat, rig.distortion, strict=True)])
  return np.einsum("vij,vnj->vni", rig.matrices[:, :2, :2], bent) + rig.matrices[:, None, :2, 2]
