"""GPU kernels: Pallas, lowered through Triton.

One program is one warp and walks the lists of a few tiles at once, one splat of each per step. Sums
over a tile's pixels are mostly serial adds inside a lane, then three shuffles that serve all those
tiles together. Tiles of about equal work share a program.

Nothing is added atomically. The backward pass writes one row of sums per intersection into that
intersection's slot (see `binning`), and a second kernel adds up each splat's rows, so equal inputs
give equal bytes.
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

from jaxsplat_mouse.rasterize import blend, pallas_blend
from jaxsplat_mouse.rasterize.base import Bundle, Options
from jaxsplat_mouse.rasterize.binning import TileLists, bin_splats
from jaxsplat_mouse.rasterize.pallas_tiles import Tiles, group_size

_ROW = 16  # floats of a splat or of its sums, padded: 64-byte rows, addressed without carries
_SECTOR = 8  # floats that memory moves at once
_SPLATS = 16  # splats per program when rows are summed
_BATCH = 2  # rows of each that are loaded together


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class Residuals:
  """What the backward pass reuses.

  Attributes:
    lists: the tile lists.
    walked: (I, T) splats of each tile's list that were looked at before all its rays had ended.
  """

  lists: TileLists
  walked: jax.Array


def forward(bundle: Bundle, options: Options) -> tuple[jax.Array, Residuals, jax.Array]:
  """See `base`."""
  lists = bin_splats(bundle, options)
  channels, walked = composite(bundle, lists, options)
  return channels, Residuals(lists=lists, walked=walked), lists.overflow


def composite(bundle: Bundle, lists: TileLists, options: Options) -> tuple[jax.Array, jax.Array]:
  """Channels (I, C + 2, H, W) of images whose tile lists are known, and `Residuals.walked`."""
  lengths = lists.ends - lists.starts
  channels = blend.num_channels(options.geometry) + 2
  image = (len(lengths), channels, options.height, options.width)
  return _launch(
    functools.partial(_forward_kernel, options=options),
    pl.cdiv(options.num_tiles, group_size(options)),
    (*_walkable(lists, lengths, bundle), bundle.reference[:, None]),
    (jax.ShapeDtypeStruct(image, jnp.float32), jax.ShapeDtypeStruct(lengths.shape, jnp.int32)),
    options,
  )


def backward(
  bundle: Bundle,
  residuals: Residuals,
  channels: jax.Array,
  gradient: jax.Array,
  options: Options,
) -> jax.Array:
  """See `base`."""
  rows, written = gradient_rows(bundle, residuals, channels, gradient, options)
  sums = sum_rows(rows, written, residuals.lists, bundle.features.shape, options)
  return pallas_blend.finish(sums, bundle.features, options)


def gradient_rows(
  bundle: Bundle,
  residuals: Residuals,
  channels: jax.Array,
  gradient: jax.Array,
  options: Options,
) -> tuple[jax.Array, jax.Array]:
  """Sums (I, M, 16) over the pixels of each intersection, by slot, and which slots hold any."""
  lists = residuals.lists
  written = jnp.zeros(lists.slots.shape, jnp.int8)
  inputs = (
    *_walkable(lists, residuals.walked, bundle),
    bundle.reference[:, None],
    lists.slots,
    channels,
    gradient,
    written,
  )
  return _launch(
    functools.partial(_backward_kernel, options=options),
    pl.cdiv(options.num_tiles, group_size(options)),
    inputs,
    (jax.ShapeDtypeStruct((*written.shape, _ROW), jnp.float32), written),
    options,
    aliases={len(inputs) - 1: 1},
  )


def sum_rows(
  rows: jax.Array,
  written: jax.Array,
  lists: TileLists,
  shape: tuple[int, int, int],
  options: Options,
) -> jax.Array:
  """Adds up each splat's rows: (I, N, F) sums over all of its pixels."""
  return _launch(
    _sum_kernel,
    pl.cdiv(shape[1], _SPLATS),
    (lists.first_slots, lists.slot_counts, rows, written),
    jax.ShapeDtypeStruct(shape, jnp.float32),
    options,
  )


def _walkable(lists: TileLists, lengths: jax.Array, bundle: Bundle) -> tuple[jax.Array, ...]:
  """What `Tiles` takes."""
  padding = _ROW - bundle.features.shape[-1]
  features = jnp.pad(bundle.features, ((0, 0), (0, 0), (0, padding)))
  return _busiest_first(lengths), lists.starts, lengths, lists.splats, features


def _busiest_first(work: jax.Array) -> jax.Array:
  """(I, T) tiles of each image by falling work, so that tiles of a program have about the same."""
  bits = max(1, (work.shape[1] - 1).bit_length())
  most = (1 << (32 - bits)) - 1
  rank = (most - jnp.minimum(work, most)).astype(jnp.uint32) << bits
  tiles = jnp.arange(work.shape[1], dtype=jnp.uint32)
  return (lax.sort(rank | tiles, is_stable=False) & ((1 << bits) - 1)).astype(jnp.int32)


def _launch(
  kernel: Callable[..., None],
  programs: int,
  inputs: Any,
  outputs: Any,
  options: Options,
  aliases: dict[int, int] | None = None,
) -> Any:
  """Runs one warp per (program, image); operands (I, ...) are seen without their image axis."""
  image = lambda a: pl.BlockSpec((None, *a.shape[1:]), lambda _, i: (i,) + (0,) * (a.ndim - 1))
  outputs_ = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), outputs)
  return pl.pallas_call(
    kernel,
    grid=(programs, jax.tree.leaves(inputs)[0].shape[0]),
    in_specs=jax.tree.map(image, inputs),
    out_specs=jax.tree.map(image, outputs),
    out_shape=outputs_,
    input_output_aliases=aliases or {},
    compiler_params=plt.CompilerParams(num_warps=1, num_stages=1),
    interpret=options.interpret,
  )(*inputs)


def _forward_kernel(*refs: Any, options: Options) -> None:
  """Composites the tiles of one program."""
  *lists, reference, channels, walked = refs
  tiles, inverse = Tiles(options, *lists), reference[0]

  def step(_: jax.Array, feature: blend.Values, state: blend.Values) -> blend.Values:
    response = pallas_blend.respond(feature, tiles.x, tiles.y, inverse, options)
    return pallas_blend.forward_step(state, response, options)

  rays = tiles.fresh_rays()
  zero = jnp.zeros_like(rays)
  state = (*(zero,) * blend.num_channels(options.geometry), rays, zero)
  (*sums, transmittance, median), looked_at = tiles.walk(step, state, -2)
  for channel, value in enumerate((*sums, jnp.abs(transmittance), median)):
    tiles.store(channels, channel, value)
  plt.store(walked.at[tiles.tile], looked_at, mask=tiles.exists)


def _backward_kernel(*refs: Any, options: Options) -> None:
  """Writes every splat's sums over each of the program's tiles to the slot of that pair."""
  *lists, reference, slots, channels, gradient, _, rows, written = refs
  tiles, inverse = Tiles(options, *lists), reference[0]
  count = blend.num_channels(options.geometry)
  pulls = tuple(tiles.load(gradient, k) for k in range(count + 2))
  rest = blend.total(tuple(tiles.load(channels, k) for k in range(count + 1)), pulls[:-1])

  def step(rank: jax.Array, feature: blend.Values, state: blend.Values) -> blend.Values:
    present, slot = rank < tiles.length, slots[tiles.entry(rank)]
    response = pallas_blend.respond(feature, tiles.x, tiles.y, inverse, options)
    state, sums = pallas_blend.backward_step(state, feature, response, pulls, options)
    _store_row(rows, slot, sums, present)
    plt.store(written.at[slot], jnp.ones_like(slot, jnp.int8), mask=present)
    return state

  tiles.walk(step, (tiles.fresh_rays(), rest), 0)


def _store_row(rows: Any, slot: jax.Array, values: blend.Values, present: jax.Array) -> None:
  """Writes values (1, 1, T) to the first columns of the rows `slot`, eight to a memory access."""
  whole = len(values) // _SECTOR * _SECTOR
  for k in range(0, whole, _SECTOR):
    together = _interleave(values[k : k + _SECTOR]).reshape(*slot.shape, _SECTOR)
    column = k + lax.broadcasted_iota(jnp.int32, together.shape, 3)
    plt.store(rows.at[slot[..., None], column], together, mask=present[..., None])
  for k in range(whole, len(values)):
    plt.store(rows.at[slot, k], values[k], mask=present)


def _interleave(values: blend.Values) -> jax.Array:
  """A power of two of values along new last axes of length 2; in C order they stand as given."""
  if len(values) == 1:
    return values[0]
  return jnp.stack([_interleave(values[::2]), _interleave(values[1::2])], -1)


def _sum_kernel(first_slots: Any, slot_counts: Any, rows: Any, written: Any, total: Any) -> None:
  """Adds up the rows of a few splats, in the order of their slots."""
  num_splats, width = total.shape
  splat = pl.program_id(0) * _SPLATS + lax.broadcasted_iota(jnp.int32, (_SPLATS, 1), 0)
  exists = splat < num_splats
  first = plt.load(first_slots.at[splat], mask=exists, other=0)
  count = plt.load(slot_counts.at[splat], mask=exists, other=0)
  column = lax.broadcasted_iota(jnp.int32, (1, _ROW), 1)

  def add(batch: jax.Array, sums: jax.Array) -> jax.Array:
    for k in range(_BATCH):
      rank = batch * _BATCH + k
      known = plt.load(written.at[first + rank], mask=rank < count, other=0) > 0
      mask = known & (column < width)
      sums = sums + plt.load(rows.at[first + rank, column], mask=mask, other=0.0)
    return sums

  batches = pl.cdiv(jnp.max(count), _BATCH)
  sums = lax.fori_loop(0, batches, add, jnp.zeros((_SPLATS, _ROW), jnp.float32))
  plt.store(total.at[splat, column], sums, mask=exists & (column < width))
