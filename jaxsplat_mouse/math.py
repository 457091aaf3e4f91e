"""Quaternions and guarded divisions whose gradients stay finite at degenerate inputs.

Small matrices are written out by element: batched 3x3 products through `dot_general` cost more on a
GPU than everything else in the projection.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

EPSILON = 1e-12


def safe_divide(
  numerator: jax.Array, denominator: jax.Array, epsilon: float = EPSILON
) -> jax.Array:
  """Returns numerator / denominator, 0 with a zero gradient where |denominator| <= epsilon.

  Args:
    numerator: of any shape that broadcasts with the denominator's.
    denominator: likewise.
    epsilon: the largest magnitude that counts as zero.
  """
  usable = jnp.abs(denominator) > epsilon
  return jnp.where(usable, numerator / jnp.where(usable, denominator, 1.0), 0.0)


def safe_sqrt(x: jax.Array, epsilon: float = EPSILON) -> jax.Array:
  """Returns sqrt(x), 0 with a zero (not an infinite) gradient where x <= epsilon."""
  usable = x > epsilon
  return jnp.where(usable, jnp.sqrt(jnp.where(usable, x, 1.0)), 0.0)


def safe_normalize(x: jax.Array, axis: int = -1, epsilon: float = EPSILON) -> jax.Array:
  """Returns x / |x| along an axis; zero vectors stay zero, with a zero gradient.

  Args:
    x: vectors of any shape.
    axis: along which the length is taken.
    epsilon: the largest squared length that counts as zero.
  """
  squared = jnp.sum(x * x, axis=axis, keepdims=True)
  usable = squared > epsilon
  return jnp.where(usable, x * jax.lax.rsqrt(jnp.where(usable, squared, 1.0)), 0.0)


def logit(p: jax.Array) -> jax.Array:
  """Returns the inverse of the sigmoid of p, which is clipped to [1e-6, 1 - 1e-6]."""
  p = jnp.clip(p, 1e-6, 1.0 - 1e-6)
  return jnp.log(p) - jnp.log1p(-p)


def normalize_quaternion(quats: jax.Array) -> jax.Array:
  """Returns unit quaternions (..., 4) in w x y z order; a zero quaternion becomes the identity."""
  squared = jnp.sum(quats * quats, axis=-1, keepdims=True)
  usable = squared > EPSILON
  identity = jnp.array([1.0, 0.0, 0.0, 0.0], quats.dtype)
  return jnp.where(usable, quats * jax.lax.rsqrt(jnp.where(usable, squared, 1.0)), identity)


def quaternion_columns(quats: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
  """Returns the three columns (..., 3) of the rotations of quats (..., 4) wxyz of any length."""
  w, x, y, z = jnp.moveaxis(normalize_quaternion(quats), -1, 0)
  first = jnp.stack([1 - 2 * (y * y + z * z), 2 * (x * y + w * z), 2 * (x * z - w * y)], -1)
  second = jnp.stack([2 * (x * y - w * z), 1 - 2 * (x * x + z * z), 2 * (y * z + w * x)], -1)
  third = jnp.stack([2 * (x * z + w * y), 2 * (y * z - w * x), 1 - 2 * (x * x + y * y)], -1)
  return first, second, third


def quaternion_to_matrix(quats: jax.Array) -> jax.Array:
  """Returns the rotation matrices (..., 3, 3) of quats (..., 4) wxyz of any length."""
  return jnp.stack(quaternion_columns(quats), -1)


def matrix_to_quaternion(rotation: jax.Array) -> jax.Array:
  """Returns unit quaternions (..., 4) wxyz, w >= 0, of rotation matrices (..., 3, 3).

  Of the four ways to divide, it takes the one with the largest divisor (Shepperd 1978).
  """
  m = rotation
  xx, yy, zz = m[..., 0, 0], m[..., 1, 1], m[..., 2, 2]
  squared = jnp.stack([1 + xx + yy + zz, 1 + xx - yy - zz, 1 - xx + yy - zz, 1 - xx - yy + zz], -1)
  yz, zx, xy = m[..., 2, 1], m[..., 0, 2], m[..., 1, 0]
  zy, xz, yx = m[..., 1, 2], m[..., 2, 0], m[..., 0, 1]
  rows = jnp.stack(
    [
      jnp.stack([squared[..., 0], yz - zy, zx - xz, xy - yx], -1),
      jnp.stack([yz - zy, squared[..., 1], xy + yx, zx + xz], -1),
      jnp.stack([zx - xz, xy + yx, squared[..., 2], yz + zy], -1),
      jnp.stack([xy - yx, zx + xz, yz + zy, squared[..., 3]], -1),
    ],
    -2,
  )
  best = jnp.argmax(squared, -1)[..., None, None]
  quats = safe_normalize(jnp.take_along_axis(rows, best, -2)[..., 0, :])
  return jnp.where(quats[..., :1] < 0, -quats, quats)


def rotate(matrix: jax.Array, x: jax.Array) -> jax.Array:
  """Returns matrix[:3, :3] @ x for points x (..., 3) and one matrix (3, 3), (3, 4) or (4, 4)."""
  x0, x1, x2 = x[..., 0], x[..., 1], x[..., 2]
  rows = [matrix[i, 0] * x0 + matrix[i, 1] * x1 + matrix[i, 2] * x2 for i in range(3)]
  return jnp.stack(rows, -1)
