"""How a program of the Pallas kernels sees its tiles: their pixels, and a walk along their lists.

One program is one warp with a few tiles. Blocks have the axes (rows, columns, tiles), tiles
fastest, so that 32 lanes are the columns of as many tiles as fit, and a tile's rows lie inside a
lane.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plt

from jaxsplat_mouse.rasterize import blend
from jaxsplat_mouse.rasterize.base import Options
from jaxsplat_mouse.rasterize.blend import Values

_WARP = 32
_CHUNK = 8  # splats between two looks at whether every ray has ended


def group_size(options: Options) -> int:
  """Tiles per program."""
  return max(1, _WARP // options.tile_size)


class Tiles:
  """The tiles of one program.

  Attributes:
    x: (1, columns, tiles) pixel centres.
    y: (rows, columns, tiles) pixel centres.
    length: (1, 1, tiles) entries of each tile's list.
  """

  def __init__(
    self, options: Options, order: Any, starts: Any, lengths: Any, splats: Any, features: Any
  ) -> None:
    """Finds the tiles.

    Args:
      options: image and tile size.
      order: (T,) tile numbers, in the order in which programs take them.
      starts: (T,) where a tile's list begins.
      lengths: (T,) how long it is.
      splats: (M,) the lists.
      features: (N, F) splats.
    """
    self.options, self.splats, self.features = options, splats, features
    side, group = options.tile_size, group_size(options)
    first = pl.program_id(0) * group
    tile = _tile(first + _axis(2, group), order, options)
    self.exists = tile < options.num_tiles
    self.tile = tile
    self.start = plt.load(starts.at[tile], mask=self.exists, other=0)
    self.length = plt.load(lengths.at[tile], mask=self.exists, other=0)
    column = tile % options.tiles_wide * side + _axis(1, side)
    # A whole block, not (rows, 1, tiles): that shape would be spread over lanes and moved back.
    down = lax.broadcasted_iota(jnp.int32, (side, side, group), 0)
    row = tile // options.tiles_wide * side + down
    self.x, self.y = column.astype(jnp.float32) + 0.5, row.astype(jnp.float32) + 0.5
    self.inside = (column < options.width) & (row < options.height)
    # Images are reached through flat indices, tiles fastest: offered runs of adjacent addresses,
    # the compiler would lay out everything that meets them along those runs, and sums would suffer.
    flat = lax.iota(jnp.int32, side * side * group)
    tile = _tile(first + flat % group, order, options)
    self._column = tile % options.tiles_wide * side + flat // group % side
    self._row = tile // options.tiles_wide * side + flat // (group * side)
    self._inside = (self._column < options.width) & (self._row < options.height)

  def load(self, image: Any, channel: int) -> jax.Array:
    """One channel of an image (C, H, W) at the tiles' pixels."""
    values = plt.load(image.at[channel, self._row, self._column], mask=self._inside, other=0.0)
    return values.reshape(self.options.tile_size, self.options.tile_size, -1)

  def store(self, image: Any, channel: int, value: jax.Array) -> None:
    """Writes the tiles' pixels of one channel of an image (C, H, W)."""
    plt.store(image.at[channel, self._row, self._column], value.reshape(-1), mask=self._inside)

  def fresh_rays(self) -> jax.Array:
    """T before the first splat: 1, and -1, that is ended, for pixels outside the image."""
    return jnp.where(self.inside, 1.0, -1.0)

  def entry(self, rank: Any) -> jax.Array:
    """Place in the lists of each tile's splat `rank`; of any other one where it has no such."""
    return jnp.minimum(self.start + rank, self.options.capacity - 1)

  def fetch(self, splat: jax.Array) -> Values:
    """Features of one splat per tile."""
    count = blend.num_features(self.options.flat, self.options.geometry)
    return tuple(self.features[splat, k] for k in range(count))

  def walk(
    self, step: Callable[..., Values], state: Values, transmittance: int
  ) -> tuple[Values, jax.Array]:
    """Runs `state = step(rank, feature, state)` along the lists until they or all rays have ended.

    Past the end of a list its tile is given splats of opacity 0. While one splat is worked on, the
    next one's features and the number of the one after that are on their way.

    Args:
      step: the work on one splat of each tile.
      state: blocks, carried.
      transmittance: which of them is T, negative where a ray has ended.

    Returns:
      the last state, and how many splats of each list were looked at.
    """
    opacity = blend.opacity_index(self.options.flat)

    def one(rank: jax.Array, carry: Any) -> Any:
      feature, splat, state = carry
      ahead = self.fetch(splat)
      splat = self.splats[self.entry(rank + 2)]
      seen = jnp.where(rank < self.length, feature[opacity], 0.0)
      feature = (*feature[:opacity], seen, *feature[opacity + 1 :])
      return ahead, splat, step(rank, feature, state)

    def several(carry: Any) -> Any:
      rank, walked, busy, carry = carry
      carry = lax.fori_loop(rank, rank + _CHUNK, one, carry)
      rank = rank + _CHUNK
      walked = jnp.where(busy > 0, jnp.minimum(rank, self.length), walked)
      brightest = jnp.max(carry[-1][transmittance], axis=0, keepdims=True)
      seeing = jnp.max(brightest, axis=1, keepdims=True) > 0
      busy = jnp.where(seeing & (rank < self.length), busy, 0)
      return rank, walked, busy, carry

    busy = (self.length > 0).astype(jnp.int32)
    lead = self.fetch(self.splats[self.entry(0)]), self.splats[self.entry(1)]
    carry = (jnp.int32(0), jnp.zeros_like(busy), busy, (*lead, state))
    _, walked, _, carry = lax.while_loop(lambda c: jnp.max(c[2]) > 0, several, carry)
    return carry[-1], walked


def _axis(axis: int, size: int) -> jax.Array:
  """0 .. size - 1 along one of three axes."""
  return lax.broadcasted_iota(jnp.int32, tuple(size if k == axis else 1 for k in range(3)), axis)


def _tile(place: jax.Array, order: Any, options: Options) -> jax.Array:
  """Tile number; one past the last, which lies below the image, where there is none."""
  return plt.load(order.at[place], mask=place < options.num_tiles, other=options.num_tiles)
