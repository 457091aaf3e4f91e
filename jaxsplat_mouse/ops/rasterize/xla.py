"""Tiled compositing in plain XLA: for CPUs, and for any device the Pallas kernels do not serve.

Tiles are sorted by the length of their lists and walked in blocks of equals: one loop over blocks,
and in it a loop over ranks, in which every step blends a few splats into each of the block's tiles.
A block's working set fits into the cache, and each loop body is compiled once. The backward pass
walks the same way, front to back (see `blend`), as far as the forward pass went.

XLA's CPU compiler would recompute a splat's response for each value that depends on it; barriers
make it compute the response once per step.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jaxsplat_mouse.ops.rasterize import blend
from jaxsplat_mouse.ops.rasterize.base import Bundle, Channels, Options, with_gradient
from jaxsplat_mouse.ops.rasterize.binning import TileLists, bin_splats
from jaxsplat_mouse.ops.rasterize.layout import NUM_COLORS
from jaxsplat_mouse.ops.rasterize.moments import gradient_from_sums
from jaxsplat_mouse.ops.rasterize.xla_gradient import chain, splat_sums

_TILES = 128  # tiles of a block: few enough for its sums to stay in cache
_SPLATS = 4  # splats of a step


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class _Residuals:
  """What the backward pass reuses.

  Attributes:
    lists: the tile lists.
    walked: (I, T) splats of each tile's list that were evaluated before all its rays had ended.
  """

  lists: TileLists
  walked: jax.Array


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class _Tiles:
  """R sorted tiles of all images.

  Attributes:
    left: (R, 1) of the corner, pixels.
    top: (R, 1) likewise.
    reference: (R, 1), see `Bundle`.
    falloff: (R, 1) likewise.
    starts: (R,) first list entry.
  """

  left: jax.Array
  top: jax.Array
  reference: jax.Array
  falloff: jax.Array
  starts: jax.Array


def fits(options: Options) -> bool:
  """See `base`: any image."""
  del options
  return True


def forward(bundle: Bundle, options: Options) -> tuple[Channels, _Residuals, jax.Array]:
  """See `base`."""
  lists = bin_splats(bundle, options)
  layout = options.channel_layout
  is_transmittance = jnp.arange(layout.num_channels) == layout.transmittance
  clear = is_transmittance.astype(jnp.float32)  # T = 1 where no splat is
  size = (options.tiles_high * options.tile_size, options.tiles_wide * options.tile_size)
  images = bundle.reference.shape[0]
  channels = jnp.broadcast_to(clear[:, None, None], (images, layout.num_channels, *size))
  walked = jnp.zeros(lists.starts.size, jnp.int32)
  features, entries = _flatten(bundle, lists, options)

  def visit(lengths: jax.Array, order: jax.Array, tiles: _Tiles, carry: Any) -> Any:
    channels, walked = carry
    seen, values = _walk(lengths, features, entries, tiles, options)
    return (
      _write_tiles(channels, order, values, options),
      walked.at[order].set(seen, mode="drop", unique_indices=True),
    )

  lengths = (lists.ends - lists.starts).reshape(-1)
  channels, walked = _blocks(lengths, lists, bundle, options, visit, (channels, walked))
  residuals = _Residuals(lists=lists, walked=walked.reshape(lists.starts.shape))
  channels = channels[:, :, : options.height, : options.width]
  return Channels.split(channels), residuals, lists.overflow


def _walk(
  lengths: jax.Array, features: jax.Array, entries: jax.Array, tiles: _Tiles, options: Options
) -> tuple[jax.Array, jax.Array]:
  """Blends the splats of a block of R tiles, front to back.

  Channels that are alike at all pixels of a splat (colour, normal) are summed in one array, those
  that vary from pixel to pixel (depth, moments) in three.

  Returns:
    how many of its splats each tile evaluated (R,), and its channels (R, C + 2, P).
  """
  x, y = _pixels(tiles, options)
  empty = jnp.zeros((lengths.shape[0], 1, options.tile_size**2))
  features_of, channels_of = options.feature_layout, options.channel_layout

  def step(carry: Any) -> Any:
    rank, seen, constants, varying, transmittance, median = carry
    seeing = (transmittance > 0).any((1, 2))
    feature, _ = _splats(features, entries, tiles, rank, lengths, options)
    alpha, depth = _respond(feature, x, y, tiles, options)
    front, weight, behind = chain(transmittance, alpha)
    constant = feature[..., features_of.color]
    if options.geometry:
      constant = jnp.concatenate([constant, feature[..., features_of.normal]], -1)
    constants = constants + sum(
      weight[:, k : k + 1] * constant[:, k, :, None] for k in range(weight.shape[1])
    )
    if options.geometry:
      varying, median = _add_depths(varying, median, weight, front, depth, tiles)
    seen = jnp.where(seeing, jnp.minimum(rank + _SPLATS, lengths), seen)
    return rank + _SPLATS, seen, constants, varying, behind, median

  more = lambda carry: carry[0] < lengths[0]
  constants = jnp.zeros((lengths.shape[0], len(channels_of.constant), empty.shape[2]))
  varying = (empty,) * (channels_of.num_blended - len(channels_of.constant))
  start = (jnp.int32(0), jnp.zeros_like(lengths), constants, varying, empty + 1.0, empty)
  _, seen, constants, varying, transmittance, median = lax.while_loop(more, step, start)
  parts = [constants[:, :NUM_COLORS]]
  if options.geometry:
    depth, *moments = varying
    parts += [depth, constants[:, NUM_COLORS:], *moments]
  return seen, jnp.concatenate([*parts, jnp.abs(transmittance), median], 1)


def _respond(
  feature: jax.Array, x: jax.Array, y: jax.Array, tiles: _Tiles, options: Options
) -> tuple[jax.Array, Any]:
  """Alpha (R, K, P) of K splats, and with geometry their depths."""
  alpha, channels = blend.respond(
    _columns(feature),
    x[:, None],
    y[:, None],
    tiles.reference[:, None],
    tiles.falloff[:, None],
    options,
  )
  if not options.geometry:
    return lax.optimization_barrier(alpha), None
  depth = channels[options.channel_layout.depth]
  if options.flat:
    return lax.optimization_barrier((alpha, depth))
  alpha = lax.optimization_barrier(alpha)
  return alpha, jnp.broadcast_to(depth, alpha.shape)


def _add_depths(
  sums: tuple[jax.Array, ...],
  median: jax.Array,
  weight: jax.Array,
  front: jax.Array,
  depth: jax.Array,
  tiles: _Tiles,
) -> tuple[tuple[jax.Array, ...], jax.Array]:
  """Adds K splats (R, K, P) to the sums of the depth and of two moments, and the median depth."""
  moment = tiles.reference[:, None] - 1.0 / depth
  terms = (weight * depth, weight * moment, weight * moment * moment)
  sums = tuple(
    s + sum(t[:, k : k + 1] for k in range(t.shape[1])) for s, t in zip(sums, terms, strict=True)
  )
  for k in range(weight.shape[1]):
    one = slice(k, k + 1)
    middle = (weight[:, one] > 0) & (front[:, one] > 0.5)
    median = jnp.where(middle, depth[:, one], median)
  return sums, median


def backward(
  bundle: Bundle,
  residuals: _Residuals,
  channels: Channels,
  gradient: Channels,
  options: Options,
) -> jax.Array:
  """See `base`."""
  features, entries = _flatten(bundle, residuals.lists, options)
  pulls, rest_at = _pulls(channels, gradient, options), options.channel_layout.transmittance

  def visit(lengths: jax.Array, order: jax.Array, tiles: _Tiles, total: jax.Array) -> jax.Array:
    x, y = _pixels(tiles, options)
    half = options.tile_size / 2
    pull = _read_tiles(pulls, order, options)
    rest = pull[:, rest_at : rest_at + 1]

    def step(carry: Any) -> Any:
      rank, transmittance, rest, total = carry
      feature, entry = _splats(features, entries, tiles, rank, lengths, options)
      transmittance, rest, sums = splat_sums(
        _columns(feature),
        (tiles.left + half, tiles.top + half),
        x[:, None],
        y[:, None],
        tiles.reference[:, None],
        tiles.falloff[:, None],
        transmittance,
        rest,
        pull,
        options,
      )
      return rank + _SPLATS, transmittance, rest, total.at[entry].add(sums, mode="drop")

    start = (jnp.int32(0), jnp.ones_like(rest), rest, total)
    return lax.while_loop(lambda carry: carry[0] < lengths[0], step, start)[3]

  total = _blocks(
    residuals.walked.reshape(-1),
    residuals.lists,
    bundle,
    options,
    visit,
    jnp.zeros_like(features),
  )
  return gradient_from_sums(total, features, options).reshape(bundle.features.shape)


composite_image = with_gradient(forward, backward)


def _pulls(channels: Channels, gradient: Channels, options: Options) -> jax.Array:
  """Gradient of the channels (I, C + 2, H, W), padded to whole tiles, `rest` in the place of T.

  The gradient of T is part of `rest`, see `blend`.
  """
  layout = options.channel_layout
  others_of = layout.behind_color
  columns = lambda images: tuple(i[:, c] for i in images for c in range(i.shape[1]))
  summed = layout.summed
  rest = blend.total(columns(channels)[summed], columns(gradient)[summed])[:, None]
  colors, others = gradient
  parts = [
    colors,
    others[:, : others_of.transmittance],
    rest,
    others[:, others_of.median_depth :],
  ]
  padding = (-options.height % options.tile_size, -options.width % options.tile_size)
  return jnp.pad(jnp.concatenate(parts, 1), ((0, 0), (0, 0), (0, padding[0]), (0, padding[1])))


def _flatten(bundle: Bundle, lists: TileLists, options: Options) -> tuple[jax.Array, jax.Array]:
  """Flattens all splats to (I N, F), and all list entries to (I M,) rows of those."""
  images, splats, width = bundle.features.shape
  image = jnp.arange(images, dtype=jnp.int32)[:, None]
  entries = (lists.splats + image * splats).reshape(-1)
  return bundle.features.reshape(images * splats, width), entries


def _blocks(
  lengths: jax.Array,
  lists: TileLists,
  bundle: Bundle,
  options: Options,
  visit: Callable[..., Any],
  carry: Any,
) -> Any:
  """Visits the tiles of all images, those with the longest lists first, in blocks of equals.

  Args:
    lengths: (I T,) entries of each tile's list that are to be evaluated.
    lists: of all images.
    bundle: the images.
    options: image and tile size.
    visit: (lengths (R,), tile numbers (R,), tiles, carry) -> carry, for a block of R tiles.
    carry: to start from.

  Returns:
    the last carry. Tiles without entries are not visited.
  """
  rows = lengths.shape[0]
  size = min(_TILES, rows)
  order = jnp.argsort(-lengths).astype(jnp.int32)
  starts = lists.starts + jnp.arange(lists.starts.shape[0], dtype=jnp.int32)[:, None] * (
    options.capacity
  )
  starts = starts.reshape(-1)
  padding = -rows % size
  order = jnp.pad(order, (0, padding), constant_values=rows)
  lengths = jnp.pad(lengths, (0, 1))

  def one(state: Any) -> Any:
    first, carry = state
    here = lax.dynamic_slice_in_dim(order, first, size)
    tile = here % options.num_tiles
    corner = lambda place: (place * options.tile_size).astype(jnp.float32)[:, None]
    tiles = _Tiles(
      left=corner(tile % options.tiles_wide),
      top=corner(tile // options.tiles_wide),
      reference=bundle.reference[here // options.num_tiles][:, None],
      falloff=bundle.falloff[here // options.num_tiles][:, None],
      starts=starts[here],
    )
    return first + size, visit(lengths[here], here, tiles, carry)

  def more(state: Any) -> jax.Array:
    return (state[0] < rows) & (lengths[order[state[0]]] > 0)

  return lax.while_loop(more, one, (jnp.int32(0), carry))[1]


def _pixels(tiles: _Tiles, options: Options) -> tuple[jax.Array, jax.Array]:
  """Pixel centres x, y (R, P)."""
  pixel = jnp.arange(options.tile_size**2, dtype=jnp.int32)
  x, y = pixel % options.tile_size + 0.5, pixel // options.tile_size + 0.5
  return tiles.left + x, tiles.top + y


def _splats(
  features: jax.Array,
  entries: jax.Array,
  tiles: _Tiles,
  rank: jax.Array,
  lengths: jax.Array,
  options: Options,
) -> tuple[jax.Array, jax.Array]:
  """Returns the next splats of each tile (R, K, F), invisible beyond its list, and their rows."""
  ranks = rank + jnp.arange(_SPLATS, dtype=jnp.int32)
  active = ranks < lengths[:, None]
  entry = entries[jnp.minimum(tiles.starts[:, None] + ranks, entries.shape[0] - 1)]
  feature = features[entry]
  is_other = jnp.arange(features.shape[1]) != options.feature_layout.opacity
  shown = active[:, :, None] | is_other
  feature = jnp.where(shown, feature, 0.0)
  return feature, jnp.where(active, entry, features.shape[0])


def _columns(feature: jax.Array) -> blend.Values:
  return tuple(jnp.split(feature, feature.shape[-1], -1))


def _corners(tiles: jax.Array, options: Options) -> jax.Array:
  """Returns image, top row and left column (R, 3) of tiles numbered through all images."""
  image, tile = tiles // options.num_tiles, tiles % options.num_tiles
  place = (tile // options.tiles_wide, tile % options.tiles_wide)
  return jnp.stack([image, *(p * options.tile_size for p in place)], -1)


def _write_tiles(
  images: jax.Array, tiles: jax.Array, values: jax.Array, options: Options
) -> jax.Array:
  """Sets tiles (R,) of images (I, C, H, W), padded to whole tiles, to values (R, C, P)."""
  side = options.tile_size
  numbers = lax.ScatterDimensionNumbers(
    update_window_dims=(1, 2, 3),
    inserted_window_dims=(0,),
    scatter_dims_to_operand_dims=(0, 2, 3),
  )
  return lax.scatter(
    images,
    _corners(tiles, options),
    values.reshape(*values.shape[:2], side, side),
    numbers,
    unique_indices=True,
    mode=lax.GatherScatterMode.FILL_OR_DROP,
  )


def _read_tiles(images: jax.Array, tiles: jax.Array, options: Options) -> jax.Array:
  """Reads tiles (R,) of images (I, C, H, W), padded to whole tiles, as (R, C, P)."""
  side, channels = options.tile_size, images.shape[1]
  numbers = lax.GatherDimensionNumbers(
    offset_dims=(1, 2, 3), collapsed_slice_dims=(0,), start_index_map=(0, 2, 3)
  )
  windows = lax.gather(
    images,
    _corners(tiles, options),
    numbers,
    slice_sizes=(1, channels, side, side),
    mode=lax.GatherScatterMode.CLIP,
  )
  return windows.reshape(*windows.shape[:2], side * side)
