"""The GPU kernels: interpreted against the reference, lowered for CUDA, compiled on a GPU."""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsplat_mouse.ops.rasterize import api, binning, blend, pallas, pallas_binning, reference
from jaxsplat_mouse.ops.rasterize.base import Bundle, Options
from jaxsplat_mouse.projection import project
from tests.cuda_lowering import lower_for_cuda
from tests.splat_fixtures import odd_cameras, random_gaussians

pytestmark = pytest.mark.unoptimized

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
    low_pass = 0.3 + 0.4 * index
    splats = project(gaussians, cameras[index], low_pass)
    return Bundle(
      features=blend.pack(splats, options.geometry),
      depths=splats.depths,
      ellipses=splats.ellipses,
      boxes=splats.boxes,
      reference=jnp.float32(0.4),
      falloff=jnp.float32(0.5 * blend.LOG2E / low_pass),
    )

  return jax.tree.map(lambda *a: jnp.stack(a), *map(one, range(images)))


def _pass(bundle: Bundle, options: Options, weights: jax.Array):
  """Channels, walked counts and the gradient of a random functional of the channels."""
  channels, residuals, overflow = pallas.forward(bundle, options)
  weights = weights[:, :3], weights[:, 3:]
  gradient = pallas.backward(bundle, residuals, channels, weights, options)
  return jnp.concatenate(channels, 1), residuals, overflow, gradient


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
  # Four rows are compiled in half the time of eight.
  options = _options(flat, geometry, interpret=True, tile_size=8 if flat and geometry else 4)
  options = dataclasses.replace(options, capacity=1 << 13)
  bundle, weights = _bundle(options), _weights(options)
  channels, residuals, overflow, gradient = jax.jit(functools.partial(_pass, options=options))(
    bundle, weights=weights
  )
  want, want_gradient = jax.jit(functools.partial(_reference, options=options))(
    bundle, weights=weights
  )
  assert int(overflow.max()) == 0
  # The early stop was taken, or it is not tested.
  assert int(residuals.walked.sum()) < int(residuals.lists.lengths.sum())
  np.testing.assert_allclose(channels, want, atol=1e-5)
  _agree(gradient, want_gradient, 1e-4)


@pytest.mark.parametrize("tile_size", [16])
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


@pytest.mark.parametrize("tile_size", [1, 32])
def test_the_smallest_and_largest_tiles_lower(tile_size):
  """A column of one row, and tiles that take a whole warp, cannot be shared by lanes."""
  options = _options(False, False, tile_size=tile_size)
  bundle = jax.eval_shape(lambda: _bundle(options, 1, 40, 0.1))
  traced = jax.jit(lambda b: pallas.forward(b, options)[0]).trace(bundle)
  assert lower_for_cuda(traced).count("triton") >= 3


def test_splats_without_intersections_get_no_gradient():
  options = _options(False, False, interpret=True, capacity=64, tile_size=4)
  bundle, weights = _bundle(options, images=1), _weights(options, images=1)
  run = jax.jit(functools.partial(_pass, options=options))
  _, residuals, overflow, gradient = run(bundle, weights=weights)
  lists = residuals.lists
  unlisted = jnp.zeros(80, bool).at[lists.order[0]].set(lists.slot_counts[0] == 0)
  assert int(overflow[0]) > 0 and bool(unlisted.any()) and not bool(unlisted.all())
  assert bool((gradient[0][unlisted] == 0).all())
  assert bool(jnp.isfinite(gradient).all())


def _listed(lists, options: Options) -> list[list[int]]:
  """Splats of every tile's list, images one after the other."""
  slots, ranks = np.asarray(lists.slots).reshape(-1), np.asarray(lists.ranks).reshape(-1)
  splats = np.asarray(lists.order)[slots // options.capacity, ranks[slots]]
  first = np.asarray(lists.starts).reshape(-1)
  counts = np.asarray(lists.lengths).reshape(-1)
  return [splats[f : f + c].tolist() for f, c in zip(first, counts, strict=True)]


@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize("size, tile_size", [(0.3, 8), (0.02, 4)])
def test_lists_are_those_of_the_xla_path(flat, size, tile_size):
  options = _options(flat, False, interpret=True, tile_size=tile_size, capacity=1 << 14)
  bundle = _bundle(options, 3, size=size)
  lists = jax.jit(functools.partial(pallas_binning.bin_splats, options=options))(bundle)
  want = jax.jit(functools.partial(binning.bin_splats, options=options))(bundle)
  assert int(want.overflow.max()) == int(lists.overflow.max()) == 0
  expected = [
    np.asarray(want.splats[i, s:e]).tolist()
    for i in range(3)
    for s, e in zip(want.starts[i].tolist(), want.ends[i].tolist(), strict=True)
  ]
  assert _listed(lists, options) == expected and max(map(len, expected)) > 3
  # A splat's slots are its own, and as many as its entries.
  order = np.argsort(np.asarray(lists.order), 1)
  counts = np.take_along_axis(np.asarray(lists.slot_counts), order, 1)
  tiles = options.num_tiles
  for i in range(3):
    listed = np.concatenate(expected[i * tiles : (i + 1) * tiles]).astype(int)
    assert (np.bincount(listed, minlength=counts.shape[1]) == counts[i]).all()


def test_dropped_entries_are_the_farthest_and_counted():
  roomy = _options(True, False, interpret=True, capacity=1 << 14)
  small = dataclasses.replace(roomy, capacity=300)
  bundle = _bundle(roomy, 2)
  run = lambda options: pallas_binning.bin_splats(bundle, options)
  lists, want = run(small), run(roomy)
  assert (lists.lengths.sum(1) == 300).all()
  assert (lists.overflow == want.lengths.sum(1) - 300).all()
  for got, full in zip(_listed(lists, small), _listed(want, roomy), strict=True):
    assert got == full[: len(got)]


def _one_pullback(bundle, options, implementation):
  """Channels of one image and their pullback to its features, as the public op has them."""
  run = lambda features: api._tiled(
    dataclasses.replace(bundle, features=features), options, implementation
  )[0]
  return jax.vjp(run, bundle.features)


@pytest.mark.parametrize("implementation", ("xla", "pallas"))
def test_a_vmap_of_the_pullback_alone_equals_a_loop(implementation):
  """Lists made for one batch are not read as those of another, however vmaps are nested."""
  options = _options(False, False, interpret=True, tile_size=4)
  bundle, weights = _bundle(options, 2, 30, 0.1), _weights(options)[:, None]
  factors = jnp.array([1.0, 2.0, -1.0])

  def several(bundle, weight):
    pull = _one_pullback(bundle, options, implementation)[1]
    each = lambda factor: pull((factor * weight[0, :3], factor * weight[0, 3:]))[0]
    return jax.vmap(each)(factors)

  def once(bundle, weight):
    return _one_pullback(bundle, options, implementation)[1]((weight[0, :3], weight[0, 3:]))[0]

  want = jax.jit(jax.vmap(once))(bundle, weights)
  got = jax.jit(jax.vmap(several))(bundle, weights)
  scale = float(jnp.abs(want).max())
  assert np.isfinite(scale) and scale > 0
  for k, factor in enumerate(factors):
    np.testing.assert_allclose(got[:, k], factor * want, atol=1e-5 * scale)


def test_lists_of_another_batch_give_no_gradient():
  options = _options(False, False, interpret=True, tile_size=4)
  bundle, weights = _bundle(options, 2, 30, 0.1), _weights(options)
  channels, residuals, _ = jax.jit(functools.partial(pallas.forward, options=options))(bundle)
  swapped = jax.tree.map(lambda a: a[::-1], residuals)
  run = jax.jit(functools.partial(pallas.backward, options=options))
  gradient = run(bundle, swapped, channels, (weights[:, :3], weights[:, 3:]))
  assert jnp.isnan(gradient).all()


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
  text = lower_for_cuda(traced)
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
