"""Losses against scikit-image, numpy and autodiff; masks and degenerate coverages."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.ndimage
import skimage.metrics

from jaxsplat_mouse import cameras, losses

pytestmark = pytest.mark.unoptimized


@pytest.fixture(scope="module")
def images():
  """A smooth image and a disturbed copy, (24, 30, 3): neither symmetric nor square."""
  rng = np.random.default_rng(0)
  y = scipy.ndimage.gaussian_filter(rng.random((24, 30, 3)), (2, 2, 0))
  y = ((y - y.min()) / (y.max() - y.min())).astype(np.float32)
  return np.clip(y + 0.1 * rng.normal(size=y.shape), 0, 1).astype(np.float32), y


@pytest.fixture(scope="module")
def observed():
  """Everything but a strip on the right and three rows on top, (24, 30)."""
  seen = np.ones((24, 30), np.float32)
  seen[:3] = seen[:, 22:] = 0
  return seen


def plain_ssim(x, y):
  """SSIM map by explicit windows, for autodiff."""

  def blur(image):
    window = np.exp(-0.5 * (np.arange(-5, 6) / 1.5) ** 2)
    window /= window.sum()
    height, width, _ = image.shape
    padded = jnp.pad(image, ((5, 5), (5, 5), (0, 0)))
    padded = sum(w * padded[i : i + height] for i, w in enumerate(window))
    return sum(w * padded[:, i : i + width] for i, w in enumerate(window))

  mx, my = blur(x), blur(y)
  vx, vy, covariance = blur(x * x) - mx**2, blur(y * y) - my**2, blur(x * y) - mx * my
  c1, c2 = 0.01**2, 0.03**2
  return (2 * mx * my + c1) * (2 * covariance + c2) / ((mx**2 + my**2 + c1) * (vx + vy + c2))


def masked_plain_ssim(x, y, observed):
  weights = jnp.broadcast_to(observed[..., None], x.shape)
  similarity = plain_ssim(jnp.where(weights > 0, x, y), y)
  return (similarity * weights).sum() / weights.sum()


def value_and_grad(loss, argnums=0):
  """Compiled as one: op by op, every operation of its own is compiled, which takes far longer."""
  return jax.jit(jax.value_and_grad(loss, argnums=argnums))


def relative_error(actual, expected):
  return float(jnp.abs(actual - expected).max() / jnp.abs(expected).max())


def test_ssim_equals_scikit_image_in_the_interior(images):
  x, y = images
  _, expected = skimage.metrics.structural_similarity(
    x, y, gaussian_weights=True, sigma=1.5, use_sample_covariance=False,
    data_range=1.0, channel_axis=-1, full=True,
  )  # fmt: skip
  inner = slice(5, -5)
  rows = x.reshape(24, -1), y.reshape(24, -1), losses.gaussian_blur(y).reshape(24, -1)
  similarity = jax.jit(lambda *rows: losses._ssim_map(*rows, 3)[0])(*rows).reshape(x.shape)
  np.testing.assert_allclose(similarity[inner, inner], expected[inner, inner], atol=2e-5)
  assert expected[inner, inner].min() < 0.8  # The comparison is not one of ones.


def test_ssim_window_reaches_five_pixels_and_keeps_channels_apart():
  image = np.zeros((15, 17, 3), np.float32)
  image[7, 8, 1] = 1.0
  window = np.array(losses.WINDOW)
  expected = np.zeros_like(image)
  expected[2:13, 3:14, 1] = window[:, None] * window
  np.testing.assert_allclose(jax.jit(losses.gaussian_blur)(image), expected, atol=1e-8)
  assert window.sum() == pytest.approx(1.0)


def test_ssim_value_and_gradient_equal_autodiff(images, observed):
  x, y = images
  value, gradient = value_and_grad(losses.structural_similarity)(x, y, observed)
  expected, expected_gradient = value_and_grad(masked_plain_ssim)(x, y, observed)
  assert float(value) == pytest.approx(float(expected), abs=1e-6)
  assert relative_error(gradient, expected_gradient) < 1e-5
  alone = jax.jit(losses.structural_similarity)(x, y, observed)
  assert float(alone) == pytest.approx(float(value), abs=1e-6)


def test_ssim_under_vmap_equals_a_loop(images, observed):
  x, y = images
  xs, ys = jnp.stack([x, y, x[::-1]]), jnp.stack([y, y, x])
  loss = value_and_grad(lambda x, y: 3.0 * losses.structural_similarity(x, y, observed))
  values, gradients = jax.vmap(loss)(xs, ys)
  for i in range(3):
    value, gradient = loss(xs[i], ys[i])
    assert float(values[i]) == pytest.approx(float(value), abs=1e-6)
    np.testing.assert_allclose(gradients[i], gradient, atol=1e-6)
  assert np.abs(gradients[0]).max() > 1e-3


def test_ssim_of_equal_images_is_one_without_gradient(images):
  flat = np.full_like(images[1], 0.9)  # Where var x = E[x²] - (E x)² is nothing but rounding.
  for image in (images[1], flat):
    value, gradient = value_and_grad(losses.structural_similarity)(image, image)
    assert float(value) == pytest.approx(1.0, abs=1e-6)
    assert np.abs(gradient).max() < 1e-6


@pytest.mark.parametrize("loss", [losses.l1, losses.structural_similarity])
def test_unobserved_colors_change_nothing(images, observed, loss):
  x, y = images
  spoiled = np.where(observed[..., None] > 0, x, np.nan).astype(np.float32)
  loss = value_and_grad(loss)
  value, gradient = loss(x, y, observed)
  other, other_gradient = loss(spoiled, y, observed)
  assert float(value) == float(other)
  np.testing.assert_array_equal(gradient, other_gradient)
  assert not np.any(gradient[observed == 0]) and np.any(gradient[observed > 0])


def test_unobserved_coverage_changes_nothing(images, observed):
  alpha, target = images[0][..., 0], images[1][..., 0]
  spoiled = np.where(observed > 0, alpha, np.nan).astype(np.float32)
  loss = jax.jit(jax.grad(losses.mask_l1))
  gradient = loss(alpha, target, observed)
  np.testing.assert_array_equal(gradient, loss(spoiled, target, observed))
  assert not np.any(gradient[observed == 0]) and np.any(gradient[observed > 0])


@pytest.mark.parametrize("loss", [losses.l1, losses.structural_similarity, losses.mask_l1])
def test_nothing_observed_is_zero(images, loss):
  x, y = images
  if loss is losses.mask_l1:
    x, y = x[..., 0], y[..., 0]
  value, gradient = value_and_grad(loss)(x, y, np.zeros((24, 30), np.float32))
  assert float(value) == 0.0
  assert not np.any(gradient)


def test_l1_is_a_mean_over_observed_pixels(images, observed):
  x, y = images
  seen = observed > 0
  difference = (x - y)[seen].astype(np.float64)
  assert float(losses.l1(x, y, observed)) == pytest.approx(np.abs(difference).mean(), rel=1e-5)


def test_regularizers_are_means_over_the_living():
  alive = np.array([True, False, True])
  assert float(losses.opacity_regularizer(np.array([0.2, 9, 0.4]), alive)) == pytest.approx(0.3)
  scales = np.array([[1.0, 2, 3], [9, 9, 9], [3, 4, 5]], np.float32)
  assert float(losses.scale_regularizer(scales, alive)) == pytest.approx(3.0)
  assert float(losses.scale_regularizer(scales, np.zeros(3, bool))) == 0.0
  gradient = jax.grad(losses.opacity_regularizer)(np.array([0.2, 9, 0.4], np.float32), alive)
  np.testing.assert_allclose(gradient, [0.5, 0.0, 0.5])


def test_distortion_is_a_mean_over_observed_pixels(observed):
  values = np.where(observed > 0, 2.0, np.nan).astype(np.float32)
  assert float(losses.distortion(values, observed)) == pytest.approx(2.0)


def sphere(radius=0.8, size=48, focal_scale=1.0):
  """Exact normal, depth and alpha of a sphere at the origin, off-centre and with fx unlike fy."""
  camera = cameras.generate_camera_poses(num_views=3, image_size=size)[1]
  intrinsics = camera.intrinsics * np.array([1.1, 0.9, 1.0, 1.0]) + np.array([0, 0, 3.0, -2.0])
  intrinsics[:2] *= focal_scale
  camera = cameras.Cameras(
    world_to_camera=camera.world_to_camera,
    intrinsics=intrinsics.astype(np.float32),
    width=size,
    height=size,
  )
  origin, directions = (np.asarray(a, np.float64) for a in cameras.pixel_rays(camera))
  a, b = (directions**2).sum(-1), directions @ origin
  discriminant = b * b - a * (origin @ origin - radius**2)
  hit = discriminant > 0
  depth = np.where(hit, (-b - np.sqrt(np.where(hit, discriminant, 0))) / a, 0)
  normal = np.where(hit[..., None], (origin + depth[..., None] * directions) / radius, 0)
  return [a.astype(np.float32) for a in (normal, depth, hit)], camera


def test_depth_normals_of_a_sphere_face_the_camera():
  (normal, depth, alpha), camera = sphere()
  valid = losses._erode(alpha > 0)
  actual = np.asarray(jax.jit(losses.depth_normals)(depth, camera, valid))
  assert not np.any(actual[~valid])
  cosine = (actual * normal).sum(-1)[scipy.ndimage.binary_erosion(alpha > 0, iterations=4)]
  assert cosine.size > 100
  assert cosine.min() > 0.99


@pytest.mark.parametrize("scale", [1.0, 1e-3])  # The scene's scale must not matter.
def test_normal_consistency_of_a_sphere(scale):
  (normal, depth, alpha), camera = sphere()
  loss = jax.jit(lambda *maps: losses.normal_consistency(*maps, camera))
  aligned = float(loss(normal, depth * scale, alpha))
  opposed = float(loss(-normal, depth * scale, alpha))
  faint = loss(0.5 * normal, depth * scale, 0.5 * alpha)
  valid = np.asarray(losses._erode(alpha > 0))
  assert 0 <= aligned < 0.01
  assert opposed == pytest.approx(2 * valid.mean(), rel=0.02)
  assert float(faint) == pytest.approx(0.5 * aligned, rel=1e-3)


def test_normal_consistency_gradients_are_finite_and_descend():
  (normal, depth, alpha), camera = sphere(size=24)
  rng = np.random.default_rng(1)
  rough = (depth * (1 + 0.01 * rng.normal(size=depth.shape))).astype(np.float32)
  loss = jax.jit(lambda *maps: losses.normal_consistency(*maps, camera))
  value, gradients = value_and_grad(loss, (0, 1, 2))(normal, rough, alpha)
  assert all(np.all(np.isfinite(g)) for g in gradients)
  assert np.any(gradients[1])
  assert not np.any(gradients[1][alpha == 0])
  assert float(loss(normal, rough - 1e-2 * gradients[1], alpha)) < float(value)
  step = 1e-3 * np.asarray(gradients[1]) / np.abs(gradients[1]).max()
  change = float(loss(normal, rough + step, alpha) - loss(normal, rough - step, alpha))
  assert change == pytest.approx(2 * float((gradients[1] * step).sum()), rel=0.02)


def test_normal_consistency_of_nothing_is_zero():
  (normal, depth, alpha), camera = sphere(size=24)
  loss = jax.jit(lambda *maps: losses.normal_consistency(*maps, camera))
  value, gradients = value_and_grad(loss, (0, 1, 2))(0 * normal, 0 * depth, 0 * alpha)
  assert float(value) == 0.0
  assert not any(np.any(g) for g in gradients)


def test_normal_consistency_ignores_unobserved_neighbours():
  (normal, depth, alpha), camera = sphere(size=24)
  seen = np.ones((24, 24), np.float32)
  seen[:, 13:] = 0
  broken = np.where(seen > 0, depth, 7.0).astype(np.float32)
  loss = jax.jit(lambda depth: losses.normal_consistency(normal, depth, alpha, camera, seen))
  assert float(loss(broken)) == float(loss(depth)) > 0


@pytest.mark.parametrize("loss", [losses.l1, losses.mask_l1])
def test_equal_images_pull_nowhere(images, loss):
  image = images[1] if loss is losses.l1 else images[1][..., 0]
  assert not np.any(jax.jit(jax.grad(loss))(image, image))
