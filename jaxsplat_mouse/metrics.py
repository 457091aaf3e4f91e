"""Scores of rendered views against the truth: PSNR over the animal, IoU of silhouettes, SSIM.

These are for reports, in NumPy and float64; `losses.py` has those that a fit descends. An animal
fills a few percent of a frame, so the background flatters PSNR and SSIM of the whole image:
`fg_psnr` and `iou` are the headlines.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np

NAMES = ("fg_psnr", "iou", "psnr", "ssim")
_FLOOR = 1e-10  # mean squared error of a perfect match: 100 dB
_WINDOW, _SIGMA = 11, 1.5


def on_white(rgba: np.ndarray) -> np.ndarray:
  """Composites straight RGBA (..., 4) in [0, 1] on white; returns float64 (..., 3)."""
  rgba = np.asarray(rgba, np.float64)
  return rgba[..., :3] * rgba[..., 3:] + (1.0 - rgba[..., 3:])


def to_decibel(mean_squared_error: float) -> float:
  """Returns -10 log10 of a mean squared error of values in [0, 1], at most 100 dB."""
  return float(-10.0 * np.log10(max(mean_squared_error, _FLOOR)))


def psnr(rendered: np.ndarray, target: np.ndarray) -> float:
  """Returns the PSNR in dB of two images of one shape, values in [0, 1], over all pixels."""
  return to_decibel(float(np.mean((np.asarray(rendered, np.float64) - target) ** 2)))


def fg_psnr(rendered: np.ndarray, target: np.ndarray) -> float:
  """Returns the PSNR in dB over the pixels where either alpha exceeds 0.5; NaN without any.

  Args:
    rendered: (H, W, 4) straight RGBA in [0, 1].
    target: likewise.
  """
  either = (rendered[..., 3] > 0.5) | (target[..., 3] > 0.5)
  if not either.any():
    return float("nan")
  return psnr(on_white(rendered)[either], on_white(target)[either])


def iou(rendered: np.ndarray, target: np.ndarray) -> float:
  """Returns the intersection over union of two alphas (H, W) above 0.5; NaN if both are empty."""
  a, b = np.asarray(rendered) > 0.5, np.asarray(target) > 0.5
  union = (a | b).sum()
  return float((a & b).sum() / union) if union else float("nan")


def ssim(rendered: np.ndarray, target: np.ndarray) -> float:
  """Returns the structural similarity (Wang et al. 2004) of images (H, W, C) in [0, 1].

  The window is a Gaussian of 11 pixels, sigma 1.5, with the population covariance; windows that
  reach past the image do not count. NaN where the image is smaller than the window.
  """
  x, y = np.asarray(rendered, np.float64), np.asarray(target, np.float64)
  if min(x.shape[:2]) < _WINDOW:
    return float("nan")
  windows = (x.shape[0] - _WINDOW + 1) * (x.shape[1] - _WINDOW + 1)
  box = _differing_box(x, y)
  if box is None:
    return 1.0
  x, y = x[box], y[box]
  mean_x, mean_y = _blur(x), _blur(y)
  var_x, var_y = _blur(x * x) - mean_x**2, _blur(y * y) - mean_y**2
  covariance = _blur(x * y) - mean_x * mean_y
  c1, c2 = 0.01**2, 0.03**2
  luminance = (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1)
  structure = (2 * covariance + c2) / (var_x + var_y + c2)
  lost = (1.0 - luminance * structure).sum() / x.shape[2]
  return float(1.0 - lost / windows)


def _differing_box(x: np.ndarray, y: np.ndarray) -> tuple[slice, slice] | None:
  """Returns rows and columns of all windows that contain a difference: others score exactly 1."""
  rows, columns = np.nonzero((x != y).any(-1))
  if len(rows) == 0:
    return None
  sides = []
  for index, size in ((rows, x.shape[0]), (columns, x.shape[1])):
    sides.append(slice(max(index.min() - _WINDOW + 1, 0), min(index.max() + _WINDOW, size)))
  return sides[0], sides[1]


def _blur(image: np.ndarray) -> np.ndarray:
  """Returns the Gaussian-weighted means of all whole windows, (H - 10, W - 10, C)."""
  offsets = np.arange(_WINDOW) - _WINDOW // 2
  weights = np.exp(-0.5 * (offsets / _SIGMA) ** 2)
  weights /= weights.sum()
  for axis in (0, 1):
    count = image.shape[axis] - _WINDOW + 1
    parts = [w * image.take(range(i, i + count), axis) for i, w in enumerate(weights)]
    image = np.sum(parts, 0)
  return image


def compare_view(rendered: np.ndarray, target: np.ndarray) -> dict[str, float]:
  """Returns all metrics of `NAMES` for one view, both straight RGBA (H, W, 4) in [0, 1].

  Raises:
    ValueError: the shapes differ.
  """
  if rendered.shape != target.shape:
    raise ValueError(f"rendered {rendered.shape} and target {target.shape} differ in shape")
  a, b = on_white(rendered), on_white(target)
  return {
    "fg_psnr": fg_psnr(rendered, target),
    "iou": iou(rendered[..., 3], target[..., 3]),
    "psnr": psnr(a, b),
    "ssim": ssim(a, b),
  }


def average(rows: Iterable[Mapping[str, float]]) -> dict[str, float]:
  """Returns the mean of each metric over the views where it is defined; empty without rows."""
  rows = list(rows)
  names = [name for name in NAMES if rows and name in rows[0]]
  columns = {name: np.array([row[name] for row in rows], np.float64) for name in names}
  return {
    name: float(column[~np.isnan(column)].mean()) if (~np.isnan(column)).any() else float("nan")
    for name, column in columns.items()
  }
