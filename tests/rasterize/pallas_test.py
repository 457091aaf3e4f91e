"""The GPU kernels: interpreted against the reference, lowered for CUDA, compiled on a GPU."""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsplat_mouse.projection import project
from jaxsplat_mouse.rasterize import blend, pallas, reference
from jaxsplat_mouse.rasterize.base import Bundle, Options
from tests.splat_fixtures import odd_cameras, random_gaussians

MODELS = [(False, False), (False, True), (True, False), (True, True)]
each_model = pytest.mark.parametrize("flat, geometry", MODELS)


def _options(flat: bool, geometry: bool, **changes) -> Options:
  defaults = dict(width=42, height=35, flat=flat, geometry=geometry, capacity=1 << 12)
  return Options(**{**defaults, **changes})


def _bundle(options: Options, images: int = 2, count: int = 80, size: float = 0.3) -> Bundle:
  """Different splats in every image, their far half hidden in places by opaque ones."""
  cameras = odd_cameras(images, options.width, options.height)

  def one(index: int) -> Bundle:
    gaussians = random_gaussians(options.flat, count, index, size)
    gaussians = dataclasses.replace(gaussians, logit_opacities=gaussians.logit_opacities + 4.0)
    splats = project(gaussians, cameras[index])
    return Bundle(
      features=blend.pack(splats, options.geometry),
      depths=splats.depths,
      ellipses=splats.ellipses,
      boxes=splats.boxes,
      reference=jnp.float32(0.4),
    )

  return jax.tree.map(lambda *a: jnp.stack(a), *map(one, range(images)))


def _pass(bundle: Bundle, options: Options, weights: jax.Array):
  """Channels, walked counts and the gradient of a random functional of the channels."""
  channels, residuals, overflow = pallas.forward(bundle, options)
  gradient = pallas.backward(bundle, residuals, channels, weights, options)
  return channels, residuals, overflow, gradient


def _reference(bundle: Bundle, options: Options, weights: jax.Array):
  run = lambda features: reference.composite(
    dataclasses.replace(bundle, features=features), options
  )
  channels, pull = jax.vjp(run, bundle.features)
  return channels, pull(weights)[0]


def _weights(options: Options, images: int = 2) -> jax.Array:
  channels = blend.num_channels(options.geometry) + 2
  return jax.random.normal(jax.random.key(0), (images, channels, options.height, options.width))


def _agree(got: jax.Array, want: jax.Array, relative: float) -> None:
  """Per feature (..., F): the error against that feature's largest value."""
  scale = jnp.abs(want).max((0, 1)) + 1e-12
  np.testing.assert_allclose(got / scale, want / scale, atol=relative)


@each_model
def test_interpreted_kernels_equal_reference(flat, geometry):
  options = _options(flat, geometry, interpret=True)
  bundle, weights = _bundle(options), _weights(options)
  channels, residuals, overflow, gradient = jax.jit(functools.partial(_pass, options=options))(
    bundle, weights=weights
  )
  want, want_gradient = jax.jit(functools.partial(_reference, options=options))(
    bundle, weights=weights
  )
  assert int(overflow.max()) == 0
  # The early stop was taken, or it is not tested.
  lengths = residuals.lists.ends - residuals.lists.starts
  assert int(residuals.walked.sum()) < int(lengths.sum())
  np.testing.assert_allclose(channels, want, atol=1e-5)
  _agree(gradient, want_gradient, 1e-4)


@pytest.mark.parametrize("tile_size", [4, 16])
def test_other_tile_sizes(tile_size):
  options = _options(False, False, interpret=True, tile_size=tile_size)
  bundle, weights = _bundle(options, 1, 40, 0.1), _weights(options, images=1)
  channels, _, overflow, gradient = jax.jit(functools.partial(_pass, options=options))(
    bundle, weights=weights
  )
  want, want_gradient = _reference(bundle, options, weights)
  assert int(overflow.max()) == 0
  np.testing.assert_allclose(channels, want, atol=1e-5)
  _agree(gradient, want_gradient, 1e-4)


def test_splats_without_intersections_get_no_gradient():
  options = _options(False, False, interpret=True, capacity=64)
  bundle, weights = _bundle(options, images=1), _weights(options, images=1)
  _, residuals, overflow, gradient = _pass(bundle, options, weights)
  unlisted = residuals.lists.slot_counts[0] == 0
  assert int(overflow[0]) > 0 and bool(unlisted.any()) and not bool(unlisted.all())
  assert bool((gradient[0][unlisted] == 0).all())
  assert bool(jnp.isfinite(gradient).all())


def test_tiles_are_taken_by_falling_work():
  work = jnp.array([[3, 0, 7, 7, 1], [0, 0, 0, 2, 1 << 30]])
  order = np.asarray(pallas._busiest_first(work))
  assert np.sort(order, -1).tolist() == [[0, 1, 2, 3, 4]] * 2
  taken = np.take_along_axis(np.asarray(work), order, -1)
  assert (np.diff(taken, axis=-1) <= 0).all()


@each_model
def test_lowers_for_cuda_without_a_gpu(flat, geometry):
  options = _options(flat, geometry)
  shapes = jax.eval_shape(lambda: (_bundle(options), _weights(options)))
  traced = jax.jit(functools.partial(_pass, options=options)).trace(shapes[0], weights=shapes[1])
  try:
    text = traced.lower(lowering_platforms=("cuda",)).as_text()
  except RuntimeError as error:
    if "No supported GPU" not in str(error):
      raise
    pytest.skip(f"this JAX lowers for CUDA only where there is a GPU: {error}")
  assert text.count("triton") >= 3


@pytest.mark.gpu
@each_model
def test_compiled_kernels_equal_reference(flat, geometry):
  options = _options(flat, geometry, width=150, height=90, capacity=1 << 16)
  bundle, weights = _bundle(options, count=400, size=0.05), _weights(options)
  run = jax.jit(functools.partial(_pass, options=options))
  channels, _, overflow, gradient = run(bundle, weights=weights)
  want, want_gradient = jax.jit(functools.partial(_reference, options=options))(
    bundle, weights=weights
  )
  assert int(overflow.max()) == 0
  # A different exp2 may carry single pixels across alpha = 1/255 or T = 1e-4.
  away = np.abs(np.asarray(channels - want)).max(1) > 1e-5
  assert away.mean() <= 1e-3
  _agree(gradient, want_gradient, 2e-2)
  close = np.abs(np.asarray(gradient - want_gradient)) <= 1e-3 * np.abs(want_gradient).max((0, 1))
  assert close.mean() >= 0.99


@pytest.mark.gpu
@each_model
def test_two_runs_give_equal_bytes(flat, geometry):
  options = _options(flat, geometry, width=150, height=90, capacity=1 << 16)
  bundle, weights = _bundle(options, count=400, size=0.05), _weights(options)
  run = jax.jit(functools.partial(_pass, options=options))
  first, second = run(bundle, weights=weights), run(bundle, weights=weights)
  for a, b in ((first[0], second[0]), (first[3], second[3])):
    assert np.asarray(a).tobytes() == np.asarray(b).tobytes()
