"""The SSIM kernels against the XLA form of the same sums."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsplat_mouse import losses, ssim_pallas

# One strip and a part of the next in both directions, at 1 and 3 channels.
SHAPES = [(70, 50, 3), (20, 150, 1)]

kernels = functools.partial(
  ssim_pallas.ssim_sum, window=losses.WINDOW, c1=losses.SSIM_C1, c2=losses.SSIM_C2
)


def _images(shape: tuple[int, ...], images: int = 2):
  """Renders, photographs that differ by noise, their blurs, pixels of which a fifth is unseen."""
  keys = jax.random.split(jax.random.key(0), 3)
  x = jax.random.uniform(keys[0], (images, *shape))
  y = jnp.clip(x + 0.2 * jax.random.normal(keys[1], x.shape), 0.0, 1.0)
  seen = (jax.random.uniform(keys[2], x.shape[:3]) > 0.2).astype(jnp.float32)
  return x, y, jax.vmap(losses.gaussian_blur)(y), seen


def _want(x, y, y_mean, seen):
  return jax.vmap(jax.value_and_grad(losses._ssim_sum))(x, y, y_mean, seen)


def _compare(got, want):
  np.testing.assert_allclose(got[0], want[0], rtol=1e-5)
  np.testing.assert_allclose(got[1], want[1], atol=1e-5 * float(jnp.abs(want[1]).max()))


@pytest.mark.parametrize("shape", SHAPES)
def test_interpreted_kernels_equal_xla(shape):
  images = _images(shape)
  got = jax.jit(jax.vmap(functools.partial(kernels, interpret=True)))(*images)
  _compare(got, jax.jit(_want)(*images))


def test_equal_images_give_one_and_no_gradient():
  _, y, y_mean, _ = _images((30, 20, 3), 1)
  seen = jnp.ones((1, 30, 20))
  total, gradient = jax.vmap(functools.partial(kernels, interpret=True))(y, y, y_mean, seen)
  assert float(total[0]) == 30 * 20 * 3
  assert not bool(gradient.any())


def test_lowers_for_cuda_without_a_gpu():
  shapes = jax.eval_shape(lambda: _images((512, 512, 3), 6))
  try:
    lowered = jax.jit(jax.vmap(kernels)).trace(*shapes).lower(lowering_platforms=("cuda",))
  except RuntimeError as error:
    if "No supported GPU" not in str(error):
      raise
    pytest.skip(f"this JAX lowers for CUDA only where there is a GPU: {error}")
  assert lowered.as_text().count("triton") >= 2


@pytest.mark.gpu
@pytest.mark.parametrize("shape", [*SHAPES, (512, 512, 3)])
def test_compiled_kernels_equal_xla(shape):
  images = _images(shape)
  run = jax.jit(jax.vmap(kernels))
  got = run(*images)
  _compare(got, jax.jit(_want)(*images))
  assert all(np.array_equal(a, b) for a, b in zip(got, run(*images), strict=True))
