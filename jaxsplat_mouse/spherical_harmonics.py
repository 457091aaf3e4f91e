"""Real spherical harmonics up to degree 3 (Sloan, "Efficient SH evaluation", 2013)."""

from __future__ import annotations

import jax
import jax.numpy as jnp

C0 = 0.28209479177387814
_C1 = 0.4886025119029199
_C2 = (1.0925484305920792, 0.31539156525252005, 0.5462742152960396)
_C3 = (
  0.5900435899266435,
  2.890611442640554,
  0.4570457994644658,
  0.3731763325901154,
  1.445305721320277,
)


def basis(directions: jax.Array, num_coefficients: int) -> list[jax.Array]:
  """Returns the first basis functions at unit directions (..., 3), each an array (...)."""
  x, y, z = directions[..., 0], directions[..., 1], directions[..., 2]
  values = [jnp.full_like(x, C0)]
  if num_coefficients > 1:
    values += [-_C1 * y, _C1 * z, -_C1 * x]
  if num_coefficients > 4:
    a, b, c = _C2
    values += [a * x * y, -a * y * z, b * (3 * z * z - 1), -a * x * z, c * (x * x - y * y)]
  if num_coefficients > 9:
    a, b, c, d, e = _C3
    values += [
      -a * y * (3 * x * x - y * y),
      b * x * y * z,
      -c * y * (5 * z * z - 1),
      d * z * (5 * z * z - 3),
      -c * x * (5 * z * z - 1),
      e * z * (x * x - y * y),
      -a * x * (x * x - 3 * y * y),
    ]
  return values[:num_coefficients]


def evaluate_sh(sh: jax.Array, directions: jax.Array) -> jax.Array:
  """Returns the colours (..., 3) that splats show along directions: max(SH + 0.5, 0).

  Args:
    sh: (..., K, 3) coefficients, K one of 1, 4, 9, 16.
    directions: (..., 3) unit vectors from the camera to the splat.
  """
  values = basis(directions, sh.shape[-2])
  total = sum(value[..., None] * sh[..., k, :] for k, value in enumerate(values))
  return jnp.maximum(total + 0.5, 0.0)


def from_rgb(rgb: jax.Array) -> jax.Array:
  """Returns the degree-0 coefficients (..., 3) of colours (..., 3) in [0, 1]."""
  return (rgb - 0.5) / C0
