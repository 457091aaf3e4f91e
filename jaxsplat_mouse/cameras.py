"""Pinhole cameras: OpenCV axes (x right, y down, z forward), world Z-up, pixel centres at +0.5."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from numpy.typing import ArrayLike

from jaxsplat_mouse.math import safe_sqrt

_PARALLEL_CONDITION = 1e4  # of the normal equations of axes that count as parallel


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class Cameras:
  """One camera, or any batch of them with one image size.

  Attributes:
    world_to_camera: (..., 4, 4) rigid transforms, world units.
    intrinsics: (..., 4) fx fy cx cy in pixels; the first pixel's centre is at (0.5, 0.5).
    width: image width in pixels.
    height: image height in pixels.
  """

  world_to_camera: jax.Array
  intrinsics: jax.Array
  width: int = dataclasses.field(metadata={"static": True})
  height: int = dataclasses.field(metadata={"static": True})

  def __getitem__(self, index: Any) -> Cameras:
    """Returns the cameras at an index of the leading axes."""
    return dataclasses.replace(
      self, world_to_camera=self.world_to_camera[index], intrinsics=self.intrinsics[index]
    )

  def __len__(self) -> int:
    """Returns the number of cameras along the leading axis."""
    return self.world_to_camera.shape[0]

  @property
  def centers(self) -> jax.Array:
    """Camera centres (..., 3) in the world: -R^T t."""
    rotation, translation = self.world_to_camera[..., :3, :3], self.world_to_camera[..., :3, 3]
    return -(rotation * translation[..., :, None]).sum(-2)

  @property
  def footprints(self) -> jax.Array:
    """Width (...) of a pixel at the distance of the world's origin, world units."""
    return safe_sqrt((self.centers**2).sum(-1)) / self.intrinsics[..., 0]

  def resized(self, width: int, height: int) -> Cameras:
    """Returns the cameras of the same images, resampled to width x height pixels."""
    sx, sy = width / self.width, height / self.height
    factors = np.array([sx, sy, sx, sy], np.float32)
    return dataclasses.replace(
      self, intrinsics=self.intrinsics * factors, width=width, height=height
    )


def look_at(
  eye: ArrayLike, target: ArrayLike = (0.0, 0.0, 0.0), up: ArrayLike = (0.0, 0.0, 1.0)
) -> np.ndarray:
  """Returns the world-to-camera transform (4, 4), float64, of a camera that looks at a point.

  Args:
    eye: (3,) centre of the camera, world units.
    target: (3,) the point that lies on the optical axis.
    up: (3,) direction of any length that points up in the image.

  Raises:
    ValueError: eye and target coincide, or the view direction is parallel to `up`.
  """
  eye = np.asarray(eye, np.float64)
  forward = np.asarray(target, np.float64) - eye
  right = np.cross(forward, np.asarray(up, np.float64))
  if np.linalg.norm(right) < 1e-9 * max(1.0, float(np.linalg.norm(forward))):
    raise ValueError(f"look_at: the view direction {forward} must not vanish or be parallel to up")
  forward /= np.linalg.norm(forward)
  right /= np.linalg.norm(right)
  rotation = np.stack([right, np.cross(forward, right), forward])
  matrix = np.eye(4)
  matrix[:3, :3] = rotation
  matrix[:3, 3] = -rotation @ eye
  return matrix


def nearest_point_to_axes(world_to_camera: np.ndarray) -> np.ndarray | None:
  """Returns the point (3,) with the least squared distance to the optical axes of V cameras.

  Args:
    world_to_camera: (V, 4, 4).

  Returns:
    The point, or None where nearly parallel axes do not determine it.
  """
  rotations, translations = world_to_camera[:, :3, :3], world_to_camera[:, :3, 3]
  centers, axes = -np.einsum("vij,vi->vj", rotations, translations), rotations[:, 2]
  across = np.eye(3) - axes[:, :, None] * axes[:, None, :]
  gram = across.sum(0)
  if not np.linalg.cond(gram) < _PARALLEL_CONDITION:
    return None
  return np.linalg.solve(gram, np.einsum("vij,vj->i", across, centers))


def focal_from_fov(fov: float, size: int) -> float:
  """Returns the focal length in pixels of a field of view in degrees across `size` pixels."""
  return size / (2.0 * math.tan(math.radians(fov) / 2.0))


def generate_camera_poses(
  num_views: int = 32,
  elevation: float = 20.0,
  distance: float = 2.7,
  image_size: int = 512,
  fov: float = 50.0,
) -> Cameras:
  """Returns FaceLift's orbit: camera i at azimuth 360 i / num_views degrees.

  Azimuths run counter-clockwise from +X; every camera looks at the origin, and Z is up.

  Args:
    num_views: cameras on the orbit.
    elevation: degrees above the XY plane.
    distance: of the camera centres from the origin, world units.
    image_size: width and height in pixels.
    fov: field of view in degrees.

  Returns:
    Cameras (num_views,) with NumPy float32 arrays.

  >>> orbit = generate_camera_poses(num_views=4, elevation=0.0, distance=2.0, image_size=100)
  >>> orbit.world_to_camera.shape, orbit.width, orbit.height
  ((4, 4, 4), 100, 100)
  >>> orbit.centers[1].round(3) + 0.0  # a quarter of the way round: on +Y
  array([0., 2., 0.], dtype=float32)
  """
  azimuth = np.arange(num_views) * (2.0 * np.pi / num_views)
  lift = math.radians(elevation)
  eyes = distance * np.stack(
    [
      math.cos(lift) * np.cos(azimuth),
      math.cos(lift) * np.sin(azimuth),
      0 * azimuth + math.sin(lift),
    ],
    -1,
  )
  focal, center = focal_from_fov(fov, image_size), image_size / 2.0
  intrinsics = np.tile(np.array([focal, focal, center, center], np.float32), (num_views, 1))
  poses = np.stack([look_at(eye) for eye in eyes]).astype(np.float32)
  return Cameras(world_to_camera=poses, intrinsics=intrinsics, width=image_size, height=image_size)


def pixel_rays(camera: Cameras) -> tuple[jax.Array, jax.Array]:
  """Returns the rays through the pixel centres of one camera.

  Returns:
    The origin (3,) and the directions (H, W, 3) in the world, scaled to a camera z of 1: the point
    at depth d is origin + d * direction.
  """
  fx, fy, cx, cy = camera.intrinsics
  x = (jnp.arange(camera.width) + 0.5 - cx) / fx
  y = (jnp.arange(camera.height) + 0.5 - cy) / fy
  x, y = jnp.broadcast_arrays(x[None, :], y[:, None])
  r = camera.world_to_camera
  directions = jnp.stack([x * r[0, i] + y * r[1, i] + r[2, i] for i in range(3)], -1)
  return camera.centers, directions


def concatenate_cameras(batches: list[Cameras]) -> Cameras:
  """Joins batches of cameras along their leading axis.

  Raises:
    ValueError: the image sizes differ.
  """
  sizes = {(c.width, c.height) for c in batches}
  if len(sizes) != 1:
    raise ValueError(f"cameras of one batch share one image size, got {sorted(sizes)}")
  return jax.tree.map(lambda *leaves: jnp.concatenate(leaves), *batches)
