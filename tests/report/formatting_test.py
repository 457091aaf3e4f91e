"""Metrics and sizes as text."""

from __future__ import annotations

import math

import pytest

from jaxsplat_mouse.report.formatting import (
  format_bytes,
  format_metric,
  lower_is_better,
  metric_title,
)


def test_metrics() -> None:
  assert format_metric("input_iou", 0.98765) == "0.988"
  assert format_metric("fg_psnr", 23.456) == "23.5"
  assert format_metric("fg_psnr", math.nan) == "–"
  assert format_metric("fg_psnr", 23.456, with_unit=True) == "23.5 dB"
  assert format_metric("quality_agreement", 31.25, with_unit=True) == "31.2 dB"
  assert format_metric("input_iou", 0.98765, with_unit=True) == "0.988"
  assert format_metric("never_heard_of", 0.5) == "0.500"
  assert metric_title("novel_fg_psnr") == "novel fg PSNR"


def test_the_direction_that_is_better() -> None:
  lower = ["novel_lpips", "quality_floaters", "quality_holes", "chamfer_distance"]
  higher = ["novel_fg_psnr", "input_iou", "quality_coverage", "never_heard_of"]
  assert all(map(lower_is_better, lower)) and not any(map(lower_is_better, higher))


@pytest.mark.parametrize(
  ("size", "text"), [(0, "0 B"), (999, "999 B"), (1.5e6, "1.5 MB"), (7.96e9, "7.96 GB")]
)
def test_sizes(size: float, text: str) -> None:
  assert format_bytes(size) == text
