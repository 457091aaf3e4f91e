"""The kernels' arithmetic: `blend` once more, arranged for a warp, with gradients written out.

A lane has one column of a tile's pixels. A splat's numbers are arrays with one element per lane;
what depends on the row too is computed row by row, and sums over rows are multiply-adds into one
register. The factors dx are applied to those sums. JAX's derivative of `blend.respond` takes about
twice the instructions of this form; tests hold the two together.

Opacity enters through its logarithm, top = log2(opacity): alpha = exp2(top - power). Conics of
ellipsoids are taken to be positive definite, as `project_3d` makes them: power < 0 is not looked
for.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from jaxsplat_mouse.ops.pallas_math import approximate, fma
from jaxsplat_mouse.ops.rasterize import blend
from jaxsplat_mouse.ops.rasterize.base import Options
from jaxsplat_mouse.ops.rasterize.blend import Q_MIN, T_MIN, Values
from jaxsplat_mouse.ops.rasterize.moments import LN2
from jaxsplat_mouse.projection import ALPHA_MIN

_UNIT = -2.0 * LN2  # dL/d(exponent of a disc) over half dL/dlog(alpha)


@dataclasses.dataclass(frozen=True)
class Hit:
  """Where a row's rays meet a disc.

  Attributes:
    u: along the first axis, in the units of `blend`.
    v: along the second.
    squared: u^2 + v^2.
    inverse: 1/q.
    q: see `projection`.
    sharp: whether the disc is seen rather than its low-pass.
  """

  u: jax.Array
  v: jax.Array
  squared: jax.Array
  inverse: jax.Array
  q: jax.Array
  sharp: jax.Array


@dataclasses.dataclass(frozen=True)
class Response:
  """What a splat does at the pixels of a row.

  Attributes:
    dy: offset from the splat's centre, pixels.
    alpha: 0 below 1/255.
    free: whether alpha is below its ceiling.
    depth: of the hit; None without geometry.
    per_depth: 1 / depth.
    moment: reference - per_depth.
    hit: discs only.
  """

  dy: jax.Array
  alpha: jax.Array
  free: jax.Array
  depth: jax.Array | None = None
  per_depth: jax.Array | None = None
  moment: jax.Array | None = None
  hit: Hit | None = None


class Splat:
  """One splat as a column of pixels sees it, and the steps of both kernels."""

  def __init__(
    self,
    feature: Values,
    x: jax.Array,
    reference: jax.Array,
    falloff: jax.Array,
    options: Options,
  ) -> None:
    """Works out what the rows share.

    Args:
      feature: as packed by `blend`, with log2 of the opacity in the opacity's place.
      x: of the column's pixel centres.
      reference: see `Bundle`.
      falloff: likewise.
      options: which splats.
    """
    self._options, self._reference, self._falloff = options, reference, falloff
    self._y, self.dx = feature[1], x - feature[0]
    index = blend.opacity_index(options.flat)
    self._shape, self._top, rest = feature[2:index], feature[index], feature[index + 1 :]
    self._constants = (*rest[:3], *rest[4:])  # channels that do not depend on the pixel
    if options.geometry:
      self._z = rest[3]
      self._per_z = approximate("rcp", rest[3], options.interpret)
    self._lead: Values
    if options.flat:
      u0, _, v0, _, w0, _ = self._shape
      self._lead = (u0 * self.dx, v0 * self.dx, self._fma(w0, self.dx, jnp.ones_like(x)))
      self._across = falloff * self.dx * self.dx
    else:
      a, b, _ = self._shape
      self._lead = (-b * self.dx, self._top - a * self.dx * self.dx)

  def _fma(self, a: jax.Array | float, b: jax.Array | float, c: jax.Array) -> jax.Array:
    return fma(a, b, c, self._options.interpret)

  def respond(self, y: jax.Array) -> Response:
    """`blend.respond` at the column's pixels in a row."""
    dy, hit = y - self._y, None
    if self._options.flat:
      power, hit = self._disc_power(dy)
      exponent = self._top - power
    else:
      slope, top = self._lead[0], self._lead[1]
      exponent = self._fma(dy, self._fma(-self._shape[2], dy, slope), top)
    raw = approximate("ex2", exponent, self._options.interpret)
    alpha = jnp.where(raw >= ALPHA_MIN, jnp.minimum(raw, self._options.alpha_max), 0.0)
    response = Response(dy, alpha, raw < self._options.alpha_max, hit=hit)
    if not self._options.geometry:
      return response
    depth, per_depth = self._z, self._per_z
    if hit is not None:
      depth = depth * jnp.where(hit.sharp, hit.inverse, 1.0)
      per_depth = per_depth * jnp.where(hit.sharp, hit.q, 1.0)
    moment = self._reference - per_depth
    return dataclasses.replace(response, depth=depth, per_depth=per_depth, moment=moment)

  def _disc_power(self, dy: jax.Array) -> tuple[jax.Array, Hit]:
    """`blend._disc_power`, with what the gradient needs of it."""
    _, u1, _, v1, _, w1 = self._shape
    u, v, q = self._lead[0], self._lead[1], self._lead[2]
    q = self._fma(w1, dy, q)
    hits = q > Q_MIN
    inverse = approximate("rcp", jnp.where(hits, q, 1.0), self._options.interpret)
    u, v = self._fma(u1, dy, u) * inverse, self._fma(v1, dy, v) * inverse
    on_disc = self._fma(u, u, v * v)
    on_screen = self._fma(self._falloff * dy, dy, self._across)
    sharp = hits & (on_disc <= on_screen)
    hit = Hit(u=u, v=v, squared=on_disc, inverse=inverse, q=q, sharp=sharp)
    return jnp.where(sharp, on_disc, on_screen), hit

  def forward_step(self, state: Values, response: Response) -> Values:
    """`blend.forward_step` for a row; the sums are in the order of `blend.num_channels`."""
    *sums, transmittance, median = state
    weight, behind, _ = transmit(transmittance, response.alpha)
    add = lambda total, value: self._fma(weight, value, total)
    constant = [*map(add, (*sums[:3], *sums[4:7]), self._constants)]
    if response.depth is None or response.moment is None:
      return (*constant, behind, median)
    weighted = weight * response.moment
    moments = sums[7] + weighted, self._fma(weighted, response.moment, sums[8])
    middle = (weight > 0) & (transmittance > 0.5)
    median = jnp.where(middle, response.depth, median)
    depth = add(sums[3], response.depth)
    return (*constant[:3], depth, *constant[3:], *moments, behind, median)

  def gradient(self) -> Gradient:
    """Collects this splat's gradient, row after row."""
    return Gradient(self)


class Gradient:
  """Sums over the rows of a column of what the gradient of a splat is made of."""

  def __init__(self, splat: Splat) -> None:
    """Starts at nothing."""
    self._splat, self._options = splat, splat._options
    self._fma = splat._fma
    self._sums: dict[str, jax.Array] = {}

  def _add(self, name: str, value: jax.Array, factor: jax.Array | None = None) -> None:
    """Adds value, times factor, to a sum."""
    total = self._sums.get(name)
    if total is None:
      self._sums[name] = value if factor is None else value * factor
    elif factor is None:
      self._sums[name] = total + value
    else:
      self._sums[name] = self._fma(value, factor, total)

  def step(self, state: Values, response: Response, pulls: Values) -> Values:
    """One row of the backward pass.

    Args:
      state: T and `rest` in front of the splat, see `blend`'s docstring.
      response: the splat's.
      pulls: gradient of the channel sums, of T (unused), of the median depth.

    Returns:
      T and `rest` behind the splat.
    """
    transmittance, rest = state
    weight, behind, ended = transmit(transmittance, response.alpha)
    constant_pulls = (*pulls[:3], *pulls[4:7])[: len(self._splat._constants)]
    pull = self._dot(constant_pulls, self._splat._constants)
    bent = None
    if response.depth is not None and response.moment is not None:
      bent = response.moment * pulls[8]
      pull = self._fma(response.depth, pulls[3], pull)
      pull = self._fma(response.moment, pulls[7] + bent, pull)
    pull = pull * weight
    rest = rest - pull
    ratio = response.alpha * approximate("rcp", 1.0 - response.alpha, self._options.interpret)
    d_log = jnp.where(response.free & ~ended, self._fma(-rest, ratio, pull), 0.0)
    for k, g in enumerate(constant_pulls):
      self._add(f"constant{k}", weight, g)
    d_along = None
    if bent is not None:
      crossing = (weight > 0) & (transmittance > 0.5) & (behind <= 0.5)
      d_depth = self._fma(weight, pulls[3], jnp.where(crossing, pulls[-1], 0.0))
      d_moment = weight * self._fma(2.0, bent, pulls[7])
      # dL/dlog(depth): depth, and 1 / depth in the moments, scale with the splat's own.
      d_along = self._fma(d_depth, response.depth, d_moment * response.per_depth)
      self._add("along", d_along)
    self._add("log", d_log)
    if response.hit is None:
      d_y = d_log * response.dy
      self._add("log_y", d_y)
      self._add("log_yy", d_y, response.dy)
    else:
      self._add_disc(response, response.hit, d_log, d_along)
    return behind, rest

  def _dot(self, a: Sequence[jax.Array], b: Sequence[jax.Array]) -> jax.Array:
    total = a[0] * b[0]
    for x, y in zip(a[1:], b[1:], strict=True):
      total = self._fma(x, y, total)
    return total

  def _add_disc(
    self, response: Response, hit: Hit, d_log: jax.Array, d_along: jax.Array | None
  ) -> None:
    """Gradients of u.d, v.d, w.d and the low-pass, by themselves and times dy; in `_UNIT`s."""
    on_disc = jnp.where(hit.sharp, d_log, 0.0)
    d_hit, d_q = on_disc * hit.inverse, on_disc * hit.squared
    if d_along is not None:
      d_q = self._fma(-1.0 / _UNIT, jnp.where(hit.sharp, -d_along, 0.0), d_q)
    parts = dict(u=d_hit * hit.u, v=d_hit * hit.v, q=d_q * hit.inverse, screen=d_log - on_disc)
    for name, value in parts.items():
      self._add(name, value)
      self._add(f"{name}_y", value, response.dy)

  def sums(self) -> Values:
    """A column's share of the splat's sums, see `moments.finish`."""
    part, dx = self._sums, self._splat.dx
    if self._options.flat:
      head = self._disc_sums()
    else:
      d_x = part["log"] * dx
      head = (d_x, part["log_y"], d_x * dx, part["log_y"] * dx, part["log_yy"], part["log"])
    constants = tuple(part[f"constant{k}"] for k in range(len(self._splat._constants)))
    depth = (part["along"] * self._splat._per_z,) if self._options.geometry else ()
    return (*head, *constants[:3], *depth, *constants[3:])

  def _disc_sums(self) -> Values:
    """dL/d(x y u0 u1 v0 v1 w0 w1), and the sum of dL/dlog(alpha)."""
    u0, u1, v0, v1, w0, w1 = self._splat._shape
    part, dx = self._sums, self._splat.dx
    scales = dict(u=_UNIT, v=_UNIT, q=-_UNIT, screen=_UNIT * self._splat._falloff)
    u, v, q, screen = (part[k] * s for k, s in scales.items())
    u_y, v_y, q_y, screen_y = (part[f"{k}_y"] * s for k, s in scales.items())
    d_x = -(u0 * u + v0 * v + w0 * q + dx * screen)
    d_y = -(u1 * u + v1 * v + w1 * q + screen_y)
    return (d_x, d_y, dx * u, u_y, dx * v, v_y, dx * q, q_y, part["log"])


def transmit(transmittance: jax.Array, alpha: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
  """`blend.transmit`, and whether the ray has ended."""
  weight = alpha * transmittance
  behind = transmittance - weight
  ended = behind <= T_MIN
  behind = jnp.where(ended, -jnp.abs(transmittance), behind)
  return jnp.where(ended, 0.0, weight), behind, ended
