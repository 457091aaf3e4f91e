"""A fit as a mesh: its depth from all around, fused."""

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
  """How a fit is turned into a mesh.

  Attributes:
    resolution: samples along each side of the box around the splats.
    elevations: degrees, of the orbits that look at it; from below too, so that it closes.
    num_views: of each orbit.
    image_size: pixels.
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
  """The surface that a fit's median depth shows, in the frame of the Gaussians.

  Args:
    gaussians: (N,).
    settings: how to look at them.
    filter_width: see `render`.

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
  """Corners around the splats that show, a few stray ones aside."""
  means = np.asarray(gaussians.means)[np.asarray(opacities(gaussians)) > 0.1]
  low, high = np.percentile(means, [0.1, 99.9], axis=0).astype(np.float32)
  grow = _MARGIN * (high - low).max()
  return low - grow, high + grow


def _rig(settings: MeshSettings, middle: np.ndarray, reach: float) -> cam.Cameras:
  """Orbits around `middle` in which a sphere of radius `reach` fills the frame."""
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
