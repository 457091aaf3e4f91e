"""Tile lists on a GPU: only what touches a tile is written, for all images in one launch.

Splats are sorted by depth. One kernel counts each splat's tiles, a running sum gives it its slots,
a second kernel writes the tiles there, and one stable sort of 16-bit tile numbers over all images
puts the slots in order: by tile, then image, then depth.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plt

from jaxsplat_mouse.ops.rasterize import binning
from jaxsplat_mouse.ops.rasterize.base import Bundle, Options

_SPLATS = 8  # per program
_TILES = 4  # of each of them, tested side by side
# Columns of a splat's bounds: those of `binning.touches`, first tile and tiles of its box; padded.
_TOUCHES, _LEFT, _TOP, _WIDE, _HIGH = range(8), 8, 9, 10, 11
_BOUNDS = 16
_NOWHERE = 0xFFFF  # tile of an entry that is none


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class SlotLists:
  """Tile lists of I images with N splats, T tiles and a capacity of M entries each.

  Slots are numbered through all images: those of image i begin at i M, a splat's are neighbours,
  nearer splats come first.

  Attributes:
    slots: (I, M) slot of each entry. Read as one list of I M entries, these are ordered by (tile,
      image, depth).
    starts: (I, T) first entry of a tile in that list.
    lengths: (I, T) how many it has.
    ranks: (I, M) by slot, rank in depth of its splat.
    order: (I, N) splats by depth: the splat of each rank.
    first_slots: (I, N) by rank, where a splat's slots begin.
    slot_counts: (I, N) by rank, how many it has.
    overflow: (I,) entries that did not fit.
  """

  slots: jax.Array
  starts: jax.Array
  lengths: jax.Array
  ranks: jax.Array
  order: jax.Array
  first_slots: jax.Array
  slot_counts: jax.Array
  overflow: jax.Array


def fits_integers(images: int, options: Options) -> bool:
  """Returns whether tile numbers fit into 16 bits, and slots into 31."""
  return options.num_tiles < _NOWHERE and images * options.capacity < 1 << 31


def bin_into_slots(bundle: Bundle, options: Options) -> SlotLists:
  """Makes the lists of `binning.bin_splats`, in another arrangement, for every image of the bundle.

  `Options.capacity` counts entries here, not all tiles under the splats' boxes.
  """
  images, splats = bundle.depths.shape
  order, capacity = _depth_order(bundle.depths), options.capacity
  bounds = _bounds(bundle, options)
  counts = _launch(
    functools.partial(_count_kernel, options=options),
    (order, bounds),
    jax.ShapeDtypeStruct((images, splats), jnp.int32),
    options,
  )
  ends = jnp.cumsum(counts, axis=1)
  first = jnp.minimum(ends - counts, capacity)
  image = jnp.arange(images, dtype=jnp.int32)[:, None]
  empty = jnp.full(images * capacity, _NOWHERE, jnp.uint16), jnp.zeros(images * capacity, jnp.int32)
  tiles, ranks = _launch(
    functools.partial(_write_kernel, options=options),
    (order, bounds, first, *empty),
    empty,
    options,
    aliases={3: 0, 4: 1},
  )
  slots = jnp.arange(images * capacity, dtype=jnp.int32)
  tiles, slots = lax.sort((tiles, slots), num_keys=1, is_stable=True)
  starts, lengths = _edges(tiles, slots, images, options)
  return SlotLists(
    slots=slots.reshape(images, capacity),
    starts=starts,
    lengths=lengths,
    ranks=ranks.reshape(images, capacity),
    order=order,
    first_slots=first + image * capacity,
    slot_counts=jnp.minimum(ends, capacity) - first,
    overflow=jnp.maximum(ends[:, -1] - capacity, 0),
  )


def _edges(
  tiles: jax.Array, slots: jax.Array, images: int, options: Options
) -> tuple[jax.Array, jax.Array]:
  """Starts and lengths (I, T) of the lists in sorted entries (I M,)."""
  count = options.num_tiles * images
  lists = tiles.astype(jnp.int32) * images + slots // options.capacity
  lists = jnp.where(tiles < options.num_tiles, lists, count)
  numbers = jnp.arange(count + 1, dtype=jnp.int32)
  edges = jnp.searchsorted(lists, numbers, method="scan_unrolled").astype(jnp.int32)
  by_image = lambda a: a.reshape(options.num_tiles, images).T
  return by_image(edges[:-1]), by_image(jnp.diff(edges))


def _depth_order(depths: jax.Array) -> jax.Array:
  """Stable argsort (I, N) of every image's depths: two flat sorts, by depth and by image."""
  images, splats = depths.shape
  bits = binning.sort_keys(depths)
  rows = jnp.arange(images * splats, dtype=jnp.uint32)
  _, rows = lax.sort((bits.reshape(-1), rows), num_keys=1, is_stable=True)
  if images > 1:
    image = (rows // splats).astype(jnp.uint16 if images <= 1 << 16 else jnp.uint32)
    _, rows = lax.sort((image, rows), num_keys=1, is_stable=True)
  return (rows % splats).astype(jnp.int32).reshape(images, splats)


def _bounds(bundle: Bundle, options: Options) -> jax.Array:
  """Returns every splat's bounds (I N, 16), in the columns named above."""
  low, span = jax.vmap(functools.partial(binning.tile_spans, options=options))(bundle.boxes)
  parts = [bundle.ellipses, bundle.features[..., options.feature_layout.center], low, span]
  joined = jnp.concatenate([p.astype(jnp.float32) for p in parts], -1)
  padding = _BOUNDS - joined.shape[-1]
  return jnp.pad(joined, ((0, 0), (0, 0), (0, padding))).reshape(-1, _BOUNDS)


def _launch(
  kernel: Callable[..., None],
  inputs: Any,
  outputs: Any,
  options: Options,
  aliases: dict[int, int] | None = None,
) -> Any:
  """Runs one warp per (few splats, image); operands are seen whole."""
  images, splats = inputs[0].shape
  whole = lambda a: pl.BlockSpec(a.shape, lambda *_: (0,) * len(a.shape))
  return pl.pallas_call(
    kernel,
    grid=(pl.cdiv(splats, _SPLATS), images),
    in_specs=jax.tree.map(whole, inputs),
    out_specs=jax.tree.map(whole, outputs),
    out_shape=jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), outputs),
    input_output_aliases=aliases or {},
    compiler_params=plt.CompilerParams(num_warps=1, num_stages=1),
    interpret=options.interpret,
  )(*inputs)


class _Candidates:
  """The splats of a program, and the tiles under their boxes; blocks are (splats, tiles)."""

  def __init__(self, order: Any, bounds: Any, options: Options) -> None:
    """Loads the splats' bounds."""
    self.options, self.image = options, pl.program_id(1)
    num_splats = order.shape[1]
    self.rank = pl.program_id(0) * _SPLATS + lax.broadcasted_iota(jnp.int32, (_SPLATS, 1), 0)
    self.exists = self.rank < num_splats
    splat = plt.load(order.at[self.image, self.rank], mask=self.exists, other=0)
    row = self.image * num_splats + splat
    load = lambda k: plt.load(bounds.at[row, k], mask=self.exists, other=0.0)
    self._ellipse = [load(k) for k in _TOUCHES]
    self._left, self._top, self._wide = load(_LEFT), load(_TOP), load(_WIDE)
    self._count = (self._wide * load(_HIGH)).astype(jnp.int32)

  def visit(self, use: Callable[[jax.Array, jax.Array, jax.Array], None]) -> jax.Array:
    """Calls `use(tile, number, kept)` on all candidates, a few at a time.

    Returns:
      (splats, 1) tiles that each splat touches; `number` counts them.
    """
    column = lax.broadcasted_iota(jnp.int32, (1, _TILES), 1)
    per_row = 1.0 / jnp.maximum(self._wide, 1.0)

    def some(step: jax.Array, found: jax.Array) -> jax.Array:
      place = step * _TILES + column
      # Half a place past the start of a row, rounding cannot reach the row before.
      down = jnp.floor((place.astype(jnp.float32) + 0.5) * per_row)
      x, y = self._left + (place.astype(jnp.float32) - down * self._wide), self._top + down
      kept = (place < self._count) & binning.touches(self._ellipse, x, y, self.options)
      here = kept.astype(jnp.int32)
      tile = y.astype(jnp.int32) * self.options.tiles_wide + x.astype(jnp.int32)
      use(tile, found + jnp.cumsum(here, axis=1) - here, kept)
      return found + jnp.sum(here, axis=1, keepdims=True)

    steps = pl.cdiv(jnp.max(self._count), _TILES)
    return lax.fori_loop(0, steps, some, jnp.zeros((_SPLATS, 1), jnp.int32))


def _count_kernel(order: Any, bounds: Any, counts: Any, *, options: Options) -> None:
  """Counts the tiles that each splat touches."""
  splats = _Candidates(order, bounds, options)
  found = splats.visit(lambda *_: None)
  plt.store(counts.at[splats.image, splats.rank], found, mask=splats.exists)


def _write_kernel(
  order: Any,
  bounds: Any,
  first: Any,
  _: Any,
  __: Any,
  tiles: Any,
  ranks: Any,
  *,
  options: Options,
) -> None:
  """Writes tile and rank of each entry into its slot."""
  splats = _Candidates(order, bounds, options)
  start = plt.load(first.at[splats.image, splats.rank], mask=splats.exists, other=0)

  def write(tile: jax.Array, number: jax.Array, kept: jax.Array) -> None:
    kept &= start + number < options.capacity
    slot = splats.image * options.capacity + start + number
    plt.store(tiles.at[slot], tile.astype(tiles.dtype), mask=kept)
    plt.store(ranks.at[slot], jnp.broadcast_to(splats.rank, tile.shape), mask=kept)

  splats.visit(write)
