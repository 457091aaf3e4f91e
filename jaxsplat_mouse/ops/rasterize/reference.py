"""The oracle: every splat on every pixel, front to back, differentiated by JAX itself."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxsplat_mouse.ops.rasterize import blend
from jaxsplat_mouse.ops.rasterize.base import Bundle, Options


def composite(bundle: Bundle, options: Options) -> jax.Array:
  """Channels (I, C + 2, H, W) of I images; plain autodiff gives its gradient.

  Time and, under differentiation, memory grow as N x H x W: for tests and tiny images.
  """
  return jax.vmap(lambda one: _composite_image(one, options))(bundle)


def _composite_image(bundle: Bundle, options: Options) -> jax.Array:
  x = jnp.arange(options.width, dtype=bundle.features.dtype)[None, :] + 0.5
  y = jnp.arange(options.height, dtype=bundle.features.dtype)[:, None] + 0.5
  x, y = jnp.broadcast_arrays(x, y)
  order = jnp.argsort(bundle.depths, stable=True)
  zero = jnp.zeros_like(x)
  start = (zero,) * blend.num_channels(options.geometry) + (zero + 1.0, zero)

  def step(carry: blend.Values, feature: jax.Array) -> tuple[blend.Values, None]:
    alpha, channels = blend.respond(
      tuple(feature),
      x,
      y,
      bundle.reference,
      bundle.falloff,
      options.flat,
      options.geometry,
      options.alpha_max,
    )
    if options.geometry:
      channels = (*channels[:3], jnp.broadcast_to(channels[3], x.shape), *channels[4:])
    *rest, median = blend.forward_step(carry, alpha, channels, options.geometry)
    uncrossed = (carry[-2] > 0.5) & (jnp.abs(rest[-1]) > 0.5)
    return (*rest, jnp.where(uncrossed, jax.lax.stop_gradient(median), median)), None

  carry, _ = jax.lax.scan(step, start, bundle.features[order])
  *sums, transmittance, median = carry
  return jnp.stack([*sums, jnp.abs(transmittance), median])
