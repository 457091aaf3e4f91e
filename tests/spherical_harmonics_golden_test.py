"""Spherical harmonics against gsplat's: values and gradients, degree by degree."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsplat_mouse import spherical_harmonics
from jaxsplat_mouse.math import safe_normalize
from tests.golden.probe import assert_gradients_match, load, probe


@pytest.fixture(scope="module")
def golden():
  return load("spherical_harmonics")


def colors(sh, directions, degree):
  return spherical_harmonics.evaluate_sh(sh[:, : (degree + 1) ** 2], safe_normalize(directions))


@pytest.mark.parametrize("degree", range(4))
def test_colors_equal_gsplat(golden, degree):
  found = colors(jnp.asarray(golden["sh"]), jnp.asarray(golden["directions"]), degree)
  np.testing.assert_allclose(found, golden[f"degree{degree}/colors"], rtol=0, atol=1e-5)


@pytest.mark.parametrize("degree", range(4))
def test_unclamped_values_equal_gsplat(golden, degree):
  # A constant of 10 on the first coefficient lifts every value above the clamp at 0.
  lifted = golden["sh"].copy()
  lifted[:, 0] += 10.0
  found = colors(jnp.asarray(lifted), jnp.asarray(golden["directions"]), degree)
  expected = golden[f"degree{degree}/raw"] + 0.5 + 10.0 * spherical_harmonics.C0
  np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


def test_basis_is_orthonormal():
  # Independent of gsplat: the mean of Y_i Y_j over the sphere is the identity over 4 pi. Degree 6
  # is integrated exactly by 8 Gauss nodes in z and 16 angles.
  z, weight = np.polynomial.legendre.leggauss(8)
  angle = 2 * np.pi * np.arange(16) / 16
  radius = np.sqrt(1 - z**2)[:, None]
  z = np.broadcast_to(z[:, None], (8, 16))
  points = np.stack([radius * np.cos(angle), radius * np.sin(angle), z], -1)
  values = np.stack(spherical_harmonics.basis(jnp.asarray(points, jnp.float32), 16), -1)
  gram = np.einsum("z,zai,zaj->ij", weight * 2 * np.pi / 16, values, values)
  np.testing.assert_allclose(gram, np.eye(16), rtol=0, atol=1e-5)


@pytest.mark.parametrize("degree", range(4))
def test_gradients_equal_gsplat(golden, degree):
  weights = jnp.asarray(probe((40, 3), salt=1), jnp.float32)
  loss = lambda p: (weights * colors(p["sh"], p["directions"], degree)).sum()
  found = jax.grad(loss)({name: jnp.asarray(golden[name]) for name in ("sh", "directions")})
  assert_gradients_match(found, golden, f"degree{degree}/d_colors/")
