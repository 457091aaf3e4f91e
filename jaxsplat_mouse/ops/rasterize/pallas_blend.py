"""The kernels' arithmetic: the formulas of `blend` arranged for a warp, with explicit gradients.

A lane has one column of a tile's pixels. A splat's numbers are arrays with one element per lane;
what depends on the row too is computed row by row, and sums over rows are multiply-adds into one
register. The factors dx are applied to those sums. JAX's derivative of `blend.respond` takes about
twice the instructions of this form; tests compare the two.

Opacity enters through its logarithm, top = log2(opacity): alpha = exp2(top - power). Conics of
ellipsoids are taken to be positive definite, as `project_3d` makes them: power < 0 is not tested.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from jaxsplat_mouse.ops.pallas_math import approximate, fma
from jaxsplat_mouse.ops.rasterize.base import Options
from jaxsplat_mouse.ops.rasterize.blend import Q_MIN, T_MIN, Values
from jaxsplat_mouse.ops.rasterize.layout import places
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
  """One splat at a column of pixels, and the steps of both kernels.

  Attributes:
    options: which splats.
    dx: offset of the column from the splat's centre, pixels.
    shape: as packed.
    constants: colour and normal, which are alike at every pixel.
    per_z: with geometry, 1 / depth of the centre.
    falloff: see `Bundle`.
  """

  def __init__(
    self,
    feature: Values,
    x: jax.Array,
    reference: jax.Array,
    falloff: jax.Array,
    options: Options,
  ) -> None:
    """Computes what the rows share.

    Args:
      feature: as packed by `blend`, with log2 of the opacity in the opacity's place.
      x: of the column's pixel centres.
      reference: see `Bundle`.
      falloff: likewise.
      options: which splats.
    """
    self.options, self._reference, self.falloff = options, reference, falloff
    layout = options.feature_layout
    self._y, self.dx = feature[layout.y], x - feature[layout.x]
    self.shape, self._top = feature[layout.shape], feature[layout.opacity]
    self.constants = tuple(feature[k] for k in layout.constant)
    if options.geometry:
      self._z = feature[layout.depth]
      self.per_z = approximate("rcp", self._z, options.interpret)
    self._lead: Values
    if options.flat:
      u0, _, v0, _, w0, _ = self.shape
      self._lead = (u0 * self.dx, v0 * self.dx, self.fma(w0, self.dx, jnp.ones_like(x)))
      self._across = falloff * self.dx * self.dx
    else:
      a, b, _ = self.shape
      self._lead = (-b * self.dx, self._top - a * self.dx * self.dx)

  def fma(self, a: jax.Array | float, b: jax.Array | float, c: jax.Array) -> jax.Array:
    """a b + c."""
    return fma(a, b, c, self.options.interpret)

  def respond(self, y: jax.Array) -> Response:
    """`blend.respond` at the column's pixels in a row."""
    dy, hit = y - self._y, None
    if self.options.flat:
      power, hit = self._disc_power(dy)
      exponent = self._top - power
    else:
      slope, top = self._lead[0], self._lead[1]
      exponent = self.fma(dy, self.fma(-self.shape[2], dy, slope), top)
    raw = approximate("ex2", exponent, self.options.interpret)
    alpha = jnp.where(raw >= ALPHA_MIN, jnp.minimum(raw, self.options.alpha_max), 0.0)
    response = Response(dy, alpha, raw < self.options.alpha_max, hit=hit)
    if not self.options.geometry:
      return response
    depth, per_depth = self._z, self.per_z
    if hit is not None:
      depth = depth * jnp.where(hit.sharp, hit.inverse, 1.0)
      per_depth = per_depth * jnp.where(hit.sharp, hit.q, 1.0)
    moment = self._reference - per_depth
    return dataclasses.replace(response, depth=depth, per_depth=per_depth, moment=moment)

  def _disc_power(self, dy: jax.Array) -> tuple[jax.Array, Hit]:
    """`blend._disc_power`, with what the gradient needs of it."""
    _, u1, _, v1, _, w1 = self.shape
    u, v, q = self._lead[0], self._lead[1], self._lead[2]
    q = self.fma(w1, dy, q)
    hits = q > Q_MIN
    inverse = approximate("rcp", jnp.where(hits, q, 1.0), self.options.interpret)
    u, v = self.fma(u1, dy, u) * inverse, self.fma(v1, dy, v) * inverse
    on_disc = self.fma(u, u, v * v)
    on_screen = self.fma(self.falloff * dy, dy, self._across)
    sharp = hits & (on_disc <= on_screen)
    hit = Hit(u=u, v=v, squared=on_disc, inverse=inverse, q=q, sharp=sharp)
    return jnp.where(sharp, on_disc, on_screen), hit

  def forward_step(self, state: Values, response: Response) -> Values:
    """`blend.forward_step` for a row."""
    *sums, transmittance, median = state
    channels = self.options.channel_layout
    weight, behind, _ = _transmit(transmittance, response.alpha)
    blended = {
      k: self.fma(weight, value, sums[k])
      for k, value in zip(channels.constant, self.constants, strict=True)
    }
    if response.depth is not None and response.moment is not None:
      weighted = weight * response.moment
      blended[channels.moment] = sums[channels.moment] + weighted
      square = sums[channels.squared_moment]
      blended[channels.squared_moment] = self.fma(weighted, response.moment, square)
      middle = (weight > 0) & (transmittance > 0.5)
      median = jnp.where(middle, response.depth, median)
      blended[channels.depth] = self.fma(weight, response.depth, sums[channels.depth])
    return (*(blended[k] for k in range(channels.num_blended)), behind, median)

  def gradient(self) -> Gradient:
    """Returns the collector of this splat's gradient."""
    return Gradient(self)


class Gradient:
  """The sums that the gradient of a splat is made of, over the rows of a column."""

  def __init__(self, splat: Splat) -> None:
    """Starts without any row."""
    self._splat, self._options = splat, splat.options
    self._fma = splat.fma
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
    channels = self._options.channel_layout
    weight, behind, ended = _transmit(transmittance, response.alpha)
    constant_pulls = tuple(pulls[k] for k in channels.constant)
    pull = self._dot(constant_pulls, self._splat.constants)
    bent = None
    if response.depth is not None and response.moment is not None:
      bent = response.moment * pulls[channels.squared_moment]
      pull = self._fma(response.depth, pulls[channels.depth], pull)
      pull = self._fma(response.moment, pulls[channels.moment] + bent, pull)
    pull = pull * weight
    rest = rest - pull
    ratio = response.alpha * approximate("rcp", 1.0 - response.alpha, self._options.interpret)
    d_log = jnp.where(response.free & ~ended, self._fma(-rest, ratio, pull), 0.0)
    for k, g in enumerate(constant_pulls):
      self._add(f"constant{k}", weight, g)
    d_along = None
    if bent is not None:
      crossing = (weight > 0) & (transmittance > 0.5) & (behind <= 0.5)
      d_along = self._along(response, pulls, weight, bent, crossing)
      self._add("along", d_along)
    self._add("log", d_log)
    if response.hit is None:
      d_y = d_log * response.dy
      self._add("log_y", d_y)
      self._add("log_yy", d_y, response.dy)
    else:
      self._add_disc(response, response.hit, d_log, d_along)
    return behind, rest

  def _along(
    self,
    response: Response,
    pulls: Values,
    weight: jax.Array,
    bent: jax.Array,
    crossing: jax.Array,
  ) -> jax.Array:
    """dL/dlog(depth): depth, and 1 / depth in the moments, scale with the splat's own."""
    assert response.depth is not None and response.per_depth is not None
    channels = self._options.channel_layout
    median = jnp.where(crossing, pulls[channels.median_depth], 0.0)
    d_depth = self._fma(weight, pulls[channels.depth], median)
    d_moment = weight * self._fma(2.0, bent, pulls[channels.moment])
    return self._fma(d_depth, response.depth, d_moment * response.per_depth)

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
    """Returns a column's share of the splat's sums, see `moments.gradient_from_sums`."""
    part, dx, layout = self._sums, self._splat.dx, self._options.feature_layout
    if self._options.flat:
      head = self._disc_sums()
    else:
      d_x = part["log"] * dx
      head = (d_x, part["log_y"], d_x * dx, part["log_y"] * dx, part["log_yy"], part["log"])
    appearance = {k: part[f"constant{i}"] for i, k in enumerate(layout.constant)}
    if self._options.geometry:
      appearance[layout.depth] = part["along"] * self._splat.per_z
    return (*head, *(appearance[k] for k in places(layout.appearance)))

  def _disc_sums(self) -> Values:
    """dL/d(x y u0 u1 v0 v1 w0 w1), and the sum of dL/dlog(alpha)."""
    u0, u1, v0, v1, w0, w1 = self._splat.shape
    part, dx = self._sums, self._splat.dx
    scales = dict(u=_UNIT, v=_UNIT, q=-_UNIT, screen=_UNIT * self._splat.falloff)
    u, v, q, screen = (part[k] * s for k, s in scales.items())
    u_y, v_y, q_y, screen_y = (part[f"{k}_y"] * s for k, s in scales.items())
    d_x = -(u0 * u + v0 * v + w0 * q + dx * screen)
    d_y = -(u1 * u + v1 * v + w1 * q + screen_y)
    return (d_x, d_y, dx * u, u_y, dx * v, v_y, dx * q, q_y, part["log"])


def _transmit(transmittance: jax.Array, alpha: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
  """`blend.transmit` in fewer instructions, and whether the ray has ended."""
  weight = alpha * transmittance
  behind = transmittance - weight
  ended = behind <= T_MIN
  behind = jnp.where(ended, -jnp.abs(transmittance), behind)
  return jnp.where(ended, 0.0, weight), behind, ended
