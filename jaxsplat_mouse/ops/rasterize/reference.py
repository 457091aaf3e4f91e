"""The oracle: every splat on every pixel, front to back, differentiated by JAX itself.

Time and, under differentiation, memory grow as N x H x W: for tests and tiny images.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxsplat_mouse.ops.rasterize import blend
from jaxsplat_mouse.ops.rasterize.base import Bundle, Channels, Options


def fits(options: Options) -> bool:
  """See `base`: any image."""
  del options
  return True


def composite_image(bundle: Bundle, options: Options) -> tuple[Channels, jax.Array]:
  """See `base`. Nothing is dropped, so that the overflow is 0."""
  x = jnp.arange(options.width, dtype=bundle.features.dtype)[None, :] + 0.5
  y = jnp.arange(options.height, dtype=bundle.features.dtype)[:, None] + 0.5
  x, y = jnp.broadcast_arrays(x, y)
  order = jnp.argsort(bundle.depths, stable=True)
  zero = jnp.zeros_like(x)
  layout = options.channel_layout
  start = (zero,) * layout.num_blended + (zero + 1.0, zero)

  def step(carry: blend.Values, feature: jax.Array) -> tuple[blend.Values, None]:
    alpha, channels = blend.respond(tuple(feature), x, y, bundle.reference, bundle.falloff, options)
    channels = tuple(jnp.broadcast_to(channel, x.shape) for channel in channels)
    *sums, behind, median = blend.forward_step(carry, alpha, channels, options)
    front = carry[layout.transmittance]
    uncrossed = (front > 0.5) & (jnp.abs(behind) > 0.5)
    return (*sums, behind, jnp.where(uncrossed, jax.lax.stop_gradient(median), median)), None

  carry, _ = jax.lax.scan(step, start, bundle.features[order])
  *sums, transmittance, median = carry
  planes = jnp.stack([*sums, jnp.abs(transmittance), median])
  return Channels.split(planes), jnp.zeros((), jnp.int32)
