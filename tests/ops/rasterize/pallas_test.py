"""What only the GPU kernels have: their lists, lowering for CUDA, and compiled runs on a GPU.

Interpreted, they run through `implementations_test` too.
"""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsplat_mouse.ops.rasterize import binning, pallas, pallas_binning
from jaxsplat_mouse.ops.rasterize.base import Options
from tests.cuda_lowering import lower_for_cuda
from tests.ops.rasterize.bundles import (
  composite_and_pull,
  each_model,
  make_bundle,
  make_options,
  make_weights,
)

pytestmark = pytest.mark.unoptimized


def _agree(got: jax.Array, want: jax.Array, relative: float) -> None:
  """Per feature (..., F): the error against that feature's largest value."""
  scale = jnp.abs(want).max((0, 1)) + 1e-12
  np.testing.assert_allclose(got / scale, want / scale, atol=relative)


def test_tiles_end_when_all_their_rays_have_ended():
  options = make_options(False, False, interpret=True, tile_size=4, capacity=1 << 13)
  run = jax.jit(functools.partial(pallas.forward, options=options))
  _, residuals, overflow = run(make_bundle(options))
  assert int(overflow.max()) == 0
  assert int(residuals.walked.sum()) < int(residuals.lists.lengths.sum())


@pytest.mark.parametrize("tile_size", [16])
def test_other_tile_sizes(tile_size):
  options = make_options(False, False, interpret=True, tile_size=tile_size)
  bundle, weights = make_bundle(options, 1, 40, 0.1), make_weights(options, images=1)
  run = lambda name: composite_and_pull(bundle, weights, options=options, implementation=name)
  (channels, overflow, gradient), (want, _, want_gradient) = run("pallas"), run("reference")
  assert int(overflow.max()) == 0
  np.testing.assert_allclose(channels, want, atol=1e-5)
  _agree(gradient, want_gradient, 1e-4)


@pytest.mark.parametrize("tile_size", [1, 32])
def test_the_smallest_and_largest_tiles_lower(tile_size):
  """A column of one row, and tiles that take a whole warp, cannot be shared by lanes."""
  options = make_options(False, False, tile_size=tile_size)
  bundle = jax.eval_shape(lambda: make_bundle(options, 1, 40, 0.1))
  forward = jax.jit(lambda b: pallas.forward(b, options)[0])
  assert lower_for_cuda(forward, bundle).count("triton") >= 3


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
  options = make_options(flat, False, interpret=True, tile_size=tile_size, capacity=1 << 14)
  bundle = make_bundle(options, 3, size=size)
  lists = jax.jit(functools.partial(pallas_binning.bin_into_slots, options=options))(bundle)
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
  roomy = make_options(True, False, interpret=True, capacity=1 << 14)
  small = dataclasses.replace(roomy, capacity=300)
  bundle = make_bundle(roomy, 2)
  run = lambda options: pallas_binning.bin_into_slots(bundle, options)
  lists, want = run(small), run(roomy)
  assert (lists.lengths.sum(1) == 300).all()
  assert (lists.overflow == want.lengths.sum(1) - 300).all()
  for got, full in zip(_listed(lists, small), _listed(want, roomy), strict=True):
    assert got == full[: len(got)]


def test_lists_of_another_batch_give_no_gradient():
  options = make_options(False, False, interpret=True, tile_size=4)
  bundle, weights = make_bundle(options, 2, 30, 0.1), make_weights(options)
  channels, residuals, _ = jax.jit(functools.partial(pallas.forward, options=options))(bundle)
  swapped = jax.tree.map(lambda a: a[::-1], residuals)
  run = jax.jit(functools.partial(pallas.backward, options=options))
  gradient = run(bundle, swapped, channels, weights)
  assert jnp.isnan(gradient).all()


def test_tiles_are_taken_by_falling_work():
  work = jnp.array([[3, 0, 7, 7, 1], [0, 0, 0, 2, 1 << 30]])
  order = np.asarray(pallas._busiest_first(work))
  assert np.sort(order, -1).tolist() == [[0, 1, 2, 3, 4]] * 2
  taken = np.take_along_axis(np.asarray(work), order, -1)
  assert (np.diff(taken, axis=-1) <= 0).all()


@each_model
def test_lowers_for_cuda_without_a_gpu(flat, geometry):
  options = make_options(flat, geometry)
  bundle, weights = jax.eval_shape(lambda: (make_bundle(options), make_weights(options)))
  text = lower_for_cuda(
    composite_and_pull, bundle, weights, options=options, implementation="pallas"
  )
  assert text.count("triton") >= 3


@pytest.mark.gpu
@each_model
def test_compiled_kernels_equal_reference(flat, geometry):
  options = make_options(flat, geometry, width=150, height=90, capacity=1 << 16)
  bundle, weights = make_bundle(options, count=400, size=0.05), make_weights(options)
  run = lambda name: composite_and_pull(bundle, weights, options=options, implementation=name)
  (channels, overflow, gradient), (want, _, want_gradient) = run("pallas"), run("reference")
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
  options = make_options(flat, geometry, width=150, height=90, capacity=1 << 16)
  bundle, weights = make_bundle(options, count=400, size=0.05), make_weights(options)
  run = lambda: composite_and_pull(bundle, weights, options=options, implementation="pallas")
  for a, b in zip(jax.tree.leaves(run()), jax.tree.leaves(run()), strict=True):
    assert np.asarray(a).tobytes() == np.asarray(b).tobytes()
