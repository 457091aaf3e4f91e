"""Carves: evaluates the hull field on a fine grid, but only where its surface can be."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxsplat_mouse.visual_hull.cells import Box, bounding_box, cell_centers, cell_indices, judge
from jaxsplat_mouse.visual_hull.silhouette_views import SilhouetteViews, hull_field, quantize

BLOCK = 4
_BLOCKS_PER_CHUNK = 4096
# Voxels may be this much longer along one axis than along another: a mouse with a stretched tail
# then gets its resolution across the tail, which needs it.
_MAX_ANISOTROPY = 3.0
_TIGHTEN_RESOLUTION = 64


def tighten(views: SilhouetteViews, box: Box) -> tuple[Box, jax.Array]:
  """Returns the box around the cells that all views allow, and () bool, whether any exist."""

  def shrink(state: tuple[Box, jax.Array], _: None) -> tuple:
    box, consistent = state
    centers = cell_centers(box, _TIGHTEN_RESOLUTION)
    half = (box.high - box.low) / (2 * _TIGHTEN_RESOLUTION)
    verdict = judge(views, box, centers, half)
    keep = (verdict.support >= views.min_views) & (verdict.rejected == 0)
    return (bounding_box(box, _TIGHTEN_RESOLUTION, keep), consistent & keep.any()), None

  (box, consistent), _ = jax.lax.scan(shrink, (box, jnp.array(True)), length=2)
  return _pad(box), consistent


def _pad(box: Box) -> Box:
  """Returns a box with room for the surface to close, no side far shorter than the longest."""
  size = box.high - box.low
  wanted = jnp.maximum(size, size.max() / _MAX_ANISOTROPY) * 1.02
  middle = (box.low + box.high) / 2
  return Box(low=middle - wanted / 2, high=middle + wanted / 2)


def morton_order(blocks: int) -> jax.Array:
  """Returns flat indices of a blocks^3 grid along the Z curve, which keeps neighbours together."""
  code = jnp.arange(blocks**3, dtype=jnp.int32)
  axes = [jnp.zeros_like(code) for _ in range(3)]
  for bit in range(blocks.bit_length() - 1):
    for axis in range(3):
      axes[axis] |= ((code >> (3 * bit + axis)) & 1) << bit
  return (axes[0] * blocks + axes[1]) * blocks + axes[2]


def carve_grid(views: SilhouetteViews, box: Box, resolution: int) -> jax.Array:
  """Evaluates the hull field on a grid over a box.

  Blocks of 4^3 samples that are certainly empty or certainly solid get one value. The loop over the
  other blocks runs, a chunk at a time, until none is left: no capacity can overflow.

  Args:
    views: the silhouettes.
    box: of the grid.
    resolution: R, samples along each side; a multiple of 4.

  Returns:
    (R, R, R) uint8, sample i at low + (i + 0.5) * voxel along each axis.
  """
  blocks = resolution // BLOCK
  voxel = (box.high - box.low) / resolution
  # One voxel more than the block: the surface is interpolated between its last samples and the
  # first ones of the next block.
  verdict = judge(views, box, cell_centers(box, blocks), voxel * (BLOCK / 2 + 0.5))
  possible = (verdict.support >= views.min_views) & (verdict.rejected == 0)
  undecided = possible & ~verdict.solid
  order = morton_order(blocks)
  count = undecided.sum()
  positions = jnp.nonzero(undecided[order], size=blocks**3, fill_value=0)[0]
  offsets = cell_indices(BLOCK)
  coordinates = cell_indices(blocks)
  values = jnp.broadcast_to(jnp.where(verdict.solid, 255, 0).astype(jnp.uint8)[:, None],
                            (blocks**3, BLOCK**3))  # fmt: skip
  chunk = min(_BLOCKS_PER_CHUNK, blocks**3)

  def evaluate(state: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
    start, values = state
    # The last chunk starts earlier, to end with the list; what it repeats gets the same values.
    begin = jnp.minimum(start, blocks**3 - chunk)
    block = order[jax.lax.dynamic_slice_in_dim(positions, begin, chunk)]
    sample = coordinates[block][:, None, :] * BLOCK + offsets
    fresh = quantize(hull_field(views, box.low + (sample + 0.5) * voxel))
    live = (jnp.arange(chunk) + begin) < count
    target = jnp.where(live, block, blocks**3)
    return start + chunk, values.at[target].set(fresh, mode="drop")

  _, values = jax.lax.while_loop(lambda state: state[0] < count, evaluate, (jnp.int32(0), values))
  return _blocks_to_grid(values, blocks)


def _blocks_to_grid(values: jax.Array, blocks: int) -> jax.Array:
  """Reshapes (blocks^3, BLOCK^3) to (resolution, resolution, resolution)."""
  grid = values.reshape((blocks,) * 3 + (BLOCK,) * 3).transpose(0, 3, 1, 4, 2, 5)
  return grid.reshape((blocks * BLOCK,) * 3)
