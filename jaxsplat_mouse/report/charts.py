"""Charts of the report as SVG text; colours come from the page's style sheet."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from jaxsplat_mouse.report.statistics import Distribution, Speed

_WIDTH, _HEIGHT = 320, 132
_LEFT, _RIGHT, _TOP, _BOTTOM = 8, 8, 20, 22
_BINS = 28


def histogram(values: Distribution, digits: int) -> str:
  """Scenes by value of a metric; the line is the median."""
  low, high = float(values.values[0]), float(values.values[-1])
  if high - low < 1e-9:
    low, high = low - 0.5 * 10**-digits, high + 0.5 * 10**-digits
  bins = int(np.clip(math.isqrt(len(values.values)) * 2, 5, _BINS))
  counts, edges = np.histogram(values.values, bins, (low, high))
  place = lambda v: _LEFT + (v - low) / (high - low) * (_WIDTH - _LEFT - _RIGHT)
  marks = [
    _bar(place(a), place(b), count / counts.max(), f"{a:.{digits}f} – {b:.{digits}f}: {count}")
    for a, b, count in zip(edges[:-1], edges[1:], counts, strict=True)
    if count
  ]
  median = values.quantile(0.5)
  marks.append(_vertical(place(median), f"{median:.{digits}f}"))
  labels = [(place(v), f"{v:.{digits}f}") for v in _round_steps(low, high)]
  return _svg(marks, labels, f"histogram of {values.name}")


def speed(measured: Speed, width: int = 680) -> str:
  """Scenes a minute over working time; dashed lines are where a later run began."""
  last, top = float(measured.edges[-1]), float(measured.rates.max())
  place = lambda v: _LEFT + v / last * (width - _LEFT - _RIGHT)
  marks = [
    _bar(place(a), place(b), rate / top, f"{a:.1f} – {b:.1f} min: {rate:.1f} scenes/min")
    for a, b, rate in zip(measured.edges[:-1], measured.edges[1:], measured.rates, strict=True)
    if rate
  ]
  level = _TOP + (1 - min(measured.per_minute / top, 1)) * (_HEIGHT - _TOP - _BOTTOM)
  marks.append(
    f'<line class="mean" x1="{_LEFT}" x2="{width - _RIGHT}" y1="{level:.1f}" y2="{level:.1f}"/>'
  )
  marks += [
    f'<line class="begun" x1="{place(t):.1f}" x2="{place(t):.1f}" y1="{_TOP}" '
    f'y2="{_HEIGHT - _BOTTOM}"/>'
    for t in measured.runs
  ]
  short = last < 2
  scale, unit = (60, "s") if short else (1, "min")
  steps = _round_steps(0, last * scale, 6)
  labels = [(place(v / scale), f"{v:g} {unit}") for v in steps]
  return _svg(marks, labels, "scenes a minute over time", width)


def stages(seconds: Mapping[str, float]) -> list[tuple[str, float, float]]:
  """Stage, seconds and share of the whole in percent, for a stacked bar."""
  total = sum(seconds.values()) or 1.0
  return [(stage, value, 100 * value / total) for stage, value in seconds.items()]


def _bar(left: float, right: float, share: float, title: str) -> str:
  room = _HEIGHT - _TOP - _BOTTOM
  height = max(1.5, share * room)
  return (
    f'<rect class="bar" x="{left + 0.5:.1f}" y="{_TOP + room - height:.1f}" '
    f'width="{max(1.0, right - left - 1):.1f}" height="{height:.1f}" rx="1.5">'
    f"<title>{title}</title></rect>"
  )


def _vertical(x: float, label: str) -> str:
  anchor = "start" if x < 40 else "end" if x > _WIDTH - 40 else "middle"
  return (
    f'<line class="median" x1="{x:.1f}" x2="{x:.1f}" y1="{_TOP - 4}" y2="{_HEIGHT - _BOTTOM}"/>'
    f'<text class="value" x="{x:.1f}" y="{_TOP - 8}" text-anchor="{anchor}">{label}</text>'
  )


def _round_steps(low: float, high: float, most: int = 5) -> list[float]:
  """Round numbers from low to high, at most `most` + 1 of them."""
  rough = (high - low) / most
  power = 10.0 ** math.floor(math.log10(rough))
  step = next(power * m for m in (1, 2, 2.5, 5, 10) if power * m >= rough * 0.999)
  first = math.ceil(low / step - 1e-9)
  return [i * step for i in range(first, math.floor(high / step + 1e-9) + 1)]


def _svg(
  marks: Sequence[str], labels: Sequence[tuple[float, str]], title: str, width: int = _WIDTH
) -> str:
  axis = _HEIGHT - _BOTTOM
  texts = [
    f'<text x="{x:.1f}" y="{_HEIGHT - 6}" text-anchor="{_anchor(x, width)}">{text}</text>'
    for x, text in labels
  ]
  return "\n".join(
    [
      f'<svg viewBox="0 0 {width} {_HEIGHT}" role="img" aria-label="{title}">',
      f'<line class="axis" x1="{_LEFT}" x2="{width - _RIGHT}" y1="{axis}" y2="{axis}"/>',
      *marks,
      *texts,
      "</svg>",
    ]
  )


def _anchor(x: float, width: int) -> str:
  return "start" if x < 20 else "end" if x > width - 20 else "middle"
