"""The backward step of the plain XLA path: explicit gradients, pixel sums as matrix products.

JAX's derivative of `blend.respond` has up to 16 sums over pixels, for each of which XLA's CPU
compiler would compute the whole response again. Here everything several sums need is computed
once, behind a barrier, and the sums are products with a constant basis. Derivation: the gradient
of a splat's place and shape is linear in the moments (1, x, y, ...) of a few numbers per pixel;
moments are taken about the tile's centre and then moved to the splat's.

Arrays are (R, K, P): tiles, consecutive splats of a tile, pixels. Features are columns (R, K, 1).
"""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

from jaxsplat_mouse.rasterize import blend
from jaxsplat_mouse.rasterize.base import Options
from jaxsplat_mouse.rasterize.moments import LN2


def chain(transmittance: jax.Array, alpha: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
  """T in front of K splats, their weights (R, K, P), and T behind the last.

  A single T is (R, 1, P): reshaped, it would be computed more slowly.
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
  """K backward steps.

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
    T and `rest` behind the splats, and their sums (R, K, F) for `moments.finish`.
  """
  index = blend.opacity_index(options.flat)
  count = blend.num_channels(options.geometry)
  alpha, _ = blend.respond(
    feature, x, y, reference, falloff, options.flat, options.geometry, options.alpha_max
  )
  dx, dy = x - feature[0], y - feature[1]
  pull_of = lambda c: pulls[:, c, None]
  colors = (*feature[index + 1 : index + 4], *feature[index + 5 :])
  places = (0, 1, 2, 4, 5, 6) if options.geometry else (0, 1, 2)
  pull = sum(c * pull_of(k) for c, k in zip(colors, places, strict=True))
  plane = depth = None
  if options.flat:
    # The hit's 1/q where the disc is seen, 0 where its low-pass is.
    plane = _visible_inverse(feature, dx, dy, falloff)
    alpha, plane = lax.optimization_barrier((alpha, plane))
  else:
    alpha = lax.optimization_barrier(alpha)
  if options.geometry:
    z = feature[index + 4]
    stretch = 1.0 if plane is None else jnp.where(plane > 0, plane, 1.0)
    depth = z * stretch
    per_depth = 1.0 / depth
    moment = reference - per_depth
    pull = pull + depth * pull_of(3) + moment * (pull_of(7) + moment * pull_of(8))
  front, weight, behind = chain(transmittance, alpha)
  pull = lax.optimization_barrier(pull * weight)
  rests = [rest]
  for k in range(alpha.shape[1]):
    rests.append(rests[-1] - pull[:, k : k + 1])
  rest = jnp.concatenate(rests[1:], 1)
  free = (weight > 0) & (alpha < options.alpha_max)
  d_log = lax.optimization_barrier(jnp.where(free, pull - rest * alpha / (1.0 - alpha), 0.0))
  d_depth = d_along = None
  if options.geometry:
    after = front * (1.0 - alpha)
    crossing = (weight > 0) & (front > 0.5) & (after <= 0.5)
    d_depth = weight * pull_of(3) + jnp.where(crossing, pull_of(count + 1), 0.0)
    d_moment = weight * (pull_of(7) + 2.0 * moment * pull_of(8))
    # dL/dlog(depth)
    d_along = lax.optimization_barrier(d_depth * depth + d_moment * per_depth)
  kept = pulls if not options.geometry else jnp.concatenate([pulls[:, :3], pulls[:, 4:7]], 1)
  drawn = jnp.einsum("rkp,rcp->rkc", weight, kept[:, : len(places)], precision="highest")
  shift = tuple(c[:, :, None] - f for c, f in zip(center, feature[:2], strict=True))
  if options.flat:
    head = _disc(feature, shift, dx, dy, falloff, d_log, plane, d_along, options)
  else:
    head = _ellipsoid(shift, d_log, options)
  parts = [head, drawn[..., :3]]
  if options.geometry:
    parts += [_moments(d_along, 0, options)[0] / z, drawn[..., 3:]]
  return behind, rests[-1], jnp.concatenate(parts, -1)


def _visible_inverse(
  feature: blend.Values, dx: jax.Array, dy: jax.Array, falloff: jax.Array
) -> jax.Array:
  u0, u1, v0, v1, w0, w1 = feature[2:8]
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
  u0, u1, v0, v1, w0, w1 = feature[2:8]
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
