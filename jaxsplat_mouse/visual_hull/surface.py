"""Spreads points evenly over the hull's 0.5 level, with outward normals.

The grid edges along an axis that cross the level sample the surface's projection along that axis,
so their counts in a block give its area: sqrt(Ax^2 + Ay^2 + Az^2), exact where the surface in the
block is flat. Points go to blocks in Z-curve order, at equal steps of the running sum of areas: a
stratified sample without random choices.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxsplat_mouse.math import safe_divide, safe_normalize
from jaxsplat_mouse.visual_hull.carve import BLOCK, morton_order
from jaxsplat_mouse.visual_hull.cells import cell_indices
from jaxsplat_mouse.visual_hull.hull import halve, interpolate
from jaxsplat_mouse.visual_hull.silhouette_views import SilhouetteViews, hull_field

# Fractional parts of multiples of these fill the unit cube evenly (the generalised golden ratio).
_SPREAD = (0.8191725133961645, 0.6710436067037893, 0.5497004779019703)
_SEARCH_STEPS = 12


def surface_points(
  views: SilhouetteViews,
  values: jax.Array,
  origin: jax.Array,
  voxel_size: jax.Array,
  num_points: int,
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """Samples the surface of a carved grid.

  Args:
    views: the silhouettes of the carving; the points are moved onto their exact field.
    values: (R, R, R) uint8 grid of that field.
    origin: (3,) of sample (0, 0, 0), world units.
    voxel_size: (3,) world units.
    num_points: N.

  Returns:
    Points (N, 3), outward unit normals (N, 3), and the surface's area (), world units squared.
  """
  solid = values >= 128
  areas = _block_areas(solid, voxel_size)[morton_order(values.shape[0] // BLOCK)]
  running = jnp.cumsum(areas)
  area = running[-1]
  number = jnp.arange(num_points)
  target = (number + 0.5) / num_points * area
  place = jnp.clip(jnp.searchsorted(running, target), 0, len(areas) - 1)
  into = safe_divide(target - (running[place] - areas[place]), areas[place])
  block = morton_order(values.shape[0] // BLOCK)[place]
  position = _edge_points(values, block, into)
  blurred = _blur(halve(values))
  # Up to half a voxel off the edge: points on edges alone would show the pattern of the grid.
  jitter = jnp.stack([(number * step) % 1.0 - 0.5 for step in _SPREAD], -1)
  position += _tangential(jitter, _gradient(blurred, position, jnp.ones(3)))
  normals = -safe_normalize(_gradient(blurred, position, voxel_size), epsilon=1e-20)
  points = _settle(views, origin + position * voxel_size, normals, voxel_size.max())
  normals = -safe_normalize(
    _gradient(blurred, (points - origin) / voxel_size, voxel_size), epsilon=1e-20
  )
  return points, normals, area


def _block_areas(solid: jax.Array, voxel_size: jax.Array) -> jax.Array:
  """Returns the surface area (blocks^3,) in every block; an edge belongs to its lower sample."""
  squared = 0.0
  for axis in range(3):
    face = voxel_size[(axis + 1) % 3] * voxel_size[(axis + 2) % 3]
    squared += jnp.square(_pool(_crossings(solid, axis)).astype(jnp.float32) * face)
  return jnp.sqrt(squared).reshape(-1)


def _crossings(solid: jax.Array, axis: int) -> jax.Array:
  """Returns (R, R, R) bool, whether the edge from a sample to the next crosses the surface."""
  size = solid.shape[axis]
  here = jax.lax.slice_in_dim(solid, 0, size - 1, axis=axis)
  after = jax.lax.slice_in_dim(solid, 1, size, axis=axis)
  return jnp.pad(here != after, [(0, int(a == axis)) for a in range(3)])


def _pool(flags: jax.Array) -> jax.Array:
  """Counts the set samples of a (R, R, R) bool grid in blocks of BLOCK^3, as uint8."""
  counts = flags.astype(jnp.uint8)
  for axis in range(3):
    parts = [jax.lax.slice_in_dim(counts, i, None, BLOCK, axis) for i in range(BLOCK)]
    counts = parts[0] + parts[1] + parts[2] + parts[3]
  return counts


def _edge_points(values: jax.Array, block: jax.Array, into: jax.Array) -> jax.Array:
  """Picks one crossing edge for each point, and returns where it crosses, (N, 3) grid units.

  Args:
    values: (R, R, R) uint8.
    block: (N,) flat index of each point's block.
    into: (N,) in [0, 1], how far along the block's list of crossing edges.
  """
  resolution = values.shape[0]
  blocks = resolution // BLOCK
  corner = jnp.stack([block // blocks**2, block // blocks % blocks, block % blocks], -1) * BLOCK
  # Along the Z curve inside the block too, with a sample's three edges side by side.
  sample = corner[:, None, :] + cell_indices(BLOCK)[morton_order(BLOCK)]
  here = _read(values, sample)
  step = jnp.eye(3, dtype=jnp.int32)
  after = jnp.stack([_read(values, jnp.minimum(sample + s, resolution - 1)) for s in step], 2)
  crossing = ((here[:, :, None] >= 128) != (after >= 128)).reshape(len(block), -1)
  rank = jnp.cumsum(crossing, -1)
  wanted = jnp.floor(into * rank[:, -1]).astype(jnp.int32)
  choice = jnp.argmax(rank > jnp.minimum(wanted, rank[:, -1] - 1)[:, None], -1)
  inner, axis = choice // 3, choice % 3
  row = jnp.arange(len(block))
  a, b = here[row, inner].astype(jnp.float32), after[row, inner, axis].astype(jnp.float32)
  fraction = jnp.clip(safe_divide(127.5 - a, b - a), 0.0, 1.0)
  return sample[row, inner] + fraction[:, None] * step[axis]


def _read(values: jax.Array, sample: jax.Array) -> jax.Array:
  """Returns grid values at integer coordinates (..., 3) inside the grid."""
  size = values.shape[0]
  index = (sample[..., 0] * size + sample[..., 1]) * size + sample[..., 2]
  return values.reshape(-1).at[index].get(mode="promise_in_bounds")


def _blur(grid: jax.Array) -> jax.Array:
  """Blurs a grid by two binomial passes [1 4 6 4 1] / 16 per axis: 1.4 cells of deviation."""
  for axis in (0, 1, 2, 0, 1, 2):
    size = grid.shape[axis]
    padded = jnp.pad(grid, [(2, 2) if a == axis else (0, 0) for a in range(3)])
    part = [jax.lax.slice_in_dim(padded, i, i + size, axis=axis) for i in range(5)]
    grid = (part[0] + part[4]) / 16 + (part[1] + part[3]) / 4 + part[2] * 0.375
  return grid


def _gradient(blurred: jax.Array, position: jax.Array, voxel_size: jax.Array) -> jax.Array:
  """Returns the gradient (N, 3), per world unit, of the halved, blurred field.

  Args:
    blurred: (R/2, R/2, R/2).
    position: (N, 3) in samples of the full grid.
    voxel_size: (3,) of the full grid, world units.
  """
  center = (position - 0.5) / 2
  step = jnp.eye(3) * 0.5
  shifts = jnp.stack([step, -step])
  after, before = interpolate(blurred, center + shifts[:, :, None])
  # The two samples are one halved sample apart, which is two voxels.
  return (after - before).T / (2 * voxel_size)


def _tangential(vectors: jax.Array, normals: jax.Array) -> jax.Array:
  """Returns vectors (N, 3) without their part along normals (N, 3) of any length."""
  unit = safe_normalize(normals, epsilon=1e-20)
  return vectors - (vectors * unit).sum(-1, keepdims=True) * unit


def _settle(
  views: SilhouetteViews, points: jax.Array, normals: jax.Array, voxel: jax.Array
) -> jax.Array:
  """Moves points along their normals onto the nearest 0.5 level of the exact field.

  The search goes from 1.5 voxels outside to 1.5 inside; a point without a crossing stays.

  Args:
    views: the silhouettes of the carving.
    points: (N, 3) world units.
    normals: (N, 3) unit, outward.
    voxel: () longest side of a voxel, world units.
  """
  reach = jnp.linspace(1.5, -1.5, _SEARCH_STEPS + 1) * voxel
  line = hull_field(views, points + reach[:, None, None] * normals)
  before, after = line[:-1], line[1:]
  enters = (before < 0.5) & (after >= 0.5)
  fraction = safe_divide(0.5 - before, after - before)
  offset = reach[:-1, None] + fraction * (reach[1:] - reach[:-1])[:, None]
  distance = jnp.where(enters, jnp.abs(offset), jnp.inf)
  best = jnp.argmin(distance, 0)[None]
  shift = jnp.take_along_axis(offset, best, 0)[0]
  found = jnp.isfinite(jnp.take_along_axis(distance, best, 0)[0])
  return points + jnp.where(found, shift, 0.0)[:, None] * normals
