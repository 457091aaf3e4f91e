"""Colours of surface points, from the photographs that see them."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

from jaxsplat_mouse.math import safe_divide, safe_normalize
from jaxsplat_mouse.scene import Scene, as_unit_floats
from jaxsplat_mouse.visual_hull.hull import Hull, halve
from jaxsplat_mouse.visual_hull.silhouette_views import (
  SilhouetteViews,
  dilate,
  make_views,
  project_to_view,
  quantize,
  sample_view,
  scan_views,
)

_MARCH_STEPS = 128
_OPAQUE = 0.35  # share of a cell of 2^3 samples that hides; a thin tail fills less than half
_EDGE_PIXELS = 3.0  # colours nearer to a silhouette's edge are mixed with what lies behind it
_SHARPNESS = 3  # power of the cosine between normal and view: views from the front decide
_AGREEMENT = 0.15  # distance from the mean colour at which a view has half its weight
_FILL_CELLS = 32
_FILL_PACE = 0.5  # share of its neighbours' mean that a cell adds in a step
_CONFIDENT = 0.1  # visibility from which on a point keeps its own colour


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class Sightings:
  """What V views show of N surface points.

  Attributes:
    colors: (V, N, 3) straight colour in [0, 1].
    cosines: (V, N) between the normal and the way to the camera.
    seen: (V, N) bool, in frame, inside the silhouette and not hidden by the hull.
    depths: (V, N) in [0, 1], 1 away from the silhouette's edge.
  """

  colors: jax.Array
  cosines: jax.Array
  seen: jax.Array
  depths: jax.Array


def view_points(
  views: SilhouetteViews,
  images: jax.Array,
  values: jax.Array,
  origin: jax.Array,
  voxel_size: jax.Array,
  points: jax.Array,
  normals: jax.Array,
) -> Sightings:
  """Looks at surface points from every view; the arguments are those of `point_colors`."""
  opaque = halve(values) > _OPAQUE
  edge = jnp.full(len(images), _EDGE_PIXELS)
  interior = 255 - dilate(255 - views.coverage, edge, edge)

  def look(view: SilhouetteViews, image: jax.Array, inner: jax.Array) -> Sightings:
    matrix = view.world_to_camera
    center = -(matrix[:3, :3] * matrix[:3, 3, None]).sum(0)
    toward = safe_normalize(center - points, epsilon=1e-20)
    cosine = (toward * normals).sum(-1)
    start = (points - origin + voxel_size.max() * (1.5 * normals + toward)) / voxel_size
    clear = _unobstructed(opaque, start, toward / voxel_size)
    alpha, known = sample_view(view, points)
    u, v, _ = project_to_view(matrix, view.intrinsics, points)
    color, deep = _sample_image(image, view.coverage, inner, u, v)
    return Sightings(colors=color, cosines=cosine, seen=known & clear & (alpha > 0.25), depths=deep)

  return jax.vmap(look)(scan_views(views), images, interior)


@jax.jit
def look_at_hull(scene: Scene, hull: Hull) -> Sightings:
  """Looks at a hull's surface points from the views (V,) of the scene that it was built from."""
  cameras = scene.cameras
  views = make_views(
    quantize(jnp.asarray(scene.alphas)),
    cameras.world_to_camera,
    cameras.intrinsics,
    scene.frames,
    scene.view_mask,
    min_views=1,
  )
  images = as_unit_floats(jnp.asarray(scene.images))
  grid = (hull.values, hull.origin, hull.voxel_size)
  return view_points(views, images, *grid, hull.points, hull.normals)


def point_colors(
  views: SilhouetteViews,
  images: jax.Array,
  values: jax.Array,
  origin: jax.Array,
  voxel_size: jax.Array,
  points: jax.Array,
  normals: jax.Array,
) -> tuple[jax.Array, jax.Array]:
  """Estimates the colours of surface points.

  A view counts unless the hull hides the point from it. Its weight grows with the cosine between
  the normal and the view, and away from the silhouette's edge. Views that disagree with the
  weighted mean lose weight before the mean is taken again. Points that no view sees take the colour
  of the visible points around them.

  Args:
    views: the silhouettes as photographed; only pixels that they cover give colour.
    images: (V, H, W, 3) straight colour, 0 where alpha is 0.
    values: (R, R, R) uint8 hull grid.
    origin: (3,) of its sample (0, 0, 0), world units.
    voxel_size: (3,) world units.
    points: (N, 3) on the surface, world units.
    normals: (N, 3) unit, outward.

  Returns:
    Colours (N, 3) in [0, 1], and visibilities (N,), the sums of the views' weights.
  """
  sight = view_points(views, images, values, origin, voxel_size, points, normals)
  colors = sight.colors
  facing = jnp.maximum(sight.cosines, 0.0) ** _SHARPNESS
  weights = facing * sight.seen * (0.05 + 0.95 * sight.depths)
  mean = _weighted_mean(colors, weights)
  off = ((colors - mean) ** 2).sum(-1)
  robust = weights / (1.0 + off / _AGREEMENT**2)
  mean, visibility = _weighted_mean(colors, robust), weights.sum(0)
  around = _fill(points, mean, visibility, origin, voxel_size * values.shape[0])
  confidence = jnp.clip(visibility / _CONFIDENT, 0.0, 1.0)[:, None]
  return jnp.clip(around + confidence * (mean - around), 0.0, 1.0), visibility


def _weighted_mean(colors: jax.Array, weights: jax.Array) -> jax.Array:
  """Returns the mean (N, 3) of colors (V, N, 3) by weights (V, N); 0 where all weights are 0."""
  return safe_divide((colors * weights[..., None]).sum(0), weights.sum(0)[:, None])


def _unobstructed(opaque: jax.Array, start: jax.Array, direction: jax.Array) -> jax.Array:
  """Returns (N,) bool, whether rays leave a grid without meeting an opaque cell.

  Args:
    opaque: (R/2, R/2, R/2) bool.
    start: (N, 3) positions in samples of the full grid, of R along each side.
    direction: (N, 3) of any length, in the same units.
  """
  size = opaque.shape[0]
  flat = opaque.reshape(-1)
  # Equal steps, of one cell at the default resolution, over the longest way out.
  pace = direction / jnp.maximum(jnp.abs(direction).max(-1, keepdims=True), 1e-20)
  stride = 2.0 * size / _MARCH_STEPS

  def step(number: int, blocked: jax.Array) -> jax.Array:
    cell = jnp.floor((start + (number * stride) * pace) / 2 + 0.25).astype(jnp.int32)
    inside = (cell >= 0).all(-1) & (cell < size).all(-1)
    cell = jnp.clip(cell, 0, size - 1)
    index = (cell[:, 0] * size + cell[:, 1]) * size + cell[:, 2]
    return blocked | (inside & flat.at[index].get(mode="promise_in_bounds"))

  return ~jax.lax.fori_loop(0, _MARCH_STEPS, step, jnp.zeros(len(start), bool))


def _sample_image(
  image: jax.Array, coverage: jax.Array, inner: jax.Array, u: jax.Array, v: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """Samples a photograph bilinearly, weighted by coverage: the black of empty pixels stays out.

  Args:
    image: (H, W, 3) straight colour.
    coverage: (H, W) uint8.
    inner: (H, W) uint8, 255 away from the silhouette's edge.
    u: (N,) pixel coordinates.
    v: (N,) likewise.

  Returns:
    Straight colour (N, 3), and `inner` (N,) in [0, 1].
  """
  height, width = coverage.shape
  column, row = jnp.clip(u - 0.5, 0.0, width - 1.001), jnp.clip(v - 0.5, 0.0, height - 1.001)
  left, top = jnp.floor(column).astype(jnp.int32), jnp.floor(row).astype(jnp.int32)
  a, b = column - left, row - top
  color = jnp.zeros((len(u), 3))
  total = deep = jnp.zeros(len(u))
  for i, across in ((0, 1.0 - a), (1, a)):
    for j, down in ((0, 1.0 - b), (1, b)):
      x, y = left + i, top + j
      weight = across * down * coverage[y, x] * (1.0 / 255.0)
      color += weight[:, None] * image[y, x]
      total += weight
      deep += across * down * inner[y, x] * (1.0 / 255.0)
  return safe_divide(color, total[:, None], 1e-4), deep


def _fill(
  points: jax.Array, colors: jax.Array, weights: jax.Array, origin: jax.Array, size: jax.Array
) -> jax.Array:
  """Returns the mean colours (N, 3) around points, weighted by visibility.

  Weighted colours and weights diffuse over a grid. A point that views only graze, where sheen and
  light from behind are brightest, hardly counts beside one that they face. Sums over points are
  integers, which are exact in any order, so the result does not vary from run to run.

  Args:
    points: (N, 3) world units.
    colors: (N, 3) in [0, 1].
    weights: (N,) visibilities.
    origin: (3,) corner of the grid, world units.
    size: (3,) its sides.
  """
  cell = jnp.clip(jnp.floor((points - origin) / size * _FILL_CELLS), 0, _FILL_CELLS - 1)
  cell = cell.astype(jnp.int32)
  index = (cell[:, 0] * _FILL_CELLS + cell[:, 1]) * _FILL_CELLS + cell[:, 2]
  amount = jnp.round(jnp.clip(weights, 0.0, 1.0) * 63.0)[:, None]
  rows = jnp.concatenate([colors * 63.0, jnp.full_like(colors[:, :1], 63.0)], -1) * amount
  sums = jnp.zeros((_FILL_CELLS**3, 4), jnp.int32).at[index].add(jnp.round(rows).astype(jnp.int32))
  grid = sums.astype(jnp.float32).T.reshape(4, *(_FILL_CELLS,) * 3)

  def diffuse(_: int, grid: jax.Array) -> jax.Array:
    around = grid
    for axis in (1, 2, 3):
      padded = jnp.pad(around, [(int(a == axis),) * 2 for a in range(4)])
      parts = (jax.lax.slice_in_dim(padded, i, i + _FILL_CELLS, axis=axis) for i in range(3))
      around = sum(parts) / 3.0
    return grid + _FILL_PACE * around

  grid = jax.lax.fori_loop(0, _FILL_CELLS, diffuse, grid)
  filled = safe_divide(grid[:3], grid[3:], 1e-20)
  return jnp.where(grid[3:] > 1e-20, filled, 0.5).reshape(3, -1)[:, index].T
