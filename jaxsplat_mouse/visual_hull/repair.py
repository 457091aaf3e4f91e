"""Repairs a silhouette that the other views contradict: fills background that cannot be true.

Ignoring the strictest view everywhere would fatten the hull far too much. Repair corrects a
silhouette only on evidence, and only in its own pixels; the field stays the minimum over all views.

* A bite or a missing limb: points that one view alone carves away, while without them pixels of at
  least two other silhouettes have no explanation. Repair projects these points into the dissenting
  view and fills its silhouette there.
* A hole: background enclosed by the silhouette, of limited width, all of it covered by the hull of
  the other views. Other silhouettes cannot refute a hole through a thick body (every other ray
  still has a chord through the body), so this rule is about shape: background that reaches the
  outside, or that one other view confirms, stays.

Repair works on a coarse grid with conservative cells, so it leaves clean silhouettes unchanged.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxsplat_mouse.visual_hull.cells import Box, Verdict, cell_centers, judge
from jaxsplat_mouse.visual_hull.silhouette_views import SilhouetteViews, dilate, project_to_view

_RESOLUTION = 96
_RASTER = 160
_SMALLEST_CELL = 1.5  # pixels
_GAP_REACH = 4  # raster cells: a restored limb joins its silhouette across gaps twice as wide
_WITNESSES = 2  # number of other views that must need a point before they overrule a view
_HOLE_REACH = 9  # raster cells: fills holes up to twice as wide, 11 % of the box's image


def repair_coverage(views: SilhouetteViews, box: Box) -> jax.Array:
  """Fills the pixels that one view alone wrongly shows as empty; returns (V, H, W) uint8.

  Args:
    views: the silhouettes as given.
    box: around everything that all views but one allow.
  """
  centers = cell_centers(box, _RESOLUTION)
  half = (box.high - box.low) / (2 * _RESOLUTION)
  verdict = judge(views, box, centers, half)
  rasters = _Rasters(views, box)
  index = rasters.cells_of(centers)  # (V, N) flat raster cell, out of range where out of view
  enough = verdict.support >= views.min_views
  agreed = enough & (verdict.rejected == 0)
  disputed = enough & (verdict.rejected == 1)
  silhouettes = rasters.sample_filled(views)
  limbs = _missing_limbs(verdict, disputed, agreed, index, silhouettes)
  # Next to the silhouette, the width of the cells already explains a limb: a gap remains there.
  joints = _close(silhouettes | limbs) & ~_close(silhouettes)
  filled = limbs | (joints & limbs.any((1, 2), keepdims=True))
  # A view's background is doubtful only where everything that the others allow covers it.
  view = jnp.arange(len(index))[:, None]
  covered = _grow(_scatter(index, agreed | (disputed & (verdict.rejecter == view))))
  filled |= _holes(covered, rasters.sample_background(views), rasters.hole_reach)
  filled &= views.valid[:, None, None]
  pixels = rasters.upsample(filled, views.coverage.shape[1:])
  return jnp.where(pixels, jnp.uint8(255), views.coverage)


class _Rasters:
  """One coarse raster per view, whose cells are about as large as a projected grid cell."""

  def __init__(self, views: SilhouetteViews, box: Box):
    """Lays up to _RASTER^2 square cells over the box's image in every view."""
    corners = cell_centers(box, 2) * 2 - (box.low + box.high) / 2
    self._cameras = (views.world_to_camera, views.intrinsics)
    u, v, z = jax.vmap(project_to_view, (0, 0, None))(*self._cameras, corners)
    in_front = (z > 0).all(-1, keepdims=True)
    low, high = views.frames[:, :2], views.frames[:, 2:]
    pixels = jnp.stack([u, v], -1)
    self._low = jnp.where(in_front, jnp.maximum(pixels.min(1), low), low)
    extent = jnp.where(in_front, jnp.minimum(pixels.max(1), high), high) - self._low
    finest = jnp.maximum(extent.max(-1), 1.0) / _RASTER
    self._size = jnp.maximum(finest, _SMALLEST_CELL)[:, None]
    # One cell more: a cell that touches background counts as all background.
    self.hole_reach = jnp.ceil(_HOLE_REACH * finest / self._size[:, 0]) + 1

  def cells_of(self, points: jax.Array) -> jax.Array:
    """Returns flat raster cells (V, N) of points (N, 3); _RASTER^2 where a point is out of view."""

    def find_cells(args: tuple) -> jax.Array:
      matrix, intrinsics, low, size = args
      u, v, z = project_to_view(matrix, intrinsics, points)
      column = jnp.floor((u - low[0]) / size).astype(jnp.int32)
      row = jnp.floor((v - low[1]) / size).astype(jnp.int32)
      inside = (z > 0) & (jnp.minimum(column, row) >= 0) & (jnp.maximum(column, row) < _RASTER)
      return jnp.where(inside, row * _RASTER + column, _RASTER * _RASTER)

    return jax.lax.map(find_cells, (*self._cameras, self._low, self._size[:, 0]))

  def _sample(self, images: jax.Array) -> jax.Array:
    """Samples images (V, H, W) at the cells' centres: (V, _RASTER, _RASTER), 0 off the image."""
    steps = jnp.arange(_RASTER) + 0.5
    column = jnp.floor(self._low[:, :1] + self._size * steps).astype(jnp.int32)
    row = jnp.floor(self._low[:, 1:] + self._size * steps).astype(jnp.int32)
    view = jnp.arange(len(images))[:, None, None]
    height, width = images.shape[1:]
    off = (row < 0) | (row >= height)
    off = off[:, :, None] | ((column < 0) | (column >= width))[:, None, :]
    picked = images[view, jnp.clip(row, 0, height - 1)[:, :, None],
                    jnp.clip(column, 0, width - 1)[:, None, :]]  # fmt: skip
    return jnp.where(off, 0, picked)

  def sample_filled(self, views: SilhouetteViews) -> jax.Array:
    """Returns the cells (V, R, R) whose centre lies in the silhouette."""
    return self._sample(views.shown) >= 128

  def sample_background(self, views: SilhouetteViews) -> jax.Array:
    """Returns the cells (V, R, R) that contain any background."""
    # In whole pixels, from the one nearest to the cell's centre to the farthest in the cell.
    reach = jnp.floor(self._size[:, 0] / 2 + 0.5)
    empty = self._sample(dilate(255 - views.coverage, reach, reach))
    return (empty >= 128) | (self._sample(jnp.full_like(views.coverage, 255)) == 0)

  def upsample(self, cells: jax.Array, shape: tuple[int, int]) -> jax.Array:
    """Returns the pixels (V, H, W) of raster cells (V, R, R), False outside the raster.

    Args:
      cells: (V, R, R) bool.
      shape: (H, W).
    """
    height, width = shape
    column = jnp.floor((jnp.arange(width) + 0.5 - self._low[:, :1]) / self._size)
    row = jnp.floor((jnp.arange(height) + 0.5 - self._low[:, 1:]) / self._size)
    column, row = column.astype(jnp.int32), row.astype(jnp.int32)
    row, column = row[:, :, None], column[:, None, :]
    inside = (row >= 0) & (row < _RASTER) & (column >= 0) & (column < _RASTER)
    view = jnp.arange(len(cells))[:, None, None]
    return inside & cells[view, jnp.clip(row, 0, _RASTER - 1), jnp.clip(column, 0, _RASTER - 1)]


def _missing_limbs(
  verdict: Verdict, disputed: jax.Array, agreed: jax.Array, index: jax.Array, filled: jax.Array
) -> jax.Array:
  """Returns, for each view, the raster cells (V, R, R) of points that other views need.

  Args:
    verdict: the result of testing the N grid cells in all views.
    disputed: (N,) bool, exactly one view carves the cell.
    agreed: (N,) bool, no view carves the cell.
    index: (V, N) raster cell of every grid cell.
    filled: (V, R, R) bool, raster cells in the silhouettes.
  """
  explained = _grow(_scatter(index, jnp.broadcast_to(agreed, index.shape)))
  unexplained = _grow(filled & ~explained)
  rows = jnp.pad(unexplained.reshape(len(index), -1), ((0, 0), (0, 1)))
  missing = jax.vmap(lambda row, cells: row[cells])(rows, index).sum(0)
  wanted = disputed & (missing >= _WITNESSES)
  view = jnp.arange(len(index))[:, None]
  return _grow(_scatter(index, wanted & (verdict.rejecter == view)))


def _holes(covered: jax.Array, empty: jax.Array, reach: jax.Array) -> jax.Array:
  """Returns the raster cells (V, R, R) in holes of a silhouette that no other view confirms.

  Background counts as true where the hull of the other views does not cover it, where it is wide,
  and where it is connected to true background. The rest are enclosed, narrow, covered holes.

  Args:
    covered: (V, R, R) bool, cells that the hull of the other views covers.
    empty: (V, R, R) bool, cells that contain background.
    reach: (V,) half the width, in cells, above which background counts as wide.
  """

  def narrow(number: jax.Array, filled: jax.Array) -> jax.Array:
    return jnp.where((number < reach)[:, None, None], _grow(filled), filled)

  wide = ~jax.lax.fori_loop(0, _HOLE_REACH + 1, narrow, ~empty)
  border = jnp.zeros_like(empty).at[:, [0, -1], :].set(True).at[:, :, [0, -1]].set(True)
  believed = empty & (~covered | wide | border)

  def spread(state: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
    now = _grow(state[0]) & empty
    return now, (now != state[0]).any()

  believed, _ = jax.lax.while_loop(lambda state: state[1], spread, (believed, jnp.array(True)))
  return empty & ~believed


def _scatter(index: jax.Array, flags: jax.Array) -> jax.Array:
  """Returns the raster cells (V, R, R) that contain any flagged entry.

  Args:
    index: (V, N) raster cells.
    flags: bool, (N,) or (V, N).
  """
  cells = jnp.where(flags, index, _RASTER * _RASTER)
  empty = jnp.zeros(_RASTER * _RASTER + 1, bool)
  marked = jax.vmap(lambda row: empty.at[row].set(True, mode="promise_in_bounds"))(cells)
  return marked[:, :-1].reshape(-1, _RASTER, _RASTER)


def _close(cells: jax.Array) -> jax.Array:
  """Fills gaps of up to 2 _GAP_REACH cells in cells (V, R, R)."""
  grown = jax.lax.fori_loop(0, _GAP_REACH, lambda _, x: _grow(x), cells)
  return ~jax.lax.fori_loop(0, _GAP_REACH, lambda _, x: _grow(x), ~grown)


def _grow(cells: jax.Array) -> jax.Array:
  """Adds their eight neighbours to cells (V, R, R); beyond the raster nothing is set."""
  for axis in (1, 2):
    padded = jnp.pad(cells, [(0, 0), (1, 1), (0, 0)] if axis == 1 else [(0, 0), (0, 0), (1, 1)])
    size = cells.shape[axis]
    parts = [jax.lax.slice_in_dim(padded, i, i + size, axis=axis) for i in range(3)]
    cells = parts[0] | parts[1] | parts[2]
  return cells
