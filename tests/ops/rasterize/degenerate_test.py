"""Ten thousand splats drawn to break things: no NaN leaves the renderer or its gradient."""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsplat_mouse.rendering import render
from tests.splat_fixtures import odd_cameras, random_gaussians

pytestmark = pytest.mark.unoptimized


def _break(gaussians, seed: int):
  """Zero quaternions, points at and behind the camera, vanishing and huge sizes, opacity 0, 1."""
  rng = np.random.default_rng(seed)
  count = gaussians.means.shape[0]
  pick = lambda share: jnp.asarray(rng.random(count) < share)
  column = lambda mask, a: mask.reshape(mask.shape + (1,) * (a.ndim - 1))
  set_to = lambda a, mask, value: jnp.where(column(mask, a), value, a)
  means = set_to(gaussians.means, pick(0.1), gaussians.means * 50.0)
  means = set_to(means, pick(0.05), 0.0)
  scales = set_to(gaussians.log_scales, pick(0.1), -40.0)
  scales = set_to(scales, pick(0.02), 3.0)
  axes = set_to(gaussians.quats, pick(0.1), jnp.array([1.0, 0.0, 0.0, 0.0]))
  axes = set_to(axes, pick(0.1), jnp.array([1.0, 1.0, 0.0, 0.0]))  # edge-on from many a side
  opacities = set_to(gaussians.logit_opacities, pick(0.1), 40.0)
  return dataclasses.replace(
    gaussians,
    means=means,
    log_scales=scales,
    quats=set_to(axes, pick(0.1), 0.0),
    logit_opacities=set_to(opacities, pick(0.1), -90.0),
  )


def _check(flat: bool, count: int, size: int, implementation: str) -> None:
  gaussians = _break(random_gaussians(flat, count, 0, 0.05), 1)
  cameras = odd_cameras(2, size, size)

  @jax.jit
  def run(gaussians, weights):
    def loss(gaussians):
      run_one = functools.partial(
        render, capacity=count * 64, implementation=implementation, background=0.5
      )
      out = jax.vmap(lambda camera: run_one(gaussians, camera))(cameras)
      fields = [out.rgb, out.alpha, out.depth, out.median_depth, out.normal, out.distortion]
      return sum((f * weights).sum() for f in (f.sum(-1) if f.ndim == 4 else f for f in fields))

    return jax.value_and_grad(loss)(gaussians)

  weights = jax.random.normal(jax.random.key(0), (2, size, size))
  result = run(gaussians, weights)
  assert all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(result))
  assert float(jnp.abs(result[1].means).max()) > 0


@pytest.mark.parametrize("flat", [False, True])
def test_no_nan_on_a_cpu(flat):
  _check(flat, 300, 32, "xla")


@pytest.mark.gpu
@pytest.mark.parametrize("flat", [False, True])
def test_no_nan_in_ten_thousand_on_a_gpu(flat):
  _check(flat, 10_000, 256, "pallas")
