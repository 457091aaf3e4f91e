"""GPU kernels: Pallas, lowered through Triton.

One program is one warp and walks the lists of a few tiles at once, one splat of each per step. Sums
over a tile's pixels are mostly multiply-adds inside a lane, then shuffles that leave one sum in
each lane, where it is written from. Tiles of about equal work share a program.

Nothing is added atomically. The backward pass writes one row of sums per intersection into that
intersection's slot (see `pallas_binning`), and a second kernel adds up each splat's rows, so equal
inputs give equal bytes.
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

from jaxsplat_mouse.ops.pallas_math import WARP, sum_lanes
from jaxsplat_mouse.ops.rasterize import blend, pallas_blend
from jaxsplat_mouse.ops.rasterize.base import Bundle, Channels, Options, with_gradient
from jaxsplat_mouse.ops.rasterize.layout import NUM_COLORS
from jaxsplat_mouse.ops.rasterize.moments import gradient_from_sums
from jaxsplat_mouse.ops.rasterize.pallas_binning import SlotLists, bin_into_slots, fits_integers
from jaxsplat_mouse.ops.rasterize.pallas_tiles import ROW, Tiles, at_row, group_size

_SPLIT = 2  # lanes that share a column of a tile, where there are enough
# Where rows are summed, of ellipsoids and of discs: splats per program, and rows of each that are
# loaded together.
_SPLATS = {False: 32, True: 16}
_BATCH = {False: 2, True: 1}


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class _Residuals:
  """What the backward pass reuses.

  Attributes:
    lists: the tile lists.
    walked: (I, T) splats of each tile's list that were evaluated before all its rays had ended.
    number: (I,) of each image in the batch that the lists were made for.
  """

  lists: SlotLists
  walked: jax.Array
  number: jax.Array


def fits(options: Options) -> bool:
  """See `base`."""
  return fits_integers(1, options)


def forward(bundle: Bundle, options: Options) -> tuple[Channels, _Residuals, jax.Array]:
  """See `base`."""
  lists = bin_into_slots(bundle, options)
  channels, walked = composite_lists(bundle, lists, options)
  number = jnp.arange(len(walked), dtype=jnp.int32)
  return channels, _Residuals(lists=lists, walked=walked, number=number), lists.overflow


def _split(options: Options) -> int:
  """Lanes that share a column: no more than a warp has for a tile, or than the column has rows."""
  return min(_SPLIT, WARP // options.tile_size, options.tile_size)


def composite_lists(
  bundle: Bundle, lists: SlotLists, options: Options
) -> tuple[Channels, jax.Array]:
  """Composites images whose lists are known.

  Args:
    bundle: I images.
    lists: from `bin_into_slots`.
    options: as for the lists.

  Returns:
    the channels, and of each list (I, T) how many splats were evaluated before all rays had ended.
  """
  images, size = len(lists.lengths), (options.height, options.width)
  others = options.channel_layout.behind_color.num_channels
  outputs = (
    jax.ShapeDtypeStruct((images, NUM_COLORS, *size), jnp.float32),
    jax.ShapeDtypeStruct((images, others, *size), jnp.float32),
    jax.ShapeDtypeStruct(lists.lengths.shape, jnp.int32),
  )
  colors, others, walked = _launch(
    functools.partial(_forward_kernel, options=options),
    pl.cdiv(options.num_tiles, group_size(options, _split(options))),
    (_busiest_first(lists.lengths), lists.starts, lists.lengths, _constants(bundle)),
    (lists.slots.reshape(-1), lists.ranks.reshape(-1), _by_depth(bundle, lists, options)),
    outputs,
    options,
  )
  return Channels(colors, others), walked


def backward(
  bundle: Bundle,
  residuals: _Residuals | None,
  channels: Channels,
  gradient: Channels,
  options: Options,
) -> jax.Array:
  """See `base`."""
  if residuals is None:
    lists = bin_into_slots(bundle, options)
    _, walked = composite_lists(bundle, lists, options)
    residuals = _Residuals(lists=lists, walked=walked, number=jnp.arange(len(walked)))
  lists, walked = residuals.lists, residuals.walked
  rows, written = gradient_rows(bundle, lists, walked, channels, gradient, options)
  sums = sum_rows(rows, written, lists, options)
  # Lists of another batch would give wrong gradients that look like any others.
  own = (residuals.number == jnp.arange(len(walked))).all()
  return jnp.where(own, gradient_from_sums(sums, bundle.features, options), jnp.nan)


# Slots are numbered through all images of a batch.
composite_image = with_gradient(forward, backward, residuals_of_batch=True)


def gradient_rows(
  bundle: Bundle,
  lists: SlotLists,
  walked: jax.Array,
  channels: Channels,
  gradient: Channels,
  options: Options,
) -> tuple[jax.Array, jax.Array]:
  """Sums what a gradient is made of over the pixels of each intersection of a splat and a tile.

  Args:
    bundle: I images.
    lists: theirs.
    walked: (I, T) from `composite_lists`.
    channels: likewise.
    gradient: of the loss by the channels.
    options: as for the lists.

  Returns:
    sums (I M + 1, 16) by slot, and (I M + 1,) which slots hold any.
  """
  written = jnp.zeros(lists.slots.size + 1, jnp.int8)
  inputs = _busiest_first(walked), lists.starts, walked, _constants(bundle)
  whole = lists.slots.reshape(-1), lists.ranks.reshape(-1), _by_depth(bundle, lists, options)
  planes = (*channels, *gradient)
  return _launch(
    functools.partial(_backward_kernel, options=options),
    pl.cdiv(options.num_tiles, group_size(options, _split(options))),
    (*inputs, *planes),
    (*whole, written),
    (jax.ShapeDtypeStruct((written.size, ROW), jnp.float32), written),
    options,
    whole_outputs=True,
    aliases={len(inputs) + len(planes) + len(whole): 1},
  )


def sum_rows(rows: jax.Array, written: jax.Array, lists: SlotLists, options: Options) -> jax.Array:
  """Adds up each splat's rows.

  Args:
    rows: from `gradient_rows`.
    written: likewise.
    lists: of the images.
    options: as for the lists.

  Returns:
    (I, N, F) sums over all of a splat's pixels.
  """
  splats, width = _SPLATS[options.flat], options.feature_layout.num_features
  return _launch(
    functools.partial(_sum_kernel, splats=splats, batch=_BATCH[options.flat]),
    pl.cdiv(lists.order.shape[1], splats),
    (lists.order, lists.first_slots, lists.slot_counts),
    (rows, written),
    jax.ShapeDtypeStruct((*lists.order.shape, width), jnp.float32),
    options,
  )


def _by_depth(bundle: Bundle, lists: SlotLists, options: Options) -> jax.Array:
  """(I N, 16) splats as `pallas_blend.Splat` takes them, nearest first."""
  features = bundle.features
  is_opacity = jnp.arange(features.shape[-1]) == options.feature_layout.opacity
  features = jnp.where(is_opacity, jnp.log2(features), features)
  features = jnp.pad(features, ((0, 0), (0, 0), (0, ROW - features.shape[-1])))
  images = jnp.arange(len(features), dtype=jnp.int32)[:, None]
  rows = (lists.order + images * features.shape[1]).reshape(-1)
  return features.reshape(-1, ROW).at[rows].get(mode="promise_in_bounds")


def _constants(bundle: Bundle) -> jax.Array:
  """Stacks what all splats of an image share: `reference`, `falloff`; (I, 2)."""
  return jnp.stack([bundle.reference, bundle.falloff], -1)


def _busiest_first(work: jax.Array) -> jax.Array:
  """Sorts each image's tiles (I, T) by falling work: tiles of one program have about the same."""
  bits = max(1, (work.shape[1] - 1).bit_length())
  most = (1 << (32 - bits)) - 1
  rank = (most - jnp.minimum(work, most)).astype(jnp.uint32) << bits
  tiles = jnp.arange(work.shape[1], dtype=jnp.uint32)
  return (lax.sort(rank | tiles, is_stable=False) & ((1 << bits) - 1)).astype(jnp.int32)


def _launch(
  kernel: Callable[..., None],
  programs: int,
  inputs: Any,
  whole: Any,
  outputs: Any,
  options: Options,
  whole_outputs: bool = False,
  aliases: dict[int, int] | None = None,
) -> Any:
  """Runs one warp per (program, image).

  Args:
    kernel: takes references to inputs, whole and outputs.
    programs: per image.
    inputs: (I, ...) arrays, seen without their image axis.
    whole: arrays seen as they are.
    outputs: shapes, seen as inputs are.
    options: whether to interpret.
    whole_outputs: whether outputs are seen as they are.
    aliases: see `pallas_call`.
  """
  image = lambda a: pl.BlockSpec((None, *a.shape[1:]), lambda _, i: (i,) + (0,) * (a.ndim - 1))
  full = lambda a: pl.BlockSpec(a.shape, lambda *_: (0,) * a.ndim)
  return pl.pallas_call(
    kernel,
    grid=(programs, len(inputs[0])),
    in_specs=[*map(image, inputs), *map(full, whole)],
    out_specs=jax.tree.map(full if whole_outputs else image, outputs),
    out_shape=jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), outputs),
    input_output_aliases=aliases or {},
    compiler_params=plt.CompilerParams(num_warps=1, num_stages=1),
    interpret=options.interpret,
  )(*inputs, *whole)


def _forward_kernel(*refs: Any, options: Options) -> None:
  """Composites the tiles of one program."""
  order, starts, lengths, constants, slots, ranks, features, colors, others, walked = refs
  tiles = Tiles(options, order, starts, lengths, slots, ranks, features, _split(options))
  numbers, rows = (constants[0], constants[1]), tiles.rows
  layout = options.channel_layout

  def step(_: jax.Array, __: jax.Array, feature: blend.Values, state: Any) -> Any:
    splat = pallas_blend.Splat(feature, tiles.x, *numbers, options)
    return tuple(splat.forward_step(state[r], splat.respond(tiles.y(r))) for r in rows)

  zeros = (jnp.zeros_like(tiles.x),) * layout.num_blended
  state = tuple((*zeros, tiles.fresh_rays(r), jnp.zeros_like(tiles.x)) for r in rows)
  state, evaluated = tiles.walk(step, state, lambda s: [row[layout.transmittance] for row in s])
  for r in rows:
    *sums, transmittance, median = state[r]
    values = (*sums, jnp.abs(transmittance), median)
    for (target, plane), value in zip(_planes(colors, others, options), values, strict=True):
      tiles.store(target, plane, r, value)
  plt.store(walked.at[tiles.tile], evaluated, mask=tiles.exists)


def _backward_kernel(*refs: Any, options: Options) -> None:
  """Writes every splat's sums over each of the program's tiles to the slot of that pair."""
  order, starts, lengths, constants, colors, others, d_colors, d_others = refs[:8]
  slots, ranks, features, _, sums, written = refs[8:]
  tiles = Tiles(options, order, starts, lengths, slots, ranks, features, _split(options))
  numbers, rows = (constants[0], constants[1]), tiles.rows
  summed = options.channel_layout.summed

  def load(row: int, planes: list[tuple[Any, int]]) -> blend.Values:
    return tuple(tiles.load(array, plane, row) for array, plane in planes)

  results, gradients = _planes(colors, others, options), _planes(d_colors, d_others, options)
  pulls = [load(r, gradients) for r in rows]
  rests = [blend.total(load(r, results[summed]), pulls[r][summed]) for r in rows]

  def step(place: jax.Array, slot: jax.Array, feature: blend.Values, state: Any) -> Any:
    splat = pallas_blend.Splat(feature, tiles.x, *numbers, options)
    gradient = splat.gradient()
    state = tuple(gradient.step(state[r], splat.respond(tiles.y(r)), pulls[r]) for r in rows)
    _store_row(sums, written, slot, gradient.sums(), place < tiles.length, tiles)
    return state

  state = tuple((tiles.fresh_rays(r), rests[r]) for r in rows)
  tiles.walk(step, state, lambda s: [transmittance for transmittance, _ in s])


def _planes(colors: Any, others: Any, options: Options) -> list[tuple[Any, int]]:
  """Array and plane of each channel, in the order of `ChannelLayout`."""
  count = options.channel_layout.behind_color.num_channels
  return [*((colors, k) for k in range(NUM_COLORS)), *((others, k) for k in range(count))]


def _store_row(
  rows: Any, written: Any, slot: jax.Array, parts: blend.Values, present: jax.Array, tiles: Tiles
) -> None:
  """Adds up each part over a tile's lanes and writes the sums to the first of a row's columns."""
  lanes, interpret = tiles.lanes, tiles.options.interpret
  if interpret:  # The interpreter's masked stores write old values back: not over another's row.
    slot = jnp.where(present, slot, rows.shape[0] - 1)
  row = at_row(slot, rows.shape[0])
  for k in range(0, len(parts), lanes):
    some = parts[k : k + lanes]
    total = sum_lanes(some, tiles.lane, lanes, interpret)
    mask = present & (tiles.lane < len(some))
    plt.store(rows.at[row, k + tiles.lane], total, mask=mask)
  plt.store(written.at[row], jnp.ones_like(slot, jnp.int8), mask=present)


def _sum_kernel(
  order: Any,
  first_slots: Any,
  slot_counts: Any,
  rows: Any,
  written: Any,
  total: Any,
  *,
  splats: int,
  batch: int,
) -> None:
  """Adds up the rows of a few splats, in the order of their slots."""
  num_splats, width = total.shape
  rank = pl.program_id(0) * splats + lax.broadcasted_iota(jnp.int32, (splats, 1), 0)
  rank = jnp.minimum(rank, num_splats - 1)  # the last one again rather than none
  splat, first, count = order[rank], first_slots[rank], slot_counts[rank]
  column = lax.broadcasted_iota(jnp.int32, (1, ROW), 1)

  def add(step: jax.Array, sums: jax.Array) -> jax.Array:
    for k in range(batch):
      number = step * batch + k
      row = at_row(first + number, rows.shape[0])
      known = plt.load(written.at[row], mask=number < count, other=0) > 0
      mask = known & (column < width)
      sums = sums + plt.load(rows.at[row, column], mask=mask, other=0.0)
    return sums

  steps = pl.cdiv(jnp.max(count), batch)
  sums = lax.fori_loop(0, steps, add, jnp.zeros((splats, ROW), jnp.float32))
  plt.store(total.at[splat, column], sums, mask=column < width)
