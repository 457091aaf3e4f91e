"""One suite for the photometric implementations; the kernels against the XLA form of the losses.

`tests/losses_test.py` compares the latter with scikit-image and autodiff.
"""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsplat_mouse import losses
from jaxsplat_mouse.ops.photometric import pallas
from jaxsplat_mouse.ops.photometric.api import photometric
from tests.cuda_lowering import lower_for_cuda

each_implementation = pytest.mark.parametrize("implementation", ["xla", "pallas"])

# One strip and a part of the next in both directions, at 1 and 3 channels.
SHAPES = [(40, 30, 3), (20, 150, 1)]


@pytest.fixture
def small_window(monkeypatch):
  """Five taps for eleven, for compilation to take half as long."""
  monkeypatch.setattr(losses, "WINDOW", (0.1, 0.2, 0.4, 0.2, 0.1))
  monkeypatch.setattr(losses, "WINDOW_RADIUS", 2)


def _images(shape: tuple[int, ...], images: int = 2):
  """Renders, photographs that differ by noise in a corner, pixels of which a fifth is unseen."""
  keys = jax.random.split(jax.random.key(0), 3)
  x = jax.random.uniform(keys[0], (images, *shape))
  noise = jax.random.normal(keys[1], x.shape)
  corner = (jnp.arange(shape[0]) < 17)[:, None, None] & (jnp.arange(shape[1]) < 90)[:, None]
  y = jnp.clip(x + 0.2 * noise * corner, 0.0, 1.0)
  seen = (jax.random.uniform(keys[2], x.shape[:3]) > 0.2).astype(jnp.float32)
  return x, y, seen


def _loss(x, y, seen, **settings):
  """Both losses with weights of their own, by image; nested vmaps."""
  one = functools.partial(photometric, **settings)
  over = jax.vmap(one) if seen is not None else jax.vmap(lambda x, y: one(x, y))
  args = (x, y) if seen is None else (x, y, seen)
  l1, ssim = jax.vmap(over)(*(a[None] for a in args))
  weights = jnp.arange(1.0, len(x) + 1.0)
  return (0.8 * l1[0] * weights - 0.2 * ssim[0] * weights**2).sum(), (l1, ssim)


def _run(images, masked, **settings):
  x, y, seen = images
  run = jax.value_and_grad(functools.partial(_loss, **settings), has_aux=True)
  return jax.jit(run)(x, y, seen if masked else None)


def _compare(got, want):
  for a, b in zip(got[0][1], want[0][1], strict=True):
    np.testing.assert_allclose(a, b, atol=1e-6)
  np.testing.assert_allclose(got[1], want[1], atol=1e-5 * float(jnp.abs(want[1]).max()))


@pytest.mark.parametrize("shape, masked", [(SHAPES[0], True), (SHAPES[1], False)])
def test_interpreted_kernels_equal_xla(shape, masked, small_window):
  images = _images(shape)
  got = _run(images, masked, implementation="pallas", interpret=True)
  _compare(got, _run(images, masked, implementation="xla"))
  assert float(jnp.abs(got[1]).max()) > 0


def test_programs_that_see_no_difference_end_and_are_right(monkeypatch, small_window):
  """Far from any difference nothing is computed, and the sums count those pixels as equal."""
  monkeypatch.setattr(pallas, "_ROWS", 8)
  monkeypatch.setattr(pallas, "_COLUMNS", 16)
  images = _images((60, 120, 1), 1)
  got = _run(images, True, implementation="pallas", interpret=True)
  _compare(got, _run(images, True, implementation="xla"))
  assert not bool(got[1][:, 40:].any())


@each_implementation
def test_equal_images_give_one_and_no_gradient(implementation, small_window):
  y = _images((30, 20, 3), 1)[1]
  settings = dict(implementation=implementation, interpret=True)
  (_, (l1, ssim)), gradient = _run((y, y, None), False, **settings)
  assert float(ssim[0, 0]) == pytest.approx(1.0, abs=1e-6) and float(l1[0, 0]) == 0.0
  assert float(jnp.abs(gradient).max()) < 1e-6


@each_implementation
def test_unseen_pixels_change_nothing(implementation, small_window):
  x, y, seen = _images((20, 30, 3))
  spoiled = jnp.where(seen[..., None] > 0, x, jnp.nan)
  settings = dict(implementation=implementation, interpret=True)
  got, want = _run((spoiled, y, seen), True, **settings), _run((x, y, seen), True, **settings)
  np.testing.assert_array_equal(got[0][1], want[0][1])
  np.testing.assert_array_equal(got[1], want[1])
  assert not bool(got[1][seen == 0].any())


def test_unknown_implementation():
  with pytest.raises(ValueError, match="photometric"):
    photometric(jnp.zeros((4, 4, 3)), jnp.zeros((4, 4, 3)), implementation="cuda")


@pytest.mark.parametrize("masked", [False, True])
def test_lowers_for_cuda_without_a_gpu(masked):
  x, y, seen = jax.eval_shape(lambda: _images((512, 512, 3), 6))
  run = jax.value_and_grad(functools.partial(_loss, implementation="pallas"), has_aux=True)
  args = (x, y, seen) if masked else (x, y, None)
  text = lower_for_cuda(jax.jit(run), *args)
  assert text.count("custom_call @__gpu$xla.gpu.triton") == 2 or text.count("triton") >= 2


@pytest.mark.gpu
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("shape", [*SHAPES, (512, 512, 3)])
def test_compiled_kernels_equal_xla(shape, masked):
  images = _images(shape)
  got = _run(images, masked, implementation="pallas")
  _compare(got, _run(images, masked, implementation="xla"))
  again = _run(images, masked, implementation="pallas")
  for a, b in zip(jax.tree.leaves(got), jax.tree.leaves(again), strict=True):
    assert np.asarray(a).tobytes() == np.asarray(b).tobytes()
