"""One suite that every rasterizer passes: values, gradients, capacity, batching."""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.ops.rasterize.bundles import (
  composite_and_pull,
  each_model,
  make_bundle,
  make_options,
  make_weights,
  pull_back,
)

pytestmark = pytest.mark.unoptimized

each_tiled = pytest.mark.parametrize("implementation", ["xla", "pallas"])


def _options(flat: bool, geometry: bool, **changes):
  """Interpreted. Four rows are compiled in half the time of eight."""
  defaults = dict(interpret=True, tile_size=8 if flat and geometry else 4, capacity=1 << 13)
  return make_options(flat, geometry, **{**defaults, **changes})


@functools.cache
def _reference(options):
  bundle, weights = make_bundle(options), make_weights(options)
  return composite_and_pull(bundle, weights, options=options, implementation="reference")


@each_tiled
@each_model
def test_values_and_gradients_equal_the_reference(flat, geometry, implementation):
  options = _options(flat, geometry)
  channels, overflow, gradient = composite_and_pull(
    make_bundle(options), make_weights(options), options=options, implementation=implementation
  )
  want, _, want_gradient = _reference(options)
  assert int(overflow.max()) == 0
  np.testing.assert_allclose(channels, want, atol=1e-5)
  # Per feature (..., F): the error against that feature's largest value.
  scale = jnp.abs(want_gradient).max((0, 1)) + 1e-12
  np.testing.assert_allclose(gradient / scale, want_gradient / scale, atol=1e-4)


@each_tiled
def test_what_does_not_fit_is_the_farthest_is_counted_and_gets_no_gradient(implementation):
  options = _options(False, False)
  bundle, weights = make_bundle(options, images=1), make_weights(options, images=1)
  tight = dataclasses.replace(options, capacity=64)
  channels, overflow, gradient = composite_and_pull(
    bundle, weights, options=tight, implementation=implementation
  )
  assert int(overflow[0]) > 0
  assert bool(jnp.isfinite(gradient).all())
  reached = jnp.abs(gradient[0]).max(-1) > 0
  assert bool(reached.any()) and not bool(reached.all())
  # What is dropped lies behind what is kept, and more light comes through.
  full = jnp.abs(_reference(options)[2][0]).max(-1) > 0
  lost = full & ~reached
  assert float(bundle.depths[0][reached].max()) <= float(bundle.depths[0][lost].max())
  layout = options.channel_layout
  clear, whole = channels[0, layout.transmittance], _reference(options)[0][0, layout.transmittance]
  assert bool((clear >= whole - 1e-5).all()) and float((clear - whole).max()) > 0.01


@each_tiled
def test_a_vmap_of_the_pullback_alone_equals_a_loop(implementation):
  """Lists made for one batch are not read as those of another, however vmaps are nested."""
  options = _options(False, False, capacity=1 << 12)
  bundle, weights = make_bundle(options, 2, 30, 0.1), make_weights(options)
  factors = jnp.array([1.0, 2.0, -1.0])

  def several(bundle, weights):
    pull = pull_back(bundle, options, implementation)[2]
    return jax.vmap(lambda factor: pull(jax.tree.map(lambda w: factor * w, weights)))(factors)

  want = composite_and_pull(bundle, weights, options=options, implementation=implementation)[2]
  got = jax.jit(jax.vmap(several))(bundle, weights)
  scale = float(jnp.abs(want).max())
  assert np.isfinite(scale) and scale > 0
  for k, factor in enumerate(factors):
    np.testing.assert_allclose(got[:, k], factor * want, atol=1e-5 * scale)
