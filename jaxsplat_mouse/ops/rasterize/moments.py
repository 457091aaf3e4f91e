"""From sums over pixels to the gradient of a packed splat: the end of every explicit backward pass.

A pixel's response depends on a splat's place and shape through a few numbers only. Their gradients,
summed over the splat's pixels with the weights 1, dx, dy, ... (offsets from its centre), give the
gradient of the splat.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

from jaxsplat_mouse.ops.rasterize.base import Options
from jaxsplat_mouse.ops.rasterize.layout import places

LN2 = math.log(2.0)


def gradient_from_sums(sums: jax.Array, features: jax.Array, options: Options) -> jax.Array:
  """Returns dL/dfeatures (..., F) from the sums (..., F) over all of a splat's pixels.

  Args:
    sums: in the places of the features. Centre and shape: of discs dL/d(x y u0 u1 v0 v1 w0 w1), of
      ellipsoids dL/dlog(alpha) times dx, dy, dx^2, dx dy, dy^2. Opacity: the sum of
      dL/dlog(alpha). Colour, depth, normal: dL/d(colour, depth, normal).
    features: packed splats.
    options: which splats.
  """
  layout = options.feature_layout
  opacity = features[..., layout.opacity]
  visible = opacity > 0
  by_log = sums[..., layout.opacity]
  d_opacity = jnp.where(visible, by_log / jnp.where(visible, opacity, 1.0), 0.0)
  if options.flat:
    head = sums[..., layout.response]
  else:
    a, b, c = (features[..., k] for k in places(layout.shape))
    x, y = sums[..., layout.x], sums[..., layout.y]
    head = jnp.concatenate(
      [
        LN2 * jnp.stack([2.0 * a * x + b * y, b * x + 2.0 * c * y], -1),
        -LN2 * sums[..., layout.shape],
      ],
      -1,
    )
  return jnp.concatenate([head, d_opacity[..., None], sums[..., layout.appearance]], -1)
