"""Losses of one rendered image; callers map them over views and scenes.

Notation: x is the render and y the photograph, (H, W, 3) in [0, 1]; `observed` (H, W) in {0, 1}
marks the pixels that the camera really saw (None: all of them). Images are cropped and padded to
one size, so a pixel may be unknown rather than background: it takes part in no mean and receives no
gradient, whatever it holds. Every mean is over the observed pixels, and 0 where there are none.

Targets (y, masks) are constants of a fit: `structural_similarity` passes no gradient to them.
Scores for reports, in float64, are in `metrics`.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
from jax import lax

from jaxsplat_mouse.cameras import Cameras, pixel_rays
from jaxsplat_mouse.math import safe_normalize

SSIM_C1 = 0.01**2
SSIM_C2 = 0.03**2
WINDOW_RADIUS = 5
WINDOW_SIGMA = 1.5


def _gaussian_window() -> tuple[float, ...]:
  """The 11 weights of the SSIM window, which sum to 1."""
  offsets = range(-WINDOW_RADIUS, WINDOW_RADIUS + 1)
  weights = [math.exp(-0.5 * (i / WINDOW_SIGMA) ** 2) for i in offsets]
  return tuple(weight / sum(weights) for weight in weights)


WINDOW = _gaussian_window()


def l1(x: jax.Array, y: jax.Array, observed: jax.Array | None = None) -> jax.Array:
  """Mean absolute difference () of two images (H, W, C).

  Args:
    x: the render.
    y: the photograph.
    observed: (H, W), see the module.
  """
  return _observed_mean(_absolute(hide(x, y, observed) - y).mean(-1), observed)


def mask_l1(alpha: jax.Array, target: jax.Array, observed: jax.Array | None = None) -> jax.Array:
  """Mean absolute difference () of a coverage and its silhouette.

  Args:
    alpha: (H, W) rendered coverage.
    target: (H, W) silhouette in [0, 1].
    observed: (H, W), see the module.
  """
  return _observed_mean(_absolute(hide(alpha, target, observed) - target), observed)


def distortion(distortion_map: jax.Array, observed: jax.Array | None = None) -> jax.Array:
  """Mean () of a rendered depth distortion map (H, W) (Huang et al. 2024, eq. 13)."""
  return _observed_mean(hide(distortion_map, 0.0, observed), observed)


def normal_consistency(
  normal: jax.Array,
  depth: jax.Array,
  alpha: jax.Array,
  camera: Cameras,
  observed: jax.Array | None = None,
  min_alpha: float = 0.1,
) -> jax.Array:
  """Mean () of sum_i w_i (1 - n_i . N) = alpha - normal . N (Huang et al. 2024, eq. 14, 15).

  N is the normal of the rendered depth: the normalised cross product of the central differences of
  the depth map's points in space. A pixel contributes nothing where it or one of its four
  neighbours is empty, unobserved or outside the image; it still counts in the mean, so the term's
  weight against the others does not depend on the crop.

  Args:
    normal: (H, W, 3) blended world normals sum_i w_i n_i that face the camera.
    depth: (H, W) camera z, world units; 0 where empty.
    alpha: (H, W) coverage sum_i w_i.
    camera: one camera.
    observed: (H, W), see the module.
    min_alpha: coverage below which a pixel is empty, its depth being too uncertain.
  """
  filled = (alpha > min_alpha) & (depth > 0)
  if observed is not None:
    filled &= observed > 0
  valid = _erode(filled)
  agreement = (normal * depth_normals(depth, camera, valid)).sum(-1)
  return _observed_mean(jnp.where(valid, alpha - agreement, 0.0), observed)


def depth_normals(depth: jax.Array, camera: Cameras, valid: jax.Array) -> jax.Array:
  """Unit world normals (H, W, 3) of a depth map, facing the camera.

  With points p = d r along rays r, cross(dp/dy, dp/dx) . p = d^3 det(r_y, r_x, r) < 0 whatever the
  depths, and the same holds for central differences: no normal ever has to be flipped.

  Args:
    depth: (H, W) camera z, world units; 0 where empty.
    camera: one camera.
    valid: (H, W) where to compute a normal; elsewhere it is 0.
  """
  _, rays = pixel_rays(camera)
  # Empty pixels take part with depth 1, so that no gradient is lost in a 0/0. The camera's centre
  # cancels in the differences.
  point = jnp.where(depth > 0, depth, 1.0) * jnp.moveaxis(rays, -1, 0)
  # In units of the pixel's own footprint the differences are near 1 at any scale of the scene.
  footprint = jnp.where(valid, lax.stop_gradient(depth), 1.0)[1:-1, 1:-1]
  dx = (point[:, 1:-1, 2:] - point[:, 1:-1, :-2]) * (0.5 * camera.intrinsics[0] / footprint)
  dy = (point[:, 2:, 1:-1] - point[:, :-2, 1:-1]) * (0.5 * camera.intrinsics[1] / footprint)
  cross = [dy[i - 2] * dx[i - 1] - dy[i - 1] * dx[i - 2] for i in range(3)]
  normals = safe_normalize(jnp.stack(cross, -1))
  return jnp.where(valid[..., None], jnp.pad(normals, ((1, 1), (1, 1), (0, 0))), 0.0)


def opacity_regularizer(opacities: jax.Array, alive: jax.Array) -> jax.Array:
  """Mean opacity (N,) of the Gaussians that are alive (N,) (Kheradmand et al. 2024, eq. 11)."""
  return _weighted_mean(opacities, alive)


def scale_regularizer(scales: jax.Array, alive: jax.Array) -> jax.Array:
  """Mean scale (N, D), world units, of the Gaussians that are alive (N,) (ibid.)."""
  return _weighted_mean(scales.mean(-1), alive)


def structural_similarity(
  x: jax.Array, y: jax.Array, observed: jax.Array | None = None
) -> jax.Array:
  """Mean structural similarity () of images (H, W, C) in [0, 1] (Wang et al. 2004, eq. 13).

  Gaussian window of 11 pixels, sigma 1.5, zeros beyond the image, population covariance. In the
  windows of observed pixels the unobserved ones count as equal in both images.

  Args:
    x: the render; the only argument that receives a gradient.
    y: the photograph.
    observed: (H, W), see the module.
  """
  seen = jnp.ones(x.shape[:2]) if observed is None else (observed > 0).astype(jnp.float32)
  y = lax.stop_gradient(y)
  y_mean = gaussian_blur(y)
  total = _ssim_sum(hide(x, y, observed), y, y_mean, seen)
  return total / (jnp.maximum(seen.sum(), 1.0) * x.shape[2])


@jax.custom_vjp
def _ssim_sum(x: jax.Array, y: jax.Array, y_mean: jax.Array, seen: jax.Array) -> jax.Array:
  """Sum of the SSIM map of images (H, W, C) over the pixels with seen = 1 (H, W)."""
  similarity, _ = _ssim_map(_as_rows(x), _as_rows(y), _as_rows(y_mean), x.shape[2])
  return _dot(similarity, _spread(seen, x.shape[2]))


def _ssim_sum_forward(
  x: jax.Array, y: jax.Array, y_mean: jax.Array, seen: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """The value, and its gradient as the only residual: the cotangent of a sum is one number."""
  shape, step, seen = x.shape, x.shape[2], _spread(seen, x.shape[2])
  x, y, y_mean = map(_as_rows, (x, y, y_mean))
  similarity, partials = _ssim_map(x, y, y_mean, step)
  # The window is symmetric, so the blur is its own transpose.
  by_mean, by_square, by_product = (_blur_rows(partial * seen, step) for partial in partials)
  gradient = by_mean + 2.0 * (x - y) * by_square + y * by_product
  return _dot(similarity, seen), gradient.reshape(shape)


def _ssim_sum_backward(
  gradient: jax.Array, cotangent: jax.Array
) -> tuple[jax.Array, None, None, None]:
  return cotangent * gradient, None, None, None


_ssim_sum.defvjp(_ssim_sum_forward, _ssim_sum_backward)


def _ssim_map(
  x: jax.Array, y: jax.Array, y_mean: jax.Array, step: int
) -> tuple[jax.Array, tuple[jax.Array, jax.Array, jax.Array]]:
  """Returns `similarity_map` of images as rows (H, W C)."""
  d = x - y
  d_mean, d_squares = _blur_rows(d, step), _blur_rows(d * d, step)
  return similarity_map(d_mean, d_squares, _blur_rows(x * y, step), y_mean)


def similarity_map(
  d_mean: jax.Array, d_squares: jax.Array, product: jax.Array, y_mean: jax.Array
) -> tuple[jax.Array, tuple[jax.Array, jax.Array, jax.Array]]:
  """Returns the SSIM map and its derivatives in the first three arguments.

  Luminance and contrast are written as 1 - (mean d)² / A and 1 - (var d) / B. That takes three
  blurs besides the target's, and equal images give exactly 1 and no gradient, where
  var x + var y - 2 cov(x, y) would be rounding noise on flat colours. The Pallas kernels call this
  too.

  Args:
    d_mean: the windows' mean of d = x - y, of any shape, as all arguments.
    d_squares: of d².
    product: of x y.
    y_mean: of y.
  """
  x_mean = y_mean + d_mean
  luminance = 2.0 * x_mean * y_mean + SSIM_C1
  contrast = 2.0 * (product - x_mean * y_mean) + SSIM_C2
  mean_squared = d_mean * d_mean
  variance = d_squares - mean_squared
  a, b = 1.0 / (luminance + mean_squared), 1.0 / (contrast + variance)
  kept_luminance, lost_contrast = 1.0 - mean_squared * a, variance * b
  similarity = kept_luminance * (1.0 - lost_contrast)
  slope = (contrast - luminance) * (x_mean * (1.0 - similarity) - d_mean)
  slope += x_mean * similarity * (mean_squared - variance)
  return similarity, (
    2.0 * slope * a * b,
    -similarity * b,
    2.0 * kept_luminance * lost_contrast * b,
  )


def gaussian_blur(image: jax.Array) -> jax.Array:
  """Convolves an image (H, W, C) with the SSIM window; beyond its border it is 0."""
  return _blur_rows(_as_rows(image), image.shape[2]).reshape(image.shape)


def _blur_rows(rows: jax.Array, step: int) -> jax.Array:
  """`gaussian_blur` of rows (H, W C), in which neighbouring pixels are `step` = C elements apart.

  So no axis is transposed, and every inner loop runs over contiguous memory.
  """
  return _weigh(_weigh(rows, 0, 1), 1, step)


def _weigh(rows: jax.Array, axis: int, step: int) -> jax.Array:
  """Window-weighted sums of `rows` over neighbours along `axis` that are `step` elements apart."""
  size, reach = rows.shape[axis], WINDOW_RADIUS * step
  padding = [(0, 0, 0), (0, 0, 0)]
  padding[axis] = (reach, reach, 0)
  # XLA would otherwise fuse the padding and what comes before it into the sum and evaluate it once
  # per tap, with a branch in the inner loop: measured 5 times slower on a CPU.
  padded = lax.optimization_barrier(lax.pad(lax.optimization_barrier(rows), 0.0, padding))
  at = lambda i: lax.slice_in_dim(padded, i * step, i * step + size, axis=axis)
  total = WINDOW[WINDOW_RADIUS] * at(WINDOW_RADIUS)
  for i in range(WINDOW_RADIUS):
    total += WINDOW[i] * (at(i) + at(2 * WINDOW_RADIUS - i))
  return lax.optimization_barrier(total)


def _as_rows(image: jax.Array) -> jax.Array:
  """An image (H, W, C) as rows (H, W C)."""
  return image.reshape(image.shape[0], -1)


def _spread(weights: jax.Array, channels: int) -> jax.Array:
  """Weights (H, W) as rows (H, W C)."""
  return jnp.repeat(weights, channels, axis=1)


def _dot(rows: jax.Array, weights: jax.Array) -> jax.Array:
  """Sum of rows * weights, both (H, N).

  Dot products of single rows: XLA's CPU compiler would fuse all that comes before a plain sum into
  it, the blurs' taps included (measured 15 times slower).
  """
  return jnp.einsum("hn,hn->h", rows, weights, precision="highest").sum()


def _absolute(x: jax.Array) -> jax.Array:
  """|x| with the gradient 0 at 0, where that of `jnp.abs` is 1."""
  return x * lax.stop_gradient(jnp.sign(x))


def _erode(mask: jax.Array) -> jax.Array:
  """Whether a pixel (H, W) and its four neighbours are all set; False along the border."""
  inside = mask[1:-1, 1:-1] & mask[1:-1, 2:] & mask[1:-1, :-2] & mask[2:, 1:-1] & mask[:-2, 1:-1]
  return jnp.pad(inside, 1)


def hide(x: jax.Array, y: jax.Array | float, observed: jax.Array | None) -> jax.Array:
  """Returns x with y in its place where it is not observed: equal there, whatever x holds.

  Args:
    x: (H, W, ...) render.
    y: likewise, or a number.
    observed: (H, W), see the module.
  """
  if observed is None:
    return x
  seen = observed > 0
  return jnp.where(seen[..., None] if x.ndim > seen.ndim else seen, x, y)


def _observed_mean(values: jax.Array, observed: jax.Array | None) -> jax.Array:
  """Mean of `values` (H, W), which are finite, over the observed pixels."""
  return values.mean() if observed is None else _weighted_mean(values, observed)


def _weighted_mean(values: jax.Array, weights: jax.Array) -> jax.Array:
  """Mean of `values` with weights in {0, 1}; 0 without any."""
  return (values * weights).sum() / jnp.maximum(weights.sum(), 1)
