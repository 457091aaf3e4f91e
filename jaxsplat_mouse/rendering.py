"""Gaussians and cameras in, images out."""

from __future__ import annotations

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from jaxsplat_mouse.cameras import Cameras
from jaxsplat_mouse.gaussians import Gaussians, Gaussians2D
from jaxsplat_mouse.math import safe_divide, safe_sqrt
from jaxsplat_mouse.ops.rasterize.api import rasterize, suited
from jaxsplat_mouse.ops.rasterize.base import Image, Options
from jaxsplat_mouse.projection import project

TILE_ENTRIES_PER_SPLAT = 12


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class RenderOutput:
  """Images of one camera (H, W, ...) or of V cameras (V, H, W, ...).

  Attributes:
    rgb: (..., 3) colour over the background; premultiplied by alpha where that is black.
    alpha: (...) coverage in [0, 1].
    depth: (...) expected depth: mean camera z of the hits, world units; 0 where alpha is 0.
    median_depth: (...) camera z of the last splat in front of which T > 0.5; 0 where there is none.
    normal: (..., 3) world normals summed with the blending weights, at most alpha long.
    distortion: (...) sum over pairs of w_i w_j (m_i - m_j)^2, m the mapped depth (Huang et al.
      2024, eq. 13, squared), between the planes `near` and `far` of the call.
    overflow: () or (V,) splat-tile intersections that were dropped for lack of capacity.
  """

  rgb: jax.Array
  alpha: jax.Array
  depth: jax.Array
  median_depth: jax.Array
  normal: jax.Array
  distortion: jax.Array
  overflow: jax.Array


def render(
  gaussians: Gaussians,
  camera: Cameras,
  *,
  background: jax.Array | float = 0.0,
  geometry: bool = True,
  filter_width: jax.Array | float | None = None,
  near: jax.Array | float | None = None,
  far: jax.Array | float | None = None,
  capacity: int | None = None,
  tile_size: int | None = None,
  interpret: bool = False,
  implementation: str | None = None,
) -> RenderOutput:
  """Renders N Gaussians into one camera; differentiable in both.

  Args:
    gaussians: one scene's splats.
    camera: one camera, world_to_camera (4, 4).
    background: colour () or (3,) behind everything.
    geometry: whether to compute depth, normals and distortion; zeros otherwise.
    filter_width: standard deviation of the screen-space filter, world units at the distance of the
      origin: that of the fit, so that splats look as large in any camera as in those of the
      photographs. By default that of the papers, .55 px for ellipsoids and .71 px for discs, with
      which splats grow where pixels are coarse.
    near: depth mapped to m = 0; by default the camera's distance from the origin minus 1.
    far: depth mapped to m = 1; by default that distance plus 1.
    capacity: splat-tile intersections kept, by default 12 per splat; counted for tiles of 8 pixels
      where `tile_size` is left open.
    tile_size: side of a tile, pixels; by default what suits the implementation.
    interpret: run Pallas kernels in the interpreter.
    implementation: `reference`, `xla` or `pallas`; by default what suits the device.

  Raises:
    ValueError: the implementation is unknown or cannot be imported.
  """
  options = Options(
    width=camera.width,
    height=camera.height,
    flat=isinstance(gaussians, Gaussians2D),
    geometry=geometry,
    capacity=capacity or default_capacity(gaussians.means.shape[-2]),
    tile_size=tile_size or 8,
    interpret=interpret,
  )
  if tile_size is None:
    options = suited(options, implementation)
  low_pass = None if filter_width is None else (filter_width / camera.footprints) ** 2
  image = rasterize(project(gaussians, camera, low_pass), options, implementation)
  return _to_output(image, background, _depth_scale(camera, near, far))


def render_views(gaussians: Gaussians, cameras: Cameras, **settings: Any) -> RenderOutput:
  """Renders one scene into V cameras at once.

  Args:
    gaussians: one scene's splats.
    cameras: V cameras, world_to_camera (V, 4, 4).
    **settings: those of `render`.

  Returns:
    outputs (V, ...).
  """
  return jax.vmap(lambda camera: render(gaussians, camera, **settings))(cameras)


def default_capacity(num_gaussians: int) -> int:
  """Returns a capacity, intersections per image, that a fitted animal's splats stay well below."""
  return max(1 << 12, TILE_ENTRIES_PER_SPLAT * num_gaussians)


def _depth_scale(
  camera: Cameras, near: jax.Array | float | None, far: jax.Array | float | None
) -> jax.Array:
  """Scale of the mapped depth m = far/(far - near) (1 - near/d) in the inverse depth 1/d.

  dm = -far near/(far - near) d(1/d).
  """
  distance = safe_sqrt((camera.centers**2).sum(-1))
  near = jnp.maximum(distance - 1.0, 0.1 * distance) if near is None else near
  far = distance + 1.0 if far is None else far
  return jnp.asarray(far * near / (far - near), jnp.float32)


def _to_output(image: Image, background: jax.Array | float, depth_scale: jax.Array) -> RenderOutput:
  alpha = 1.0 - image.transmittance
  rgb = image.rgb
  if not isinstance(background, float) or background != 0.0:  # Black costs nothing.
    rgb = rgb + image.transmittance[..., None] * jnp.asarray(background, jnp.float32)
  return RenderOutput(
    rgb=rgb,
    alpha=alpha,
    depth=safe_divide(image.depth_sum, alpha, 1e-6),
    median_depth=image.median_depth,
    normal=image.normal_sum,
    distortion=depth_scale**2 * image.spread,
    overflow=image.overflow,
  )
