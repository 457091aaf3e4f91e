"""The backward step of the plain XLA path: explicit gradients, pixel sums as matrix products.

JAX's derivative of `blend.respond` has up to 16 sums over pixels, for each of which XLA's CPU
compiler would compute the whole response again. Here everything several sums need is computed
once, behind a barrier, and the sums are products with a constant basis. The gradient of a splat's
place and shape is linear in the moments (1, x, y, ...) of a few numbers per pixel; moments are
taken about the tile's centre and then moved to the splat's.

Arrays are (R, K, P): tiles, consecutive splats of a tile, pixels. Features are columns (R, K, 1).
"""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxsplat_mouse.ops.rasterize import blend
from jaxsplat_mouse.ops.rasterize.base import Options
from jaxsplat_mouse.ops.rasterize.layout import NUM_COLORS
from jaxsplat_mouse.ops.rasterize.moments import LN2


def chain(transmittance: jax.Array, alpha: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
  """Follows T through K splats.

  Args:
    transmittance: (R, 1, P) in front of the first; reshaped, it would be computed more slowly.
    alpha: (R, K, P).

  Returns:
    T in front of each splat and the splats' weights, both (R, K, P), and T behind the last
    (R, 1, P).
  """
  rows = [transmittance]
  for k in range(alpha.shape[1]):
    rows.append(blend.transmit(rows[-1], alpha[:, k : k + 1])[1])
  behind = lax.optimization_barrier(jnp.concatenate(rows[1:], 1))
  front = jnp.concatenate([transmittance, behind[:, :-1]], 1)
  weight = jnp.where(behind > 0, alpha * front, 0.0)  # T < 0 behind a splat: the ray has ended
  front, weight = lax.optimization_barrier((front, weight))
  return front, weight, behind[:, -1:]


def splat_sums(
  feature: blend.Values,
  center: tuple[jax.Array, jax.Array],
  x: jax.Array,
  y: jax.Array,
  reference: jax.Array,
  falloff: jax.Array,
  transmittance: jax.Array,
  rest: jax.Array,
  pulls: jax.Array,
  options: Options,
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """Takes K backward steps.

  Args:
    feature: F columns (R, K, 1).
    center: x, y (R, 1) of the tiles' centres.
    x: (R, 1, P) pixel centres.
    y: likewise.
    reference: (R, 1, 1) see `Bundle`.
    falloff: (R, 1, 1) likewise.
    transmittance: (R, 1, P) in front of the splats.
    rest: (R, 1, P) see `blend`.
    pulls: (R, C + 2, P) gradient of the channels.
    options: which splats.

  Returns:
    T and `rest` behind the splats, and their sums (R, K, F) for `moments.gradient_from_sums`.
  """
  alpha, plane = _shown(feature, x, y, reference, falloff, options)
  depths = _depths(feature, plane, reference, options)
  pull = _pull(feature, depths, pulls, options)
  front, weight, behind = chain(transmittance, alpha)
  pull = lax.optimization_barrier(pull * weight)
  rests = [rest]
  for k in range(alpha.shape[1]):
    rests.append(rests[-1] - pull[:, k : k + 1])
  rest = jnp.concatenate(rests[1:], 1)
  free = (weight > 0) & (alpha < options.alpha_max)
  d_log = lax.optimization_barrier(jnp.where(free, pull - rest * alpha / (1.0 - alpha), 0.0))
  d_along = None if depths is None else _along(depths, alpha, front, weight, pulls, options)
  drawn = _constant_sums(weight, pulls, options)
  layout = options.feature_layout
  shift = tuple(c[:, :, None] - f for c, f in zip(center, feature[layout.center], strict=True))
  if options.flat:
    dx, dy = _offsets(feature, x, y, options)
    head = _disc(feature, shift, dx, dy, falloff, d_log, plane, d_along, options)
  else:
    head = _ellipsoid(shift, d_log, options)
  parts = [head, drawn[..., :NUM_COLORS]]
  if depths is not None:
    parts += [_moments(d_along, 0, options)[0] / depths.center, drawn[..., NUM_COLORS:]]
  return behind, rests[-1], jnp.concatenate(parts, -1)


def _offsets(
  feature: blend.Values, x: jax.Array, y: jax.Array, options: Options
) -> tuple[jax.Array, jax.Array]:
  """Offsets (R, K, P) of pixel centres from the splats' centres."""
  layout = options.feature_layout
  return x - feature[layout.x], y - feature[layout.y]


class _Depths(NamedTuple):
  """Of K splats: at the centre (R, K, 1), along the rays, its inverse, and the moment (R, K, P)."""

  center: jax.Array
  ray: jax.Array
  inverse: jax.Array
  moment: jax.Array


def _shown(
  feature: blend.Values,
  x: jax.Array,
  y: jax.Array,
  reference: jax.Array,
  falloff: jax.Array,
  options: Options,
) -> tuple[jax.Array, jax.Array | None]:
  """Alpha (R, K, P), and 1/q of a disc's hit where it is seen, 0 where its low-pass is."""
  alpha, _ = blend.respond(feature, x, y, reference, falloff, options)
  if not options.flat:
    return lax.optimization_barrier(alpha), None
  dx, dy = _offsets(feature, x, y, options)
  plane = _visible_inverse(feature, dx, dy, falloff, options)
  return lax.optimization_barrier((alpha, plane))


def _depths(
  feature: blend.Values, plane: jax.Array | None, reference: jax.Array, options: Options
) -> _Depths | None:
  if not options.geometry:
    return None
  z = feature[options.feature_layout.depth]
  depth = z * (1.0 if plane is None else jnp.where(plane > 0, plane, 1.0))
  inverse = 1.0 / depth
  return _Depths(center=z, ray=depth, inverse=inverse, moment=reference - inverse)


def _pull(
  feature: blend.Values,
  depths: _Depths | None,
  pulls: jax.Array,
  options: Options,
) -> jax.Array:
  """Gradient of the loss by each splat's weight (R, K, P), without the effect on those behind."""
  channels = options.channel_layout
  constants = zip(options.feature_layout.constant, channels.constant, strict=True)
  pull = sum(feature[k] * pulls[:, c, None] for k, c in constants)
  if depths is not None:
    moment = depths.moment
    pull = pull + depths.ray * pulls[:, channels.depth, None]
    by_moment = pulls[:, channels.moment, None] + moment * pulls[:, channels.squared_moment, None]
    pull = pull + moment * by_moment
  return pull


def _constant_sums(weight: jax.Array, pulls: jax.Array, options: Options) -> jax.Array:
  """Gradient of colours and normals (R, K, 3 or 6), summed over pixels."""
  channels = options.channel_layout
  kept = pulls[:, channels.color]
  if options.geometry:
    kept = jnp.concatenate([kept, pulls[:, channels.normal]], 1)
  return jnp.einsum("rkp,rcp->rkc", weight, kept, precision="highest")


def _along(
  depths: _Depths,
  alpha: jax.Array,
  front: jax.Array,
  weight: jax.Array,
  pulls: jax.Array,
  options: Options,
) -> jax.Array:
  """Gradient of the loss by the logarithm of the depths (R, K, P)."""
  after = front * (1.0 - alpha)
  crossing = (weight > 0) & (front > 0.5) & (after <= 0.5)
  channels = options.channel_layout
  median = pulls[:, channels.median_depth, None]
  d_depth = weight * pulls[:, channels.depth, None] + jnp.where(crossing, median, 0.0)
  d_square = pulls[:, channels.squared_moment, None]
  d_moment = weight * (pulls[:, channels.moment, None] + 2.0 * depths.moment * d_square)
  return lax.optimization_barrier(d_depth * depths.ray + d_moment * depths.inverse)


def _visible_inverse(
  feature: blend.Values, dx: jax.Array, dy: jax.Array, falloff: jax.Array, options: Options
) -> jax.Array:
  """1/q of a disc's hit (R, K, P) where the disc is seen, 0 where its low-pass is."""
  u0, u1, v0, v1, w0, w1 = feature[options.feature_layout.shape]
  q = 1.0 + w0 * dx + w1 * dy
  hits = q > blend.Q_MIN
  inverse = 1.0 / jnp.where(hits, q, 1.0)
  su, sv = (u0 * dx + u1 * dy) * inverse, (v0 * dx + v1 * dy) * inverse
  sharp = hits & (su * su + sv * sv <= falloff * (dx * dx + dy * dy))
  return jnp.where(sharp, inverse, 0.0)


def _moments(value: jax.Array, degree: int, options: Options) -> list[jax.Array]:
  """Sums over pixels of value times 1, x, y (, x^2, xy, y^2) about the tile's centre, (R, K, 1)."""
  side = options.tile_size
  offset = np.arange(side, dtype=np.float32) - (side - 1) / 2
  x, y = np.tile(offset, side), np.repeat(offset, side)
  columns = [np.ones_like(x), x, y, x * x, x * y, y * y][: (1, 3, 6)[degree]]
  sums = jnp.matmul(
    value.reshape(-1, side * side), np.stack(columns, 1), precision="highest"
  ).reshape(*value.shape[:-1], -1)
  return jnp.split(sums, sums.shape[-1], -1)


def _ellipsoid(shift: tuple[jax.Array, jax.Array], d_log: jax.Array, options: Options) -> jax.Array:
  a, b = shift
  one, x, y, xx, xy, yy = _moments(d_log, 2, options)
  return jnp.concatenate(
    [
      x + a * one,
      y + b * one,
      xx + 2.0 * a * x + a * a * one,
      xy + a * y + b * x + a * b * one,
      yy + 2.0 * b * y + b * b * one,
      one,
    ],
    -1,
  )


def _disc(
  feature: blend.Values,
  shift: tuple[jax.Array, jax.Array],
  dx: jax.Array,
  dy: jax.Array,
  falloff: jax.Array,
  d_log: jax.Array,
  inverse: jax.Array,
  d_along: jax.Array | None,
  options: Options,
) -> jax.Array:
  u0, u1, v0, v1, w0, w1 = feature[options.feature_layout.shape]
  d_power = (-2.0 * LN2) * d_log
  su, sv = (u0 * dx + u1 * dy) * inverse, (v0 * dx + v1 * dy) * inverse
  d_u, d_v = d_power * inverse * su, d_power * inverse * sv
  d_q = -(d_u * su + d_v * sv)
  if d_along is not None:
    d_q = d_q - d_along * inverse
  d_screen = jnp.where(inverse > 0, 0.0, d_power * falloff)
  moved = []
  for value in (d_u, d_v, d_q, d_screen):
    one, x, y = _moments(value, 1, options)
    moved.append((one, x + shift[0] * one, y + shift[1] * one))
  (at_u, *by_u), (at_v, *by_v), (at_q, *by_q), (_, *by_screen) = moved
  d_x = -(u0 * at_u + v0 * at_v + w0 * at_q + by_screen[0])
  d_y = -(u1 * at_u + v1 * at_v + w1 * at_q + by_screen[1])
  return jnp.concatenate([d_x, d_y, *by_u, *by_v, *by_q, _moments(d_log, 0, options)[0]], -1)
