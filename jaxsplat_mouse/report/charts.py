"""Charts of the report as SVG text. Their colours come from the page's style sheet."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from jaxsplat_mouse.report.statistics import Distribution, Throughput

_WIDTH, _HEIGHT = 320, 132
_LEFT, _RIGHT, _TOP, _BOTTOM = 8, 8, 20, 22
_BINS = 28


def histogram_svg(metric: Distribution, digits: int) -> str:
  """Draws the number of scenes by value of a metric, with a line at the median.

  Args:
    metric: its values, at least one.
    digits: decimals of the labels.
  """
  low, high = float(metric.values[0]), float(metric.values[-1])
  if high - low < 1e-9:
    low, high = low - 0.5 * 10**-digits, high + 0.5 * 10**-digits
  bins = int(np.clip(math.isqrt(len(metric.values)) * 2, 5, _BINS))
  counts, edges = np.histogram(metric.values, bins, (low, high))
  place = lambda v: _LEFT + (v - low) / (high - low) * (_WIDTH - _LEFT - _RIGHT)
  marks = [
    _bar(place(a), place(b), count / counts.max(), f"{a:.{digits}f} – {b:.{digits}f}: {count}")
    for a, b, count in zip(edges[:-1], edges[1:], counts, strict=True)
    if count
  ]
  median = metric.quantile(0.5)
  marks.append(_median_line(place(median), f"{median:.{digits}f}"))
  labels = [(place(v), f"{v:.{digits}f}") for v in _round_steps(low, high)]
  return _svg(marks, labels, f"histogram of {metric.name}")


def throughput_svg(throughput: Throughput, width: int = 680) -> str:
  """Draws scenes per minute over working time.

  A dotted line marks the mean rate, dashed vertical lines mark restarts.
  """
  edges, rates = throughput.edges, throughput.rates
  last, top = float(edges[-1]), float(rates.max())
  place = lambda minute: _LEFT + minute / last * (width - _LEFT - _RIGHT)
  marks = [
    _bar(place(a), place(b), rate / top, f"{a:.1f} – {b:.1f} min: {rate:.1f} scenes/min")
    for a, b, rate in zip(edges[:-1], edges[1:], rates, strict=True)
    if rate
  ]
  y = _TOP + (1 - min(throughput.per_minute / top, 1)) * (_HEIGHT - _TOP - _BOTTOM)
  marks.append(_line("mean", (_LEFT, width - _RIGHT), (y, y)))
  for x in map(place, throughput.restarts):
    marks.append(_line("restart", (x, x), (_TOP, _HEIGHT - _BOTTOM)))
  scale, unit = (60, "s") if last < 2 else (1, "min")
  steps = _round_steps(0, last * scale, 6)
  labels = [(place(v / scale), f"{v:g} {unit}") for v in steps]
  return _svg(marks, labels, "scenes per minute over working time", width)


def stage_shares(seconds: Mapping[str, float]) -> list[tuple[str, float, float]]:
  """Returns stage, seconds and percentage of the sum, for a stacked bar."""
  total = sum(seconds.values()) or 1.0
  return [(stage, value, 100 * value / total) for stage, value in seconds.items()]


def _line(kind: str, x: tuple[float, float], y: tuple[float, float]) -> str:
  """A line of a class of the style sheet, from (x[0], y[0]) to (x[1], y[1])."""
  return f'<line class="{kind}" x1="{x[0]:.1f}" x2="{x[1]:.1f}" y1="{y[0]:.1f}" y2="{y[1]:.1f}"/>'


def _bar(left: float, right: float, share: float, title: str) -> str:
  """A bar from left to right, filling a share of the height; the title shows under the mouse."""
  room = _HEIGHT - _TOP - _BOTTOM
  height = max(1.5, share * room)
  return (
    f'<rect class="bar" x="{left + 0.5:.1f}" y="{_TOP + room - height:.1f}" '
    f'width="{max(1.0, right - left - 1):.1f}" height="{height:.1f}" rx="1.5">'
    f"<title>{title}</title></rect>"
  )


def _median_line(x: float, label: str) -> str:
  """A vertical line with a label above it."""
  anchor = _anchor(x, _WIDTH, 40)
  return (
    _line("median", (x, x), (_TOP - 4, _HEIGHT - _BOTTOM))
    + f'<text class="value" x="{x:.1f}" y="{_TOP - 8}" text-anchor="{anchor}">{label}</text>'
  )


def _round_steps(low: float, high: float, most: int = 5) -> list[float]:
  """Returns round numbers from low to high in equal steps, at most `most` + 1 of them."""
  rough = (high - low) / most
  power = 10.0 ** math.floor(math.log10(rough))
  step = next(power * m for m in (1, 2, 2.5, 5, 10) if power * m >= rough * 0.999)
  first = math.ceil(low / step - 1e-9)
  return [i * step for i in range(first, math.floor(high / step + 1e-9) + 1)]


def _svg(
  marks: Sequence[str], labels: Sequence[tuple[float, str]], title: str, width: int = _WIDTH
) -> str:
  """A chart of marks over a horizontal axis with labels at their x."""
  axis = _HEIGHT - _BOTTOM
  texts = [
    f'<text x="{x:.1f}" y="{_HEIGHT - 6}" text-anchor="{_anchor(x, width)}">{text}</text>'
    for x, text in labels
  ]
  return "\n".join(
    [
      f'<svg viewBox="0 0 {width} {_HEIGHT}" role="img" aria-label="{title}">',
      _line("axis", (_LEFT, width - _RIGHT), (axis, axis)),
      *marks,
      *texts,
      "</svg>",
    ]
  )


def _anchor(x: float, width: int, margin: int = 20) -> str:
  """The alignment that keeps a text at x inside the chart."""
  return "start" if x < margin else "end" if x > width - margin else "middle"
