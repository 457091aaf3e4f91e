"""From sums over pixels to the gradient of a packed splat: what all explicit backward passes share.

A pixel's response depends on a splat's place and shape through a few numbers only. Their gradients,
summed over the splat's pixels with the weights 1, dx, dy, ... (offsets from its centre), give the
gradient of the splat.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

from jaxsplat_mouse.ops.rasterize import blend
from jaxsplat_mouse.ops.rasterize.base import Options

LN2 = math.log(2.0)


def finish(sums: jax.Array, features: jax.Array, options: Options) -> jax.Array:
  """dL/dfeatures (..., F) from the sums (..., F) over all of a splat's pixels.

  Args:
    sums: discs: dL/d(x y u0 u1 v0 v1 w0 w1), ellipsoids: dL/dlog(alpha) times dx, dy, dx^2, dx dy,
      dy^2; then the sum of dL/dlog(alpha); then dL/d(colour, depth, normal).
    features: packed splats.
    options: which splats.
  """
  index = blend.opacity_index(options.flat)
  opacity = features[..., index]
  visible = opacity > 0
  d_opacity = jnp.where(visible, sums[..., index] / jnp.where(visible, opacity, 1.0), 0.0)
  if options.flat:
    head = sums[..., :index]
  else:
    a, b, c = (features[..., k] for k in (2, 3, 4))
    x, y = sums[..., 0], sums[..., 1]
    head = jnp.concatenate(
      [
        LN2 * jnp.stack([2.0 * a * x + b * y, b * x + 2.0 * c * y], -1),
        -LN2 * sums[..., 2:5],
      ],
      -1,
    )
  return jnp.concatenate([head, d_opacity[..., None], sums[..., index + 1 :]], -1)
