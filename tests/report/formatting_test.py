"""Metrics and sizes as text."""

from __future__ import annotations

import math

import pytest

from jaxsplat_mouse.report.formatting import format_bytes, format_metric, metric_title


def test_metrics() -> None:
  assert format_metric("input_iou", 0.98765) == "0.988"
  assert format_metric("fg_psnr", 23.456) == "23.5"
  assert format_metric("fg_psnr", math.nan) == "–"
  assert metric_title("novel_fg_psnr") == "novel fg PSNR"


@pytest.mark.parametrize(
  ("size", "text"), [(0, "0 B"), (999, "999 B"), (1.5e6, "1.5 MB"), (7.96e9, "7.96 GB")]
)
def test_sizes(size: float, text: str) -> None:
  assert format_bytes(size) == text
