"""Metrics equal values computed by hand and by scikit-image."""

from __future__ import annotations

import math

import numpy as np
import pytest
from skimage.metrics import structural_similarity

from jaxsplat_mouse import metrics


def make_rgba(seed: int, height: int = 40, width: int = 33) -> np.ndarray:
  rng = np.random.default_rng(seed)
  rgba = rng.uniform(size=(height, width, 4))
  rgba[:10, :, 3] = 0.0
  rgba[20:30, 5:20, 3] = 1.0
  return rgba


def test_on_white_is_straight_alpha() -> None:
  pixel = np.array([0.2, 0.4, 0.6, 0.25])
  np.testing.assert_allclose(metrics.on_white(pixel), [0.8, 0.85, 0.9])


def test_psnr_of_a_known_error() -> None:
  a = np.zeros((4, 4, 3))
  assert metrics.psnr(a, a + 0.1) == pytest.approx(20.0)
  assert metrics.psnr(a, a) == pytest.approx(100.0)


def test_fg_psnr_counts_only_the_animal() -> None:
  target = np.zeros((20, 20, 4))
  target[:5, :, 3] = 1.0  # black, a quarter of the frame
  rendered = target.copy()
  rendered[:5, :, :3] = 0.1
  assert metrics.fg_psnr(rendered, target) == pytest.approx(20.0)
  whole = metrics.psnr(metrics.on_white(rendered), metrics.on_white(target))
  assert whole == pytest.approx(20.0 + 10 * math.log10(4))


def test_fg_psnr_counts_a_floater() -> None:
  """Alpha where the truth has none is part of the union."""
  target = np.zeros((20, 20, 4))
  target[:10, :, 3] = 1.0
  rendered = target.copy()
  rendered[10:, :, 3] = 1.0  # black on white
  assert metrics.fg_psnr(rendered, target) == pytest.approx(-10 * math.log10(0.5))
  assert metrics.iou(rendered[..., 3], target[..., 3]) == pytest.approx(0.5)


def test_nothing_to_see_is_nan_and_left_out_of_the_mean() -> None:
  empty = np.zeros((20, 20, 4))
  row = metrics.compare_view(empty, empty)
  assert math.isnan(row["fg_psnr"]) and math.isnan(row["iou"])
  full = metrics.compare_view(make_rgba(0), make_rgba(1))
  assert metrics.average([row, full])["fg_psnr"] == full["fg_psnr"]
  assert math.isnan(metrics.average([row])["iou"])
  assert metrics.average([]) == {}


@pytest.mark.parametrize("rows", [slice(None), slice(14, 15), slice(0, 3), slice(38, 40)])
def test_ssim_equals_scikit_image(rows: slice) -> None:
  """Also where the images differ in a few rows only, which alone are computed."""
  a, other = make_rgba(2)[..., :3], make_rgba(3)[..., :3]
  b = a.copy()
  b[rows, 2:30] = 0.7 * a[rows, 2:30] + 0.3 * other[rows, 2:30]
  expected = structural_similarity(
    a,
    b,
    channel_axis=-1,
    data_range=1.0,
    gaussian_weights=True,
    sigma=1.5,
    use_sample_covariance=False,
  )
  assert metrics.ssim(a, b) == pytest.approx(float(expected), abs=1e-9)
  assert metrics.ssim(a, a) == pytest.approx(1.0)
  assert math.isnan(metrics.ssim(a[:8], b[:8]))


def test_views_of_different_shape_are_refused() -> None:
  with pytest.raises(ValueError, match="differ in shape"):
    metrics.compare_view(make_rgba(0), make_rgba(0, height=41))
