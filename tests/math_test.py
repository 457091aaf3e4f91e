"""Quaternions and guarded divisions."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
from scipy.spatial.transform import Rotation

from jaxsplat_mouse.math import (
  logit,
  matrix_to_quaternion,
  quaternion_to_matrix,
  safe_divide,
  safe_normalize,
  safe_sqrt,
)


def test_quaternion_to_matrix_equals_scipy():
  quats = np.random.default_rng(0).normal(size=(50, 4)).astype(np.float32)
  want = Rotation.from_quat(quats[:, [1, 2, 3, 0]]).as_matrix()
  np.testing.assert_allclose(quaternion_to_matrix(quats), want, atol=2e-6)


def test_matrix_to_quaternion_inverts_even_half_turns():
  rng = np.random.default_rng(1)
  turns = np.concatenate([rng.normal(size=(60, 4)), np.eye(4), [[0, 1, 1, 0], [0, 0, -1, 1]]])
  matrices = Rotation.from_quat(turns[:, [1, 2, 3, 0]]).as_matrix().astype(np.float32)
  quats = matrix_to_quaternion(jnp.asarray(matrices))
  np.testing.assert_allclose(quaternion_to_matrix(quats), matrices, atol=2e-6)
  assert bool((quats[:, 0] >= 0).all())


def test_gradients_at_degenerate_inputs_are_finite():
  zero = jnp.zeros(4)
  assert bool(jnp.isfinite(jax.jacobian(quaternion_to_matrix)(zero)).all())
  assert bool(jnp.isfinite(jax.jacobian(safe_normalize)(jnp.zeros(3))).all())
  assert float(jax.grad(safe_sqrt)(0.0)) == 0.0
  assert float(jax.grad(lambda x: safe_divide(1.0, x))(0.0)) == 0.0


def test_logit_inverts_sigmoid():
  p = jnp.array([0.001, 0.3, 0.999])
  np.testing.assert_allclose(jax.nn.sigmoid(logit(p)), p, rtol=1e-4)
