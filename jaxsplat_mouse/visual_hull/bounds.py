"""Finds the box to carve in: the region that the silhouettes' viewing cones and frames allow.

The search assumes no unit and no scale. It starts from a cube that holds all cameras, centred where
the central rays of the silhouettes meet, and keeps the cells that the cones do not exclude. Every
round shrinks the box by a factor, so millimetres, metres and distant rigs cost the same.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

from jaxsplat_mouse.math import rotate, safe_normalize
from jaxsplat_mouse.visual_hull.cells import Box, bounding_box, cell_centers
from jaxsplat_mouse.visual_hull.silhouette_views import SilhouetteViews

_RESOLUTION = 24
_ROUNDS = 10


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class Bounds:
  """The box to carve in.

  Attributes:
    box: around everything that the viewing cones of all but `tolerance` views allow.
    shared: () bool, False where no volume is in enough frames.
    consistent: () bool, False where the silhouettes' cones have nothing in common.
  """

  box: Box
  shared: jax.Array
  consistent: jax.Array


def silhouette_rectangles(views: SilhouetteViews) -> jax.Array:
  """Returns pixel rectangles (V, 4) x0 y0 x1 y1 around coverage >= 0.5, with a pixel's margin.

  A side where the silhouette reaches the frame is infinite: the animal may continue there. An empty
  silhouette gives an empty rectangle.
  """
  inside = views.coverage >= 128
  sides = []
  for axis in (1, 2):  # reducing rows leaves columns, reducing columns leaves rows
    line = inside.any(axis)
    size = line.shape[-1]
    first = jnp.argmax(line, -1).astype(jnp.float32)
    last = size - jnp.argmax(line[:, ::-1], -1).astype(jnp.float32)
    low_edge = views.frames[:, 0 if axis == 1 else 1]
    high_edge = views.frames[:, 2 if axis == 1 else 3]
    low = jnp.where(first <= low_edge + 1.5, -jnp.inf, first - 1.0)
    high = jnp.where(last >= high_edge - 1.5, jnp.inf, last + 1.0)
    some = line.any(-1)
    sides.append((jnp.where(some, low, jnp.inf), jnp.where(some, high, -jnp.inf)))
  (x0, x1), (y0, y1) = sides
  return jnp.stack([x0, y0, x1, y1], -1)


def find_bounds(views: SilhouetteViews, tolerance: jax.Array) -> Bounds:
  """Shrinks a cube around all cameras to what the views allow.

  Args:
    views: the silhouettes.
    tolerance: () int, how many views may exclude a cell that is kept.
  """
  rectangles = silhouette_rectangles(views)
  start = _starting_cube(views, rectangles)

  def shrink(_: int, state: tuple) -> tuple:
    box, shared, consistent = state
    in_frames, allowed = _test_cells(views, rectangles, box, tolerance)
    smaller = bounding_box(box, _RESOLUTION, allowed)
    return smaller, shared & in_frames.any(), consistent & allowed.any()

  yes = jnp.array(True)
  box, shared, consistent = jax.lax.fori_loop(0, _ROUNDS, shrink, (start, yes, yes))
  return Bounds(box=box, shared=shared, consistent=consistent)


def _starting_cube(views: SilhouetteViews, rectangles: jax.Array) -> Box:
  """Returns a cube around all cameras, centred nearest to the silhouettes' central rays."""
  rotation, translation = views.world_to_camera[:, :3, :3], views.world_to_camera[:, :3, 3]
  centers = -(rotation * translation[:, :, None]).sum(1)
  weight = views.valid.astype(jnp.float32)
  middle = (centers * weight[:, None]).sum(0) / jnp.maximum(weight.sum(), 1.0)
  x0, y0 = [jnp.maximum(rectangles[:, i], views.frames[:, i]) for i in (0, 1)]
  x1, y1 = [jnp.minimum(rectangles[:, i], views.frames[:, i]) for i in (2, 3)]
  fx, fy, cx, cy = views.intrinsics.T
  local = jnp.stack([((x0 + x1) / 2 - cx) / fx, ((y0 + y1) / 2 - cy) / fy, jnp.ones_like(fx)], -1)
  # An empty silhouette has no central ray.
  weight, local = weight * (x0 < x1), jnp.where((x0 < x1)[:, None], local, 0.0)
  ray = safe_normalize((rotation * local[:, :, None]).sum(1))
  across = jnp.eye(3) - ray[:, :, None] * ray[:, None, :]
  # Parallel rays leave the depth open; a small ridge pulls it to the middle of the cameras.
  matrix = (across * weight[:, None, None]).sum(0) + 1e-4 * jnp.eye(3)
  offset = (across * (centers - middle)[:, None, :]).sum(-1)
  meeting = middle + _solve(matrix, (offset * weight[:, None]).sum(0))
  reach = jnp.where(views.valid, jnp.linalg.norm(centers - meeting, axis=-1), 0.0).max()
  return Box(low=meeting - reach, high=meeting + reach)


def _solve(matrix: jax.Array, right: jax.Array) -> jax.Array:
  """Solves a symmetric matrix (3, 3) @ x = right (3,) by Cramer's rule, without a library."""
  a, b, c = matrix
  minors = jnp.stack([jnp.cross(b, c), jnp.cross(c, a), jnp.cross(a, b)])
  return (right[:, None] * minors).sum(0) / (a * minors[0]).sum()


def _test_cells(
  views: SilhouetteViews, rectangles: jax.Array, box: Box, tolerance: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """Tests the cells (_RESOLUTION^3,) of a box: in enough frames, and allowed by the cones too."""
  centers = cell_centers(box, _RESOLUTION)
  radius = jnp.linalg.norm(box.high - box.low) / (2 * _RESOLUTION)

  def test_view(*view: jax.Array) -> tuple[jax.Array, ...]:
    matrix, intrinsics, frame, rectangle, valid = view
    x = rotate(matrix, centers) + matrix[:3, 3]
    frame_margin = jnp.minimum(_cone_margin(x, intrinsics, frame), x[:, 2])
    cone_margin = _cone_margin(x, intrinsics, rectangle)
    partly, wholly = valid & (frame_margin > -radius), valid & (frame_margin > radius)
    empty = cone_margin < -radius
    return partly, partly & ~empty, wholly & empty

  inputs = (views.world_to_camera, views.intrinsics, views.frames, rectangles, views.valid)
  seen, support, rejected = (flags.sum(0) for flags in jax.vmap(test_view)(*inputs))
  return seen >= views.min_views, (support >= views.min_views) & (rejected <= tolerance)


def _cone_margin(x: jax.Array, intrinsics: jax.Array, rectangle: jax.Array) -> jax.Array:
  """Returns the smallest signed distance (N,) of points to the four planes of a viewing cone.

  Args:
    x: (N, 3) points in camera space.
    intrinsics: (4,) fx fy cx cy, pixels.
    rectangle: (4,) x0 y0 x1 y1, the pixels that the cone goes through.
  """
  margins = []
  for axis in (0, 1):
    focal, center = intrinsics[axis], intrinsics[2 + axis]
    for edge, sign in ((rectangle[axis], 1.0), (rectangle[2 + axis], -1.0)):
      slope = (center - jnp.where(jnp.isfinite(edge), edge, 0.0)) / focal
      distance = sign * (x[:, axis] + slope * x[:, 2]) * jax.lax.rsqrt(1.0 + slope * slope)
      # An infinite side excludes nothing; the sides of an empty rectangle exclude everything.
      margins.append(jnp.where(jnp.isfinite(edge), distance, -sign * edge))
  return jnp.stack(margins).min(0)
