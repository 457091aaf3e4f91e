"""Metrics and sizes as text for people."""

from __future__ import annotations

import math

_SPELLED = {"psnr": "PSNR", "iou": "IoU", "ssim": "SSIM", "lpips": "LPIPS", "mse": "MSE"}


def metric_title(name: str) -> str:
  """Returns `novel fg PSNR` for `novel_fg_psnr`."""
  return " ".join(_SPELLED.get(word, word) for word in name.split("_"))


def metric_digits(name: str) -> int:
  """Returns the number of meaningful decimals: one for dB, three for fractions."""
  return 1 if "psnr" in name else 3


def format_metric(name: str, value: float | None) -> str:
  """Returns a metric with its meaningful decimals, or a dash where there is no finite value."""
  if value is None or not math.isfinite(value):
    return "–"
  return f"{value:.{metric_digits(name)}f}"


def format_bytes(size: float) -> str:
  """Returns a size as `12.3 MB`, in powers of 1000."""
  for unit in ("B", "kB", "MB", "GB"):
    if size < 1000:
      return f"{size:.3g} {unit}"
    size /= 1000
  return f"{size:.3g} TB"
