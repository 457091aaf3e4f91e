"""Tolerance to one dissenting silhouette: which background pixels of a view cannot be true.

Dropping the strictest view everywhere would fatten the hull far too much. A silhouette is corrected
only on evidence, and only in its own pixels; the field stays the minimum over all views.

* A bite or a missing limb: points that one view alone carves away, and without which pixels of at
  least two other silhouettes have no explanation. They are projected into the dissenting view and
  its silhouette is filled there.
* A hole: background enclosed by the silhouette, of limited width, all of it covered by the hull of
  the other views. Other silhouettes cannot refute a hole through a thick body (a chord remains on
  every other ray), so this rule is about shape: background that reaches the outside, or that one
  other view confirms, is left alone.

All of it happens on a coarse grid with conservative cells, so clean silhouettes stay as they are.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxsplat_mouse.visual_hull.cells import Box, Verdict, cell_centers, judge
from jaxsplat_mouse.visual_hull.silhouette_views import SilhouetteViews, dilate, project_to_view

_RESOLUTION = 96
_RASTER = 160
_SMALLEST_CELL = 1.5  # pixels
_GAP_REACH = 4  # raster cells: a restored limb is joined to its silhouette across twice as much
_WITNESSES = 2  # other views that must miss a point before one view's verdict is overruled
_HOLE_REACH = 9  # raster cells: holes up to twice as wide, 11 % of the box's image, are filled


def repair_coverage(views: SilhouetteViews, box: Box) -> jax.Array:
  """Coverage (V, H, W) uint8 with the pixels filled that one view alone wrongly calls empty.

  Args:
    views: the silhouettes as given.
    box: everything that all views but one allow.
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
  # Next to the silhouette the cells' own width explains a limb, which leaves a gap.
  joints = _close(silhouettes | limbs) & ~_close(silhouettes)
  filled = limbs | (joints & limbs.any((1, 2), keepdims=True))
  # What each view must have covered for its background to be doubted: all that the others allow.
  view = jnp.arange(len(index))[:, None]
  covered = _grow(_scatter(index, agreed | (disputed & (verdict.rejecter == view))))
  filled |= _holes(covered, rasters.sample_background(views), rasters.hole_reach)
  filled &= views.valid[:, None, None]
  pixels = rasters.upsample(filled, views.coverage.shape[1:])
  return jnp.where(pixels, jnp.uint8(255), views.coverage)


class _Rasters:
  """One coarse picture per view, whose cells are about as large as a projected grid cell."""

  def __init__(self, views: SilhouetteViews, box: Box):
    """Lays up to _RASTER^2 square cells over the box's image in every view, if it is in frame."""
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
    # One cell more, as background that a cell only touches fills all of it.
    self.hole_reach = jnp.ceil(_HOLE_REACH * finest / self._size[:, 0]) + 1

  def cells_of(self, points: jax.Array) -> jax.Array:
    """Flat raster cells (V, N) of points (N, 3); _RASTER^2 where the point is out of view."""

    def one(args: tuple) -> jax.Array:
      matrix, intrinsics, low, size = args
      u, v, z = project_to_view(matrix, intrinsics, points)
      column = jnp.floor((u - low[0]) / size).astype(jnp.int32)
      row = jnp.floor((v - low[1]) / size).astype(jnp.int32)
      inside = (z > 0) & (jnp.minimum(column, row) >= 0) & (jnp.maximum(column, row) < _RASTER)
      return jnp.where(inside, row * _RASTER + column, _RASTER * _RASTER)

    return jax.lax.map(one, (*self._cameras, self._low, self._size[:, 0]))

  def _sample(self, images: jax.Array) -> jax.Array:
    """Images (V, H, W) at the raster cells' centres, (V, _RASTER, _RASTER); 0 off the image."""
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
    """Cells (V, R, R) whose centre lies in the silhouette."""
    return self._sample(views.coverage) >= 128

  def sample_background(self, views: SilhouetteViews) -> jax.Array:
    """Cells (V, R, R) that hold any background."""
    # Whole pixels from the one nearest to the cell's centre to any other in the cell.
    reach = jnp.floor(self._size[:, 0] / 2 + 0.5)
    empty = self._sample(dilate(255 - views.coverage, reach, reach))
    return (empty >= 128) | (self._sample(jnp.full_like(views.coverage, 255)) == 0)

  def upsample(self, cells: jax.Array, shape: tuple[int, int]) -> jax.Array:
    """Pixels (V, H, W) of raster cells (V, R, R); False outside the raster."""
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
  """Raster cells (V, R, R) of each view that points needed by two other views project into.

  Args:
    verdict: what the views say about the N cells.
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
  """Raster cells (V, R, R) in holes of a silhouette that no other view confirms.

  Background is believed where the other views' hull leaves it uncovered, where it is wide, and
  wherever it is connected to believed background; what remains are enclosed, narrow, covered holes.

  Args:
    covered: (V, R, R) cells on the hull of the other views.
    empty: (V, R, R) cells that hold background.
    reach: (V,) half the width in cells from which on background is wide.
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
  """Raster cells (V, R, R) that hold any flagged entry of (V, N)."""
  cells = jnp.where(flags, index, _RASTER * _RASTER)
  empty = jnp.zeros(_RASTER * _RASTER + 1, bool)
  marked = jax.vmap(lambda row: empty.at[row].set(True, mode="promise_in_bounds"))(cells)
  return marked[:, :-1].reshape(-1, _RASTER, _RASTER)


def _close(cells: jax.Array) -> jax.Array:
  """Cells (V, R, R) with gaps of up to 2 _GAP_REACH cells filled."""
  grown = jax.lax.fori_loop(0, _GAP_REACH, lambda _, x: _grow(x), cells)
  return ~jax.lax.fori_loop(0, _GAP_REACH, lambda _, x: _grow(x), ~grown)


def _grow(cells: jax.Array) -> jax.Array:
  """Cells (V, R, R) and their eight neighbours; beyond the raster nothing is set."""
  for axis in (1, 2):
    padded = jnp.pad(cells, [(0, 0), (1, 1), (0, 0)] if axis == 1 else [(0, 0), (0, 0), (1, 1)])
    size = cells.shape[axis]
    parts = [jax.lax.slice_in_dim(padded, i, i + size, axis=axis) for i in range(3)]
    cells = parts[0] | parts[1] | parts[2]
  return cells
