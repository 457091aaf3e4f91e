"""Turns a fit into a mesh: fuses its depth maps from all directions."""

from __future__ import annotations

import dataclasses

import jax.numpy as jnp
import numpy as np

from jaxsplat_mouse import cameras as cam
from jaxsplat_mouse import meshing
from jaxsplat_mouse.gaussians import Gaussians, opacities
from jaxsplat_mouse.run.renders import render_in_parts

_MARGIN = 0.05  # of the box, around the splats
_TRUNCATION = 4.0  # samples of the grid


@dataclasses.dataclass(frozen=True, kw_only=True)
class MeshSettings:
  """How a fit becomes a mesh.

  Attributes:
    resolution: samples along each side of the box around the splats.
    elevations: of the orbits of cameras, degrees; some below the animal, so that the mesh closes.
    num_views: cameras of each orbit.
    image_size: side of the depth maps, pixels.
  """

  resolution: int = 256
  elevations: tuple[float, ...] = (-35.0, -5.0, 20.0, 55.0)
  num_views: int = 16
  image_size: int = 512


def fit_to_mesh(
  gaussians: Gaussians,
  settings: MeshSettings | None = None,
  filter_width: float | None = None,
) -> meshing.Mesh:
  """Returns the surface that the median depth of a fit shows, in the frame of the Gaussians.

  Args:
    gaussians: (N,).
    settings: cameras and resolution; by default those of `MeshSettings()`.
    filter_width: world units, see `rendering.render`.

  Raises:
    ImportError: scikit-image is not installed.
    ValueError: the fit shows no surface.
  """
  settings = settings or MeshSettings()
  low, high = _box(gaussians)
  middle, reach = (low + high) / 2, float(np.linalg.norm(high - low) / 2)
  rig = _rig(settings, middle, reach)
  fields = ("rgb", "alpha", "median_depth")
  parts = list(render_in_parts(gaussians, rig, filter_width, fields))
  maps = {name: jnp.asarray(np.concatenate([p[name] for p in parts])) for name in fields}
  maps["depth"] = maps.pop("median_depth")
  truncation = _TRUNCATION * float((high - low).max()) / settings.resolution
  field, colors = meshing.fuse_depth_maps(maps, rig, low, high, settings.resolution, truncation)
  return meshing.extract_mesh(np.asarray(field), np.asarray(colors), low, high)


def _box(gaussians: Gaussians) -> tuple[np.ndarray, np.ndarray]:
  """Returns the corners (3,) of a box around the opaque splats, except for a few strays."""
  means = np.asarray(gaussians.means)[np.asarray(opacities(gaussians)) > 0.1]
  low, high = np.percentile(means, [0.1, 99.9], axis=0).astype(np.float32)
  grow = _MARGIN * (high - low).max()
  return low - grow, high + grow


def _rig(settings: MeshSettings, middle: np.ndarray, reach: float) -> cam.Cameras:
  """Returns orbits around `middle` whose images a sphere of radius `reach` fills."""
  fov = 50.0
  distance = reach / np.sin(np.radians(fov / 2)) * 1.05
  rings = []
  for elevation in settings.elevations:
    ring = cam.generate_camera_poses(
      settings.num_views, elevation, distance, settings.image_size, fov
    )
    moved = np.array(ring.world_to_camera)
    moved[:, :3, 3] -= moved[:, :3, :3] @ middle
    rings.append(dataclasses.replace(ring, world_to_camera=moved))
  return cam.concatenate_cameras(rings)
