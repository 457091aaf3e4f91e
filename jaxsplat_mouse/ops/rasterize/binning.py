"""Tile lists of static capacity: which splats may touch which tile, nearest first.

Three steps per image, no readback: sort the splats by depth; expand each one's box into its
tiles, drop the tiles that its ellipse misses; sort the survivors by tile, stably. Keys are
32-bit. Where the tiles under the boxes exceed the capacity, those of the splats farthest from the
camera are dropped and counted. `pallas_binning` makes the lists of the GPU kernels, from the same
tests.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax import lax

from jaxsplat_mouse.ops.rasterize.base import Bundle, Options

_RIM = 1e-3  # relative and pixel slack of the touching tests


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class TileLists:
  """Tile lists of I images with N splats, T tiles and a capacity of M entries each.

  Attributes:
    splats: (I, M) splat of each entry, entries ordered by (tile, depth).
    starts: (I, T) first entry of a tile.
    ends: (I, T) one past its last entry.
    overflow: (I,) entries that did not fit.
  """

  splats: jax.Array
  starts: jax.Array
  ends: jax.Array
  overflow: jax.Array


def bin_splats(bundle: Bundle, options: Options) -> TileLists:
  """Makes the tile lists of every image of the bundle."""
  run = functools.partial(_bin_image, options=options)
  centers = bundle.features[..., options.feature_layout.center]
  return jax.vmap(run)(bundle.depths, centers, bundle.ellipses, bundle.boxes)


def sort_keys(depths: jax.Array) -> jax.Array:
  """Returns unsigned 32-bit integers in the order of float32 depths."""
  bits = lax.bitcast_convert_type(depths.astype(jnp.float32), jnp.uint32)
  return jnp.where(bits >> 31 == 1, ~bits, bits | jnp.uint32(1 << 31))


def _depth_order(depths: jax.Array) -> jax.Array:
  """Stable argsort (N,) of float32 depths.

  Single-operand 32-bit sorts run five times faster than pairs on a CPU, so up to 65,536 splats are
  sorted in two radix passes that carry the index in the key's low bits. The order is exact.
  """
  bits = sort_keys(depths)
  index = jnp.arange(depths.shape[0], dtype=jnp.uint32)
  if depths.shape[0] > 1 << 16:
    return lax.sort((bits, index), num_keys=1, is_stable=True)[1].astype(jnp.int32)
  low = lax.sort((bits << 16) | index, is_stable=False) & 0xFFFF
  high = lax.sort((bits[low] & jnp.uint32(0xFFFF0000)) | index, is_stable=False) & 0xFFFF
  return low[high].astype(jnp.int32)


def _bin_image(
  depths: jax.Array, centers: jax.Array, ellipses: jax.Array, boxes: jax.Array, options: Options
) -> TileLists:
  order = _depth_order(depths)
  low, span = tile_spans(boxes, options)
  low, span = low[order], span[order]
  counts = span[:, 0] * span[:, 1]
  ends = jnp.cumsum(counts)
  rows = jnp.repeat(
    jnp.arange(len(order), dtype=jnp.int32), counts, total_repeat_length=options.capacity
  )
  entry = jnp.arange(options.capacity, dtype=jnp.int32)
  local = entry - (ends - counts)[rows]
  wide = jnp.maximum(span[rows, 0], 1)
  tile_x, tile_y = low[rows, 0] + local % wide, low[rows, 1] + local // wide
  splats = order[rows]
  keep = entry < ends[-1]
  bounds = jnp.moveaxis(jnp.concatenate([ellipses, centers], -1)[splats], -1, 0)
  keep &= touches(tuple(bounds), tile_x, tile_y, options)
  tiles = jnp.where(keep, tile_y * options.tiles_wide + tile_x, options.num_tiles)
  tiles, entries = _sort_by_tile(tiles, options)
  edges = jnp.searchsorted(tiles, jnp.arange(options.num_tiles + 1, dtype=jnp.int32))
  edges = edges.astype(jnp.int32)
  return TileLists(
    splats=splats[entries],
    starts=edges[:-1],
    ends=edges[1:],
    overflow=jnp.maximum(ends[-1] - options.capacity, 0),
  )


def tile_spans(boxes: jax.Array, options: Options) -> tuple[jax.Array, jax.Array]:
  """Returns the first tile and the number of tiles that hold a pixel centre of each box.

  Args:
    boxes: (N, 4) as in `projection.Splats`.
    options: image and tile size.

  Returns:
    (N, 2) column and row of the first tile, and (N, 2) columns and rows; 0 where there is none.
  """
  size = jnp.array([options.width, options.height], jnp.float32)
  low = jnp.clip(jnp.ceil(boxes[:, :2] - 0.5), 0, size).astype(jnp.int32)
  high = jnp.clip(jnp.floor(boxes[:, 2:] - 0.5) + 1, 0, size).astype(jnp.int32)
  first = low // options.tile_size
  last = (high + options.tile_size - 1) // options.tile_size
  empty = (high <= low).any(-1, keepdims=True)
  return first, jnp.where(empty, 0, last - first)


def touches(
  bounds: Sequence[jax.Array], tile_x: jax.Array, tile_y: jax.Array, options: Options
) -> jax.Array:
  """Tests whether an ellipse, or the disc that goes with it, reaches a pixel centre of a tile.

  The quadratic's minimum over the rectangle of a tile's pixel centres lies inside it or on an edge,
  where it is found by clamping the edge's own minimum.

  Args:
    bounds: eight values, `Splats.ellipses`, then the centre of the disc.
    tile_x: tile column; shapes are broadcast.
    tile_y: tile row.
    options: tile size.

  Returns:
    booleans of the common shape.
  """
  x, y, a, b, c, radius, disc_x, disc_y = bounds
  side = options.tile_size
  left, top = tile_x * side + 0.5, tile_y * side + 0.5
  x0, y0 = left - x, top - y
  x1, y1 = x0 + (side - 1), y0 + (side - 1)
  value = lambda u, v: a * u * u + 2.0 * b * u * v + c * v * v
  safe_a, safe_c = jnp.where(a > 0, a, 1.0), jnp.where(c > 0, c, 1.0)
  on_x = lambda u: value(u, jnp.clip(-b * u / safe_c, y0, y1))
  on_y = lambda v: value(jnp.clip(-b * v / safe_a, x0, x1), v)
  nearest = jnp.minimum(jnp.minimum(on_x(x0), on_x(x1)), jnp.minimum(on_y(y0), on_y(y1)))
  inside = (x0 <= 0) & (x1 >= 0) & (y0 <= 0) & (y1 >= 0)
  gap_x = disc_x - jnp.clip(disc_x, left, left + (side - 1))
  gap_y = disc_y - jnp.clip(disc_y, top, top + (side - 1))
  in_disc = (radius > 0) & (gap_x**2 + gap_y**2 <= (radius + _RIM) ** 2)
  # Rounding must not lose a pixel on the rim, where alpha is just 1/255.
  return inside | (nearest <= 1.0 + _RIM) | in_disc


def _place_bits(options: Options) -> int:
  """Bits of an entry's place among `capacity`."""
  return max(1, (options.capacity - 1).bit_length())


def sorts_packed(options: Options) -> bool:
  """Returns whether tile and place fit into a key of 32 bits, which a CPU sorts 5 times faster."""
  return _place_bits(options) + options.num_tiles.bit_length() <= 32


def _sort_by_tile(tiles: jax.Array, options: Options) -> tuple[jax.Array, jax.Array]:
  """Stable sort of (M,) tile numbers; returns them sorted and each entry's place before."""
  entry = jnp.arange(options.capacity, dtype=jnp.uint32)
  bits = _place_bits(options)
  if sorts_packed(options):
    packed = lax.sort((tiles.astype(jnp.uint32) << bits) | entry, is_stable=False)
    return (packed >> bits).astype(jnp.int32), (packed & ((1 << bits) - 1)).astype(jnp.int32)
  tiles, entry = lax.sort((tiles, entry), num_keys=1, is_stable=True)
  return tiles, entry.astype(jnp.int32)
