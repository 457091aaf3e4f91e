"""Charts of the check sheet as SVG text: agreement of each camera, contradictions over time."""

from __future__ import annotations

import html
from collections.abc import Sequence

import numpy as np

_WIDTH, _ROW, _NAME = 340, 22, 92
_LOWEST = 0.5  # agreement at the left end of the axis, where none is lower
_PLOT_HEIGHT, _LEFT, _BOTTOM, _TOP = 96, 26, 18, 8
_FLOOR = 1.0  # pixels, the least height of the contradiction axis


def agreement_svg(
  names: Sequence[str], before: np.ndarray | None, after: np.ndarray, wanted: float
) -> str:
  """Draws how well each camera's silhouettes agree with the common solid, before and after.

  Args:
    names: V names.
    before: (V,) IoU under the given cameras; None where these are in use.
    after: (V,) IoU under the cameras in use.
    wanted: the agreement that is expected, a line.
  """
  known = np.concatenate([after, before if before is not None else after])
  lowest = min(_LOWEST, float(np.floor(np.nanmin(known) * 10) / 10))
  height = _ROW * len(names) + 22
  place = lambda iou: _NAME + (iou - lowest) / (1 - lowest) * (_WIDTH - _NAME - 12)
  marks = [_line("wanted", place(wanted), place(wanted), 4, height - 18)]
  for row, name in enumerate(names):
    y = _ROW * row + 14
    marks.append(f'<text class="name" x="0" y="{y + 4}">{html.escape(_short(name))}</text>')
    marks.append(_line("track", _NAME, _WIDTH - 12, y, y))
    if before is not None:
      marks.append(_line("gain", place(before[row]), place(after[row]), y, y))
      marks.append(_dot("before", place(before[row]), y, f"{name} before: {before[row]:.2f}"))
    kind = "after" if after[row] >= wanted else "after bad"
    marks.append(_dot(kind, place(after[row]), y, f"{name}: {after[row]:.2f}"))
  for value in (lowest, wanted, 1.0):
    anchor = {lowest: "start", 1.0: "end"}.get(value, "middle")
    marks.append(
      f'<text x="{place(value):.1f}" y="{height - 4}" text-anchor="{anchor}">{value:g}</text>'
    )
  return _svg(height, marks, "agreement of silhouettes by camera")


def contradiction_svg(
  moments: Sequence[int], before: np.ndarray, after: np.ndarray, highest: float, corrected: bool
) -> str:
  """Draws by how many pixels one camera contradicts the others over the recording.

  Args:
    moments: M numbers of moments.
    before: (M,) under the given cameras, NaN for none.
    after: (M,) under the cameras in use.
    highest: the top of the axis, pixels.
    corrected: whether the two differ.
  """
  first, last = min(moments), max(max(moments), min(moments) + 1)
  low, room = _PLOT_HEIGHT - _BOTTOM, _PLOT_HEIGHT - _BOTTOM - _TOP
  x = [_LEFT + (m - first) / (last - first) * (_WIDTH - _LEFT - 10) for m in moments]
  y = lambda values: low - np.clip(np.maximum(values, 0) / highest, 0, 1) * room
  marks = [
    _line("axis", _LEFT, _WIDTH - 10, low, low),
    f'<text x="{_LEFT - 4}" y="{low + 3}" text-anchor="end">0</text>',
    f'<text x="{_LEFT - 4}" y="{_TOP + 6}" text-anchor="end">{highest:g}</text>',
    f'<text x="{_LEFT}" y="{_PLOT_HEIGHT - 3}">{first}</text>',
    f'<text x="{_WIDTH - 10}" y="{_PLOT_HEIGHT - 3}" text-anchor="end">moment {last}</text>',
  ]
  for kind, values in (("before", before), ("after", after)) if corrected else (("after", after),):
    heights = y(values)
    known = np.isfinite(heights)
    points = [f"{a:.1f},{b:.1f}" for a, b, k in zip(x, heights, known, strict=True) if k]
    marks.append(f'<polyline class="{kind}" points="{" ".join(points)}"/>')
    marks += [
      _dot(kind, a, float(b), f"moment {m}: {v:.1f} px", 2.2)
      for a, b, m, v in zip(x, heights, moments, values, strict=True)
      if np.isfinite(v)
    ]
  return _svg(_PLOT_HEIGHT, marks, "contradiction of the other cameras over time, pixels")


def contradiction_axis(over_time: np.ndarray) -> float:
  """Returns a round height, pixels, of an axis for contradictions (...,) of all cameras."""
  known = over_time[np.isfinite(over_time)]
  most = max(float(np.quantile(known, 0.98)) if len(known) else 0.0, _FLOOR)
  power = 10.0 ** np.floor(np.log10(most))
  return float(next(power * step for step in (1, 2, 5, 10) if power * step >= most * 0.999))


def _short(name: str) -> str:
  return name if len(name) <= 13 else f"{name[:12]}…"


def _line(kind: str, x0: float, x1: float, y0: float, y1: float) -> str:
  return f'<line class="{kind}" x1="{x0:.1f}" x2="{x1:.1f}" y1="{y0:.1f}" y2="{y1:.1f}"/>'


def _dot(kind: str, x: float, y: float, title: str, radius: float = 4.5) -> str:
  return (
    f'<circle class="{kind}" cx="{x:.1f}" cy="{y:.1f}" r="{radius}">'
    f"<title>{html.escape(title)}</title></circle>"
  )


def _svg(height: int, marks: Sequence[str], title: str) -> str:
  body = "\n".join(marks)
  return (
    f'<svg viewBox="0 0 {_WIDTH} {height}" role="img" aria-label="{html.escape(title)}">\n'
    f"{body}\n</svg>"
  )
