"""The kernels' arithmetic: `blend` once more, arranged for a warp, with gradients written out.

Blocks have the axes (rows, columns, tiles) of pixels. Whatever is constant along a column, offsets
in x above all, is (1, columns, tiles) and costs one operation per lane, not one per pixel; a
splat's features are (1, 1, tiles). Sums for the gradient are taken over rows first, so that the
factors dx are applied to sums. JAX's derivative of `blend.respond` takes about twice the
instructions of this form; tests hold the two together.

Opacity enters through its logarithm: alpha = exp2(log2(opacity) - power).
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from jax.experimental.pallas import triton as plt

from jaxsplat_mouse.projection import ALPHA_MIN
from jaxsplat_mouse.rasterize.base import Options
from jaxsplat_mouse.rasterize.blend import LOG2E, Q_MIN, T_MIN, Values
from jaxsplat_mouse.rasterize.moments import LN2
from jaxsplat_mouse.rasterize.moments import finish as finish


@dataclasses.dataclass(frozen=True)
class Response:
  """What one splat does at the pixels of a block.

  Attributes:
    alpha: of the splat, 0 below 1/255.
    free: whether alpha is below its ceiling.
    channels: as `blend.respond`'s.
    dx: (1, columns, tiles) offset from the splat's centre, pixels.
    dy: (rows, columns, tiles) likewise.
    hit: discs only: (su, sv, 1/q, sharp), the hit in standard deviations, z / depth of it, and
      whether the disc or its low-pass is seen.
  """

  alpha: jax.Array
  free: jax.Array
  channels: Values
  dx: jax.Array
  dy: jax.Array
  hit: Values = ()


def _approximate(name: str, x: jax.Array, options: Options) -> jax.Array:
  """The GPU's own ex2, lg2 or rcp: one instruction, a few units in the last place."""
  if options.interpret:
    return {"ex2": jnp.exp2, "lg2": jnp.log2, "rcp": lambda v: 1.0 / v}[name](x)
  return plt.elementwise_inline_asm(
    f"{name}.approx.ftz.f32 $0, $1;",
    args=[x],
    constraints="=f,f",
    pack=1,
    result_shape_dtypes=[jax.ShapeDtypeStruct(x.shape, x.dtype)],
  )[0]


def respond(
  feature: Values, x: jax.Array, y: jax.Array, reference: jax.Array, options: Options
) -> Response:
  """`blend.respond` for a block: features (1, 1, T), x (1, columns, T), y (rows, columns, T)."""
  dx, dy = x - feature[0], y - feature[1]
  rest = feature[8:] if options.flat else feature[5:]
  top = _approximate("lg2", rest[0], options)
  if options.flat:
    power, hit = _disc_power(feature[2:8], dx, dy, options)
    exponent = top - power
  else:
    a, b, c = feature[2:5]
    exponent = dy * (-b * dx - c * dy) + (top - a * dx * dx)
    hit = ()
  raw = _approximate("ex2", exponent, options)
  seen = raw >= ALPHA_MIN
  if not options.flat:
    seen &= exponent <= top
  alpha = jnp.where(seen, jnp.minimum(raw, options.alpha_max), 0.0)
  channels = rest[1:4]
  if options.geometry:
    depth, inverse = rest[4], _approximate("rcp", rest[4], options)
    if options.flat:
      _, _, inverse_q, sharp, q = hit
      depth = depth * jnp.where(sharp, inverse_q, 1.0)
      inverse = inverse * jnp.where(sharp, q, 1.0)
    moment = reference - inverse
    channels = (*channels, depth, *rest[5:8], moment, moment * moment)
  return Response(alpha, raw < options.alpha_max, channels, dx, dy, hit)


def _disc_power(
  shape: Values, dx: jax.Array, dy: jax.Array, options: Options
) -> tuple[jax.Array, Values]:
  """`blend._disc_power`, with what the gradient needs of it."""
  u0, u1, v0, v1, w0, w1 = shape
  q = (1.0 + w0 * dx) + w1 * dy
  hits = q > Q_MIN
  inverse = _approximate("rcp", jnp.where(hits, q, 1.0), options)
  su, sv = (u0 * dx + u1 * dy) * inverse, (v0 * dx + v1 * dy) * inverse
  on_disc, on_screen = su * su + sv * sv, LOG2E * dx * dx + LOG2E * dy * dy
  sharp = hits & (on_disc <= on_screen)
  return jnp.where(sharp, on_disc, on_screen), (su, sv, inverse, sharp, q)


def transmit(transmittance: jax.Array, alpha: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
  """`blend.transmit`, and whether the ray has ended."""
  weight = alpha * transmittance
  behind = transmittance - weight
  ended = behind <= T_MIN
  behind = jnp.where(ended, -jnp.abs(transmittance), behind)
  return jnp.where(ended, 0.0, weight), behind, ended


def forward_step(state: Values, response: Response, options: Options) -> Values:
  """`blend.forward_step`."""
  *sums, transmittance, median = state
  weight, behind, _ = transmit(transmittance, response.alpha)
  sums = [s + weight * c for s, c in zip(sums, response.channels, strict=True)]
  if options.geometry:
    middle = (weight > 0) & (transmittance > 0.5)
    median = jnp.where(middle, response.channels[3], median)
  return (*sums, behind, median)


def backward_step(
  state: Values, feature: Values, response: Response, pulls: Values, options: Options
) -> tuple[Values, Values]:
  """One splat of the backward pass.

  Args:
    state: T and `rest` in front of the splat, see `blend`'s docstring.
    feature: the splat's.
    response: the splat's.
    pulls: gradient of the channel sums, of T (unused), of the median depth.
    options: which splats.

  Returns:
    T and `rest` behind the splat; the splat's sums (1, 1, T), see `finish`.
  """
  transmittance, rest = state
  count = len(response.channels)
  weight, behind, ended = transmit(transmittance, response.alpha)
  pull = sum(c * g for c, g in zip(response.channels, pulls[:count], strict=True)) * weight
  rest = rest - pull
  ratio = response.alpha * _approximate("rcp", 1.0 - response.alpha, options)
  d_log = jnp.where(response.free & ~ended, pull - rest * ratio, 0.0)
  drawn = [_down(weight * g) for g in (*pulls[:3], *pulls[4:7])[: 6 if options.geometry else 3]]
  d_depth = d_moment = None
  if options.geometry:
    crossing = (weight > 0) & (transmittance > 0.5) & (behind <= 0.5)
    d_depth = weight * pulls[3] + jnp.where(crossing, pulls[-1], 0.0)
    d_moment = weight * (pulls[7] + 2.0 * response.channels[7] * pulls[8])
  if options.flat:
    sums, d_z = _disc_sums(feature, response, d_log, d_depth, d_moment, options)
  else:
    sums, d_z = _ellipsoid_sums(feature, response, d_log, d_depth, d_moment, options)
  sums = (*sums, *drawn[:3], *d_z, *drawn[3:])
  return (behind, rest), tuple(jnp.sum(s, 1, keepdims=True) for s in sums)


def _down(block: jax.Array) -> jax.Array:
  """Sum over rows, which stay inside a lane."""
  return jnp.sum(block, 0, keepdims=True)


def _ellipsoid_sums(
  feature: Values,
  response: Response,
  d_log: jax.Array,
  d_depth: jax.Array | None,
  d_moment: jax.Array | None,
  options: Options,
) -> tuple[Values, Values]:
  """Moments of d_log: with dx, dy, dx^2, dx dy, dy^2 and 1; and dL/dz."""
  dx, dy = response.dx, response.dy
  d_y = d_log * dy
  zero, first, second = _down(d_log), _down(d_y), _down(d_y * dy)
  d_x = zero * dx
  moments = (d_x, first, d_x * dx, first * dx, second, zero)
  if not options.geometry:
    return moments, ()
  inverse = _approximate("rcp", feature[9], options)
  return moments, (_down(d_depth) + _down(d_moment) * inverse * inverse,)


def _disc_sums(
  feature: Values,
  response: Response,
  d_log: jax.Array,
  d_depth: jax.Array | None,
  d_moment: jax.Array | None,
  options: Options,
) -> tuple[Values, Values]:
  """dL/d(x y u0 u1 v0 v1 w0 w1), the sum of d_log; and dL/dz."""
  u0, u1, v0, v1, w0, w1 = feature[2:8]
  dx, dy = response.dx, response.dy
  su, sv, inverse, sharp, q = response.hit
  d_power = (-2.0 * LN2) * d_log
  d_sharp = jnp.where(sharp, d_power * inverse, 0.0)
  d_u, d_v = d_sharp * su, d_sharp * sv  # of u.d and v.d
  d_q = -(d_u * su + d_v * sv)
  d_screen = jnp.where(sharp, 0.0, d_power * LOG2E)
  d_z: Values = ()
  if options.geometry:
    stretch = jnp.where(sharp, inverse, 1.0)  # depth = z stretch, 1 / depth = 1 / (z stretch)
    per_z = _approximate("rcp", feature[12], options)
    d_q = d_q - jnp.where(sharp, d_depth * response.channels[3] * inverse + d_moment * per_z, 0.0)
    squeezed = jnp.where(sharp, q, 1.0)
    d_z = (_down(d_depth * stretch) + _down(d_moment * squeezed) * per_z * per_z,)
  at_u, at_v, at_q, at_screen = (_down(d) for d in (d_u, d_v, d_q, d_screen))
  by_u, by_v, by_q, by_screen = (_down(d * dy) for d in (d_u, d_v, d_q, d_screen))
  d_x = -(u0 * at_u + v0 * at_v + w0 * at_q + dx * at_screen)
  d_y = -(u1 * at_u + v1 * at_v + w1 * at_q + by_screen)
  return (d_x, d_y, dx * at_u, by_u, dx * at_v, by_v, dx * at_q, by_q, _down(d_log)), d_z
