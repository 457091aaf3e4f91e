"""The network on a GPU: cuDNN's attention computes what XLA's does."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsplat_mouse.learn.gslrm.architecture import SIZES
from jaxsplat_mouse.learn.gslrm.network import GSLRM
from jaxsplat_mouse.learn.gslrm.reconstruction import init_parameters

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize("counts", [(96, 40), (96, 96)])
def test_cudnn_attends_as_xla_does(counts):
  """Values and gradients, with tokens that fill up; 90 and 8 registers are no multiple of 8."""
  shape = dataclasses.replace(SIZES["small"], depth=2, max_tokens=90)
  parameters = init_parameters(shape, jax.random.key(0))
  number = min(shape.max_tokens, max(counts))
  features = jax.random.normal(jax.random.key(1), (2, number, 640))
  used = jnp.minimum(jnp.asarray(counts), number)
  there = (jnp.arange(number) < used[:, None])[..., None, None, None]

  def run(attention: str, dtype: str):
    exact = dataclasses.replace(shape, dtype=dtype)

    def total(parameters):
      raw, _ = GSLRM(exact, attention).apply({"params": parameters}, features, used)
      return (jnp.where(there, raw, 0.0) ** 2).sum(), jnp.where(there, raw, 0.0)

    (_, raw), gradient = jax.jit(jax.value_and_grad(total, has_aux=True))(parameters)
    return np.asarray(raw), jax.tree.map(np.asarray, gradient)

  with jax.default_matmul_precision("highest"):
    exact, exact_gradient = run("xla", "float32")
  for attention in ("xla", "cudnn"):
    raw, gradient = run(attention, "bfloat16")
    assert np.abs(raw - exact).max() < 0.03 * np.abs(exact).max(), attention
    for one, other in zip(jax.tree.leaves(gradient), jax.tree.leaves(exact_gradient), strict=True):
      assert np.abs(one - other).max() < 0.06 * np.abs(other).max() + 1e-6, attention
