"""How a program of the Pallas kernels sees its tiles: their pixels, and a walk along their lists.

One program is one warp with a few tiles. A lane has one column of one tile, or a part of one,
columns fastest; a block is (32,), one element per lane, and the rows of a part are separate blocks.
So sums over rows stay in a register, a row of pixels is adjacent in memory, and the lanes of a tile
are neighbours. Fewer rows a lane need fewer registers, so more warps hide each other's waiting.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plt

from jaxsplat_mouse.ops.pallas_math import WARP, exchange
from jaxsplat_mouse.ops.rasterize.base import Options
from jaxsplat_mouse.ops.rasterize.blend import Values

ROW = 16  # floats of a splat or of its sums, padded: 64-byte rows, addressed without carries
_CHUNK = 8  # splats between two looks at whether every ray has ended


def group_size(options: Options, split: int) -> int:
  """Tiles per program, whose columns `split` lanes share."""
  return WARP // (options.tile_size * split)


def at_row(row: jax.Array, count: int) -> jax.Array:
  """Masks a row below `count`, so that the compiler sees that addresses cannot overflow.

  It then adds columns as constants of the access and not in registers.
  """
  return row & ((1 << max(count - 1, 1).bit_length()) - 1)


class Tiles:
  """The tiles of one program.

  Attributes:
    options: image and tile size.
    lanes: of a tile.
    lane: (32,) the number of each among those of its tile.
    rows: of pixels that a lane has.
    tile: (32,) tile number, one past the last where there is none.
    exists: (32,) whether there is one.
    x: (32,) pixel centres.
    length: (32,) entries of each tile's list.
  """

  def __init__(
    self,
    options: Options,
    order: Any,
    starts: Any,
    lengths: Any,
    slots: Any,
    ranks: Any,
    features: Any,
    split: int,
  ) -> None:
    """Finds the tiles.

    Args:
      options: image and tile size.
      order: (T,) tile numbers, in the order in which programs take them.
      starts: (T,) where a tile's list begins.
      lengths: (T,) how long it is.
      slots: (I M,) the lists of all images, see `pallas_binning.SlotLists`.
      ranks: (I M,) splats of the slots.
      features: (I N, 16) splats of all images, nearest first.
      split: lanes that share a column.
    """
    self.options, self._slots, self._ranks, self._features = options, slots, ranks, features
    self._first_splat = pl.program_id(1) * (features.shape[0] // pl.num_programs(1))
    side = options.tile_size
    self.lanes, self.rows = side * split, range(side // split)
    lane = lax.iota(jnp.int32, WARP)
    self.lane = lane % self.lanes
    place = pl.program_id(0) * group_size(options, split) + lane // self.lanes
    self.tile = plt.load(order.at[place], mask=place < options.num_tiles, other=options.num_tiles)
    self.exists = self.tile < options.num_tiles
    start = plt.load(starts.at[self.tile], mask=self.exists, other=0)
    self.length = plt.load(lengths.at[self.tile], mask=self.exists, other=0)
    self._start, self._last = start, jnp.maximum(start + self.length - 1, 0)
    self._column = self.tile % options.tiles_wide * side + self.lane % side
    self._top = self.tile // options.tiles_wide * side + self.lane // side * len(self.rows)
    self.x = self._column.astype(jnp.float32) + 0.5

  def y(self, row: int) -> jax.Array:
    """Pixel centres of a row of the lanes' parts (32,)."""
    return self._top.astype(jnp.float32) + (row + 0.5)

  def _inside(self, row: int) -> jax.Array:
    return (self._column < self.options.width) & (self._top + row < self.options.height)

  def load(self, image: Any, channel: int, row: int) -> jax.Array:
    """A row of the lanes' parts in one channel of an image (C, H, W)."""
    place = image.at[channel, self._top + row, self._column]
    return plt.load(place, mask=self._inside(row), other=0.0)

  def store(self, image: Any, channel: int, row: int, value: jax.Array) -> None:
    """Writes a row of the lanes' parts in one channel of an image (C, H, W)."""
    plt.store(image.at[channel, self._top + row, self._column], value, mask=self._inside(row))

  def fresh_rays(self, row: int) -> jax.Array:
    """T before the first splat: 1, and -1, that is ended, for pixels outside the image."""
    return jnp.where(self._inside(row), 1.0, -1.0)

  def _slot(self, place: Any) -> jax.Array:
    """Slot of each tile's list entry at a place; of another entry past the end of the list."""
    return self._slots[jnp.minimum(self._start + place, self._last)]

  def _splat(self, slot: jax.Array) -> jax.Array:
    """The slot's splat among those of all images."""
    return self._first_splat + self._ranks[at_row(slot, self._ranks.shape[0])]

  def _fetch(self, splat: jax.Array) -> Values:
    """Features of one splat per tile."""
    row = at_row(splat, self._features.shape[0])
    count = self.options.feature_layout.num_features
    return tuple(self._features[row, k] for k in range(count))

  def walk(
    self, step: Callable[..., Any], state: Any, rays: Callable[[Any], Sequence[jax.Array]]
  ) -> tuple[Any, jax.Array]:
    """Runs `state = step(place, slot, feature, state)` along the lists.

    Ends with the lists, or when all rays have ended. Past the end of a list its tile is given
    splats of opacity 0. While one splat is worked on, the next one's features, the number of the
    one after that and the slot of the third are on their way.

    Args:
      step: the work on one splat of each tile.
      state: blocks, carried.
      rays: T of every row in a state, negative where a ray has ended.

    Returns:
      the last state, and how many splats of each list were evaluated.
    """
    opacity = self.options.feature_layout.opacity

    def one(place: jax.Array, carry: Any) -> Any:
      slot, feature, (next_slot, next_splat), later_slot, state = carry
      ahead = self._fetch(next_splat)
      later = later_slot, self._splat(later_slot)
      last_slot = self._slot(place + 3)
      top = jnp.where(place < self.length, feature[opacity], -jnp.inf)
      feature = (*feature[:opacity], top, *feature[opacity + 1 :])
      return next_slot, ahead, later, last_slot, step(place, slot, feature, state)

    def several(carry: Any) -> Any:
      place, walked, busy, carry = carry
      carry = lax.fori_loop(place, place + _CHUNK, one, carry)
      place = place + _CHUNK
      walked = jnp.where(busy > 0, jnp.minimum(place, self.length), walked)
      seeing = self._any_column(rays(carry[-1]))
      busy = jnp.where(seeing & (place < self.length), busy, 0)
      return place, walked, busy, carry

    busy = (self.length > 0).astype(jnp.int32)
    slots = [self._slot(place) for place in range(3)]
    splats = [self._splat(slot) for slot in slots[:2]]
    carry = (slots[0], self._fetch(splats[0]), (slots[1], splats[1]), slots[2], state)
    start = (jnp.int32(0), jnp.zeros_like(busy), busy, carry)
    _, walked, _, carry = lax.while_loop(lambda c: jnp.max(c[2]) > 0, several, start)
    return carry[-1], walked

  def _any_column(self, rays: Sequence[jax.Array]) -> jax.Array:
    """Whether any ray of the tile goes on, in each of its lanes."""
    brightest = rays[0]
    for ray in rays[1:]:
      brightest = jnp.maximum(brightest, ray)
    mask = 1
    while mask < self.lanes:
      other = exchange(brightest, mask, self.options.interpret)
      brightest, mask = jnp.maximum(brightest, other), 2 * mask
    return brightest > 0
