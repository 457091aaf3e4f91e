"""Metrics and sizes as text; one table holds the title, unit, decimals and direction of metrics."""

from __future__ import annotations

import dataclasses
import math


@dataclasses.dataclass(frozen=True)
class _Style:
  title: str = ""
  unit: str = ""
  digits: int = 3
  lower_is_better: bool = False


# By a word of the metric's name: `novel_fg_psnr` takes the style of `psnr`.
_STYLES = {
  "psnr": _Style("PSNR", "dB", digits=1),
  "agreement": _Style("agreement", "dB", digits=1),
  "iou": _Style("IoU"),
  "ssim": _Style("SSIM"),
  "lpips": _Style("LPIPS", lower_is_better=True),
  "mse": _Style("MSE", lower_is_better=True),
} | {
  word: _Style(word, lower_is_better=True)
  for word in ("error", "chamfer", "hausdorff", "distance", "leak", "floaters", "holes")
}


def metric_title(name: str) -> str:
  """Returns `novel fg PSNR` for `novel_fg_psnr`."""
  return " ".join(_STYLES[word].title if word in _STYLES else word for word in name.split("_"))


def metric_unit(name: str) -> str:
  """Returns `dB`, or nothing for a metric without a unit."""
  return _style(name).unit


def metric_digits(name: str) -> int:
  """Returns the number of meaningful decimals: one for dB, three for fractions."""
  return _style(name).digits


def lower_is_better(name: str) -> bool:
  """Returns whether a small value of a metric is a good one."""
  return _style(name).lower_is_better


def format_metric(name: str, value: float | None, *, with_unit: bool = False) -> str:
  """Returns a metric with its meaningful decimals, or a dash where there is no finite value.

  Args:
    name: of the metric.
    value: of the metric.
    with_unit: whether the unit follows, as in `23.5 dB`.
  """
  if value is None or not math.isfinite(value):
    return "–"
  unit = f" {metric_unit(name)}" if with_unit and metric_unit(name) else ""
  return f"{value:.{metric_digits(name)}f}{unit}"


def format_bytes(size: float) -> str:
  """Returns a size as `12.3 MB`, in powers of 1000."""
  for unit in ("B", "kB", "MB", "GB"):
    if size < 1000:
      return f"{size:.3g} {unit}"
    size /= 1000
  return f"{size:.3g} TB"


def _style(name: str) -> _Style:
  """The style of the last word that has one."""
  return next((_STYLES[word] for word in reversed(name.split("_")) if word in _STYLES), _Style())
