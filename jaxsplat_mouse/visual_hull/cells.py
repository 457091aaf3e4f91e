"""Cells of a box, and a conservative test of whether the animal can be inside them.

A cell projects into a pixel rectangle. The largest and the smallest coverage in that rectangle
bound the field in the cell, so the test never loses a thin tail between two samples.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

from jaxsplat_mouse.visual_hull.silhouette_views import (
  SilhouetteViews,
  dilate,
  project_to_view,
  scan_views,
)

# Sampling reads the nearest pixel (at most half a pixel off) of a running maximum, and each pixel
# stands for a bilinear image (half a pixel wide on either side).
_PIXEL_SLACK = 1.0


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class Box:
  """An axis-aligned box in the world: `low` (3,) and `high` (3,)."""

  low: jax.Array
  high: jax.Array


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class Verdict:
  """The result of testing cells (N,) in all views.

  Attributes:
    support: int32, number of views with some of the cell in frame and some coverage in it.
    rejected: int32, number of views with all of the cell in frame and only background in it.
    rejecter: int32, the last view that rejected the cell; meaningless where none did.
    solid: bool, every view with any of the cell in frame shows it filled, and enough views do.
  """

  support: jax.Array
  rejected: jax.Array
  rejecter: jax.Array
  solid: jax.Array


def cell_indices(resolution: int) -> jax.Array:
  """Returns the integer coordinates (resolution^3, 3) of all cells, the last axis fastest."""
  flat = jnp.arange(resolution**3, dtype=jnp.int32)
  return jnp.stack([flat // resolution**2, flat // resolution % resolution, flat % resolution], -1)


def cell_centers(box: Box, resolution: int) -> jax.Array:
  """Returns the centres (resolution^3, 3) of the cells of a box."""
  size = (box.high - box.low) / resolution
  return box.low + (cell_indices(resolution) + 0.5) * size


def bounding_box(box: Box, resolution: int, keep: jax.Array) -> Box:
  """Returns the box around the cells of a box that are kept; the box itself if none is.

  Args:
    box: that the cells divide.
    resolution: cells along each side.
    keep: (resolution^3,) bool.
  """
  size = (box.high - box.low) / resolution
  grid = keep.reshape((resolution,) * 3)
  low, high = [], []
  for axis in range(3):
    occupied = grid.any(tuple(a for a in range(3) if a != axis))
    low.append(jnp.argmax(occupied))
    high.append(resolution - jnp.argmax(occupied[::-1]))
  found = keep.any()
  return Box(
    low=jnp.where(found, box.low + jnp.stack(low) * size, box.low),
    high=jnp.where(found, box.low + jnp.stack(high) * size, box.high),
  )


def _bound_footprint(
  views: SilhouetteViews, box: Box, half: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """Bounds the size of a cell's image in every view.

  The cell is projected from a 5^3 lattice of the box. Near a camera inside the box, its depth is
  held at 15 % of that of the box's centre: closer cells are too large to be judged anyway.

  Args:
    views: the silhouettes.
    box: that holds the cell.
    half: (3,) half the cell's sides, world units.

  Returns:
    Half the largest width and half the largest height, (V,) and (V,), pixels.
  """
  lattice = cell_indices(5) / 4.0
  points = box.low + lattice * (box.high - box.low)

  def measure(matrix: jax.Array, intrinsics: jax.Array, frame: jax.Array) -> tuple:
    rows = [matrix[i, 0] * points[:, 0] + matrix[i, 1] * points[:, 1] + matrix[i, 2] * points[:, 2]
            + matrix[i, 3] for i in range(3)]  # fmt: skip
    extent = [(jnp.abs(matrix[i, :3]) * half).sum() for i in range(3)]
    depth = jnp.maximum(rows[2] - extent[2], 0.15 * jnp.abs(rows[2][len(points) // 2]))
    radii = []
    for i in range(2):
      focal, center = intrinsics[i], intrinsics[2 + i]
      steepest = jnp.maximum(jnp.abs(frame[i] - center), jnp.abs(frame[2 + i] - center)) / focal
      slope = jnp.minimum(jnp.abs(rows[i]) / depth, steepest)
      radii.append((focal * (extent[i] + slope * extent[2]) / depth).max())
    return radii[0], radii[1]

  return jax.vmap(measure)(views.world_to_camera, views.intrinsics, views.frames)


def judge(views: SilhouetteViews, box: Box, centers: jax.Array, half: jax.Array) -> Verdict:
  """Tests cells of one size in all views.

  Args:
    views: the silhouettes.
    box: that holds the cells.
    centers: (N, 3) of the cells, world units.
    half: (3,) half the cells' sides.
  """
  radius_x, radius_y = _bound_footprint(views, box, half)
  grow_x, grow_y = radius_x + _PIXEL_SLACK, radius_y + _PIXEL_SLACK
  largest = dilate(views.coverage, grow_x, grow_y)
  smallest = 255 - dilate(255 - views.coverage, grow_x, grow_y)
  # Hidden pixels reject nothing, but they support nothing either.
  shown = None
  if views.hidden is not None:
    shown = dilate(views.shown, grow_x, grow_y), 255 - dilate(255 - views.shown, grow_x, grow_y)

  # A cell across the edge of a frame is neither rejected nor supported by the background in it:
  # what is in frame is empty and the rest is unknown.
  def visit(carry: tuple, inputs: tuple) -> tuple:
    support, rejected, rejecter, full, agreed = carry
    number, view, high, low, shown, *radii = inputs
    partly, wholly, upper, filled = _test_in_view(centers, half, view, high, low, *radii)
    certain, agrees = upper, filled
    if shown is not None:
      _, _, certain, agrees = _test_in_view(centers, half, view, *shown, *radii)
    out = wholly & (upper < 128)
    return (
      support + (partly & (certain >= 128)),
      rejected + out,
      jnp.where(out, number, rejecter),
      full & (filled | ~partly),
      agreed + (agrees & wholly),
    ), None

  count = jnp.zeros(centers.shape[:-1], jnp.int32)
  order = jnp.arange(len(views.valid), dtype=jnp.int32)
  (support, rejected, rejecter, full, agreed), _ = jax.lax.scan(
    visit,
    (count, count, count, count == 0, count),
    (order, scan_views(views), largest, smallest, shown, radius_x, radius_y),
  )
  return Verdict(
    support=support, rejected=rejected, rejecter=rejecter, solid=full & (agreed >= views.min_views)
  )


def _test_in_view(
  centers: jax.Array,
  half: jax.Array,
  view: SilhouetteViews,
  high: jax.Array,
  low: jax.Array,
  rx: jax.Array,
  ry: jax.Array,
) -> tuple[jax.Array, jax.Array, jax.Array, jax.Array]:
  """Tests cells in one view.

  Args:
    centers: (N, 3) of the cells, world units.
    half: (3,) half the cells' sides.
    view: without its leading axis.
    high: (H, W) uint8, the largest coverage around each pixel, as far as a cell's image reaches.
    low: (H, W) uint8, the smallest.
    rx: () half the width of a cell's image, pixels.
    ry: () half its height.

  Returns:
    For each cell (N,): whether some of it is in frame, whether all of it is, the largest coverage
    in it (uint8), and whether the silhouette fills it.
  """
  u, v, z = project_to_view(view.world_to_camera, view.intrinsics, centers)
  x0, y0, x1, y1 = view.frames
  reach = (jnp.abs(view.world_to_camera[2, :3]) * half).sum()
  partly = view.valid & (z > -reach)
  partly &= (z <= 0) | ((u > x0 - rx) & (u < x1 + rx) & (v > y0 - ry) & (v < y1 + ry))
  wholly = view.valid & (z > reach)
  wholly &= (u > x0 + rx) & (u < x1 - rx) & (v > y0 + ry) & (v < y1 - ry)
  height, width = high.shape
  column = jnp.floor(jnp.clip(u, x0, x1 - 0.5)).astype(jnp.int32)
  row = jnp.floor(jnp.clip(v, y0, y1 - 0.5)).astype(jnp.int32)
  outside = (column < 0) | (column >= width) | (row < 0) | (row >= height)
  index = jnp.clip(row, 0, height - 1) * width + jnp.clip(column, 0, width - 1)
  upper = high.reshape(-1).at[index].get(mode="promise_in_bounds")
  lower = low.reshape(-1).at[index].get(mode="promise_in_bounds")
  return partly, wholly, upper, (lower >= 128) & ~outside
