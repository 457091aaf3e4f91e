"""The formulas of alpha blending, element by element.

With splats i = 1.. from front to back along the ray of a pixel (Max 1995; Kerbl et al. 2023):

    alpha_i = min(o_i exp(-sigma_i), alpha_max), taken as 0 below 1/255
    w_i = alpha_i T_i,   T_(i+1) = T_i (1 - alpha_i),   T_1 = 1
    channel = sum_i w_i c_i

A ray ends before the splat that would make T <= 1e-4. `T` carries its own end: the sign of a
pixel's T turns negative when its ray has ended, so that one register holds both.

Going backward needs no reversed walk: with `rest_i` = sum over j > i of w_j (c_j . g) + T_end
g_T, which starts as the total known from the forward pass and loses one term per splat,

    dL/dalpha_i = T_i (c_i . g) - rest_i / (1 - alpha_i).

The reference uses these functions for everything, the XLA path for its forward pass. The explicit
gradient of the XLA path (`xla_gradient`: sums over pixels as matrix products) and the GPU kernels
(`pallas_blend`: columns of a warp, the opacity as a logarithm) contain the same formulas in a form
that suits their machine; tests compare them with this one.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from jaxsplat_mouse.ops.rasterize.base import Options
from jaxsplat_mouse.projection import ALPHA_MIN, Splats

T_MIN = 1e-4
LOG2E = 1.4426950408889634
Q_MIN = 1e-2  # inverse depth relative to the centre's below which a ray misses a disc's plane
_FAR_OFF = 1e9

Values = tuple[jax.Array, ...]


def pack(splats: Splats, geometry: bool) -> jax.Array:
  """Packs splats into rows (..., N, F) of `layout.FeatureLayout`.

  Shapes are scaled so that alpha = opacity exp2(-power) without further constants; culled splats
  get opacity 0, and with it no gradient.
  """
  if splats.flat:
    shapes = splats.shapes * jnp.array([(0.5 * LOG2E) ** 0.5] * 4 + [1.0] * 2, jnp.float32)
  else:
    shapes = splats.shapes * jnp.array([0.5 * LOG2E, LOG2E, 0.5 * LOG2E], jnp.float32)
  opacities = jnp.where(splats.visible, splats.opacities, 0.0)[..., None]
  parts = [splats.centers, shapes, opacities, splats.colors]
  if geometry:
    parts += [splats.depths[..., None], splats.normals]
  return jnp.concatenate(parts, -1)


def respond(
  features: Sequence[jax.Array],
  x: jax.Array,
  y: jax.Array,
  reference: jax.Array,
  falloff: jax.Array,
  options: Options,
) -> tuple[jax.Array, Values]:
  """Computes one splat's alpha and its channels at pixel (x, y).

  Args:
    features: F values of one packed splat, each broadcastable against x.
    x: pixel coordinates, centres at +0.5.
    y: likewise.
    reference: inverse depth subtracted before the moments are taken.
    falloff: of the screen-space filter of discs, see `Bundle`.
    options: which splats, which channels, and the ceiling of alpha.

  Returns:
    alpha and the C blended channels, shaped like x or broadcastable to it.
  """
  layout = options.feature_layout
  dx, dy = x - features[layout.x], y - features[layout.y]
  if options.flat:
    power, plane = _disc_power(features[layout.shape], dx, dy, falloff)
  else:
    a, b, c = features[layout.shape]
    power, plane = dx * (a * dx + b * dy) + c * dy * dy, None
  alpha = jnp.minimum(features[layout.opacity] * jnp.exp2(-power), options.alpha_max)
  alpha = jnp.where((alpha < ALPHA_MIN) | (power < 0), 0.0, alpha)
  channels = tuple(features[layout.color])
  if options.geometry:
    z = features[layout.depth]
    inverse = 1.0 / z if plane is None else plane / z
    depth = z if plane is None else z / plane
    moment = reference - inverse
    channels += (depth, *features[layout.normal], moment, moment * moment)
  return alpha, channels


def _disc_power(
  shape: Sequence[jax.Array], dx: jax.Array, dy: jax.Array, falloff: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """Exponent (base 2) of a disc at an offset, and z / depth of the ray's hit.

  sigma = min(|s|^2 / 2, |d|^2 / 2 var): the second is the screen-space low-pass of Huang et al.
  2024 (eq. 11, var = 1/2), which also stands in where the ray misses the plane; there the hit is
  the centre.
  """
  u0, u1, v0, v1, w0, w1 = shape
  q = 1.0 + w0 * dx + w1 * dy
  hits = q > Q_MIN
  inverse = 1.0 / jnp.where(hits, q, 1.0)
  su, sv = (u0 * dx + u1 * dy) * inverse, (v0 * dx + v1 * dy) * inverse
  on_disc = jnp.where(hits, su * su + sv * sv, _FAR_OFF)
  on_screen = falloff * (dx * dx + dy * dy)
  sharp = on_disc <= on_screen
  return jnp.where(sharp, on_disc, on_screen), jnp.where(sharp, q, 1.0)


def transmit(transmittance: jax.Array, alpha: jax.Array) -> tuple[jax.Array, jax.Array]:
  """Returns a splat's weight and T behind it; T < 0 marks a ray that has ended at |T|."""
  behind = transmittance * (1.0 - alpha)
  ended = behind <= T_MIN
  weight = jnp.where(ended, 0.0, alpha * transmittance)
  return weight, jnp.where(ended, -jnp.abs(transmittance), behind)


def forward_step(carry: Values, alpha: jax.Array, channels: Values, options: Options) -> Values:
  """Adds one splat to a pixel.

  Args:
    carry: C sums, T and median depth in front of the splat.
    alpha: from `respond`.
    channels: likewise.
    options: which channels.

  Returns:
    the same behind the splat.
  """
  *sums, transmittance, median = carry
  weight, behind = transmit(transmittance, alpha)
  sums = [s + weight * c for s, c in zip(sums, channels, strict=True)]
  if options.geometry:
    depth = channels[options.channel_layout.depth]
    median = jnp.where((weight > 0) & (transmittance > 0.5), depth, median)
  return (*sums, behind, median)


def total(channels: Values, gradient: Values) -> jax.Array:
  """Returns `rest` before the first splat: all sums times their gradients, and T_end times its own.

  Args:
    channels: C sums and T of the forward pass.
    gradient: of the same.
  """
  return sum(c * g for c, g in zip(channels, gradient, strict=True))
