"""The operation through `render`: batching, capacity, bad splats, filters, wrong arguments.

`implementations_test` compares the implementations with the reference.
"""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsplat_mouse.ops.rasterize.api import rasterize, suited
from jaxsplat_mouse.ops.rasterize.base import Options
from jaxsplat_mouse.projection import project
from jaxsplat_mouse.rendering import render
from tests.splat_fixtures import odd_cameras, random_gaussians

pytestmark = pytest.mark.unoptimized

CAPACITY = 1 << 12


@functools.partial(jax.jit, static_argnames=("implementation", "geometry"))
def _loss(gaussians, cameras, weights, implementation, geometry=True):
  """A random functional of every output, over two views."""
  run = functools.partial(
    render,
    implementation=implementation,
    geometry=geometry,
    capacity=CAPACITY,
    background=jnp.array([0.2, 0.5, 0.9]),
  )
  out = jax.vmap(lambda camera: run(gaussians, camera))(cameras)
  fields = [out.rgb, out.alpha, out.depth, out.median_depth, out.normal, 100 * out.distortion]
  keys = jax.random.split(weights, len(fields))
  total = sum((f * jax.random.normal(k, f.shape)).sum() for f, k in zip(fields, keys, strict=True))
  return total, out


_gradient = jax.jit(
  jax.value_and_grad(_loss, argnums=(0, 1), has_aux=True, allow_int=True),
  static_argnames=("implementation", "geometry"),
)


def test_nested_vmap_equals_loop():
  """Scenes with their own splats and cameras, two vmaps deep, as one by one.

  Not bitwise on a CPU: LLVM contracts multiply-adds differently in loops of different length.
  """
  scenes = [random_gaussians(True, 30, seed) for seed in range(3)]
  rigs = [
    dataclasses.replace(odd_cameras(), intrinsics=odd_cameras().intrinsics + shift)
    for shift in (0.0, 2.0, -3.0)
  ]
  run = functools.partial(render, implementation="xla", capacity=CAPACITY)
  views = jax.vmap(run, in_axes=(None, 0))
  stack = lambda items: jax.tree.map(lambda *a: jnp.stack(a), *items)
  batched = jax.jit(jax.vmap(views))(stack(scenes), stack(rigs))
  single = jax.jit(run)
  for i, (scene, rig) in enumerate(zip(scenes, rigs, strict=True)):
    for j in range(2):
      want = single(scene, rig[j])
      for name in vars(want):
        np.testing.assert_allclose(
          getattr(batched, name)[i, j], getattr(want, name), atol=2e-6, rtol=5e-5, err_msg=name
        )


def test_gradient_of_batch_equals_loop():
  scenes = [random_gaussians(False, 30, seed) for seed in range(2)]
  camera = odd_cameras()[0]

  def loss(gaussians):
    return (render(gaussians, camera, implementation="xla", capacity=CAPACITY).rgb ** 2).sum()

  batch = jax.tree.map(lambda *a: jnp.stack(a), *scenes)
  batched = jax.jit(jax.vmap(jax.grad(loss)))(batch)
  single = jax.jit(jax.grad(loss))
  for i, scene in enumerate(scenes):
    for name, want in vars(single(scene)).items():
      atol = 1e-5 * float(jnp.abs(want).max())
      np.testing.assert_allclose(getattr(batched, name)[i], want, atol=atol, err_msg=name)


def test_overflow_is_counted_and_drops_the_farthest():
  gaussians, camera = random_gaussians(False, 60), odd_cameras()[0]
  splats = project(gaussians, camera)
  options = Options(width=camera.width, height=camera.height, flat=False, capacity=CAPACITY)
  whole = rasterize(splats, options, "xla")
  tight = rasterize(splats, dataclasses.replace(options, capacity=200), "xla")
  assert int(whole.overflow) == 0
  assert int(tight.overflow) > 0
  # What is dropped lies behind: where the nearest splats are opaque the image is the same.
  assert float(tight.transmittance.min()) >= float(whole.transmittance.min()) - 1e-6
  assert bool((tight.transmittance >= whole.transmittance - 1e-6).all())


def _degenerate(flat: bool, count: int):
  """Splats with zero quaternions, zero and huge sizes, NaN-prone places, edge-on discs."""
  keys = jax.random.split(jax.random.key(3), 3)
  g = random_gaussians(flat, count)
  extreme = lambda key, shape, values: jax.random.choice(key, jnp.array(values), shape)
  quats = jnp.where((jnp.arange(count) % 3 == 0)[:, None], 0.0, g.quats)
  eye = odd_cameras()[0].centers
  means = jnp.where((jnp.arange(count) % 5 == 0)[:, None], eye, g.means)
  means = jnp.where((jnp.arange(count) % 7 == 0)[:, None], 3.0 * eye, means)
  return dataclasses.replace(
    g,
    means=means,
    quats=quats,
    log_scales=extreme(keys[0], g.log_scales.shape, [-60.0, -8.0, -3.0, 0.0, 4.0, 30.0]),
    logit_opacities=extreme(keys[1], (count,), [-90.0, -5.0, 0.0, 8.0, 90.0]),
  )


@pytest.mark.parametrize("flat", [False, True])
@pytest.mark.parametrize("implementation", ["reference", "xla"])
def test_degenerate_splats_leave_no_nan(flat, implementation):
  gaussians = _degenerate(flat, 60)
  (value, out), gradient = _gradient(
    gaussians, odd_cameras(), jax.random.key(1), implementation, True
  )
  assert np.isfinite(float(value))
  for leaf in jax.tree.leaves((out, gradient)):
    assert bool(jnp.isfinite(leaf).all())


@pytest.mark.parametrize("flat", [False, True])
def test_finite_differences_in_float64(flat):
  """The reference's gradient against central differences, on splats away from the thresholds."""
  with jax.enable_x64(True):
    cast = lambda tree: jax.tree.map(lambda a: jnp.asarray(a, jnp.float64), tree)
    gaussians = cast(random_gaussians(flat, 6, size=0.25, sh_coefficients=1))
    camera = cast(odd_cameras()[0])

    def loss(gaussians):
      out = render(gaussians, camera, implementation="reference", geometry=True)
      return (out.rgb * jnp.sin(jnp.arange(3.0))).sum() + 0.1 * out.depth.sum()

    gradient = jax.jit(jax.grad(loss))(gaussians)
    value = jax.jit(loss)
    leaves, tree = jax.tree.flatten(gaussians)
    rng = np.random.default_rng(0)
    for index in range(len(leaves)):
      direction = jnp.asarray(rng.normal(size=leaves[index].shape))
      moved = lambda h, i=index, d=direction: jax.tree.unflatten(
        tree, [leaf + h * d if k == i else leaf for k, leaf in enumerate(leaves)]
      )
      # Pixels flip across alpha = 1/255 by steps of 1/255; the median over step sizes ignores them.
      slopes = [(value(moved(h)) - value(moved(-h))) / (2 * h) for h in (3e-7, 1e-7, 1e-6)]
      want = float((jax.tree.leaves(gradient)[index] * direction).sum())
      assert float(np.median(slopes)) == pytest.approx(want, rel=1e-3, abs=1e-3)


def test_small_tiles_where_keys_hold_their_numbers():
  options = Options(width=384, height=288, flat=False, capacity=160_000)
  small = suited(options, "xla")
  assert (small.tile_size, small.capacity) == (4, 240_000)
  large = dataclasses.replace(options, width=1024, height=1024)
  assert suited(large, "xla") == large
  assert suited(options, "pallas") == suited(options, "reference") == options


def test_wrong_arguments_are_refused():
  camera = odd_cameras()[0]
  splats = project(random_gaussians(True, 4), camera)
  options = Options(width=8, height=8, flat=False)
  with pytest.raises(ValueError, match="flat"):
    rasterize(splats, options, "xla")
  with pytest.raises(ValueError, match="implementation"):
    rasterize(splats, dataclasses.replace(options, flat=True), "cuda")


@pytest.mark.parametrize("flat", [False, True])
def test_a_filter_of_the_photographs_looks_the_same_in_coarser_pixels(flat):
  """Of splats as thin as pixels, at a third of the resolution, against the mean over 3x3 pixels."""
  gaussians = random_gaussians(flat, 40)
  thin = jnp.log(jnp.array([0.02, 0.004] + [0.004] * (not flat)))
  gaussians = dataclasses.replace(
    gaussians, log_scales=jnp.broadcast_to(thin, gaussians.log_scales.shape)
  )
  fine, coarse = (jax.tree.map(jnp.asarray, odd_cameras()[0].resized(s, s)) for s in (96, 32))
  width = 0.5 * float(fine.footprints)
  see = lambda camera, width: (
    render(
      gaussians, camera, filter_width=width, geometry=False, implementation="xla", capacity=CAPACITY
    ).alpha
  )
  truth = see(fine, width).reshape(32, 3, 32, 3).mean((1, 3))
  same, papers = (float(jnp.abs(see(coarse, w) - truth).mean()) for w in (width, None))
  assert same < 0.5 * papers


@pytest.mark.parametrize("flat", [False, True])
def test_xla_equals_reference_with_another_filter(flat):
  gaussians, camera = random_gaussians(flat), odd_cameras()[0]

  def run(name):
    see = lambda g: render(
      g, camera, filter_width=2.0 * camera.footprints, implementation=name, capacity=CAPACITY
    )
    loss = lambda g: (see(g).rgb ** 2).sum() + see(g).depth.sum()
    return jax.jit(jax.value_and_grad(loss))(gaussians)

  (want, want_gradient), (got, got_gradient) = run("reference"), run("xla")
  assert float(got) == pytest.approx(float(want), rel=1e-5)
  for name, expected in vars(want_gradient).items():
    scale = float(jnp.abs(expected).max()) + 1e-12
    np.testing.assert_allclose(
      getattr(got_gradient, name) / scale, expected / scale, atol=1e-4, err_msg=name
    )
