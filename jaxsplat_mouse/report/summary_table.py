"""The table of scenes, metrics and times that closes a run on the terminal."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table

from jaxsplat_mouse.report.formatting import format_metric, metric_title

_ROWS = 40  # with more scenes, the table shows the worst ones


def summary_table(rows: Sequence[Mapping[str, Any]], metric_names: Sequence[str]) -> Table:
  """Returns a table of scenes with a row of means, the worst scenes first where there are many.

  Args:
    rows: mappings with `scene`, `status`, `metrics`, `seconds` (total) and `fit_seconds`.
    metric_names: metrics to show; the first decides which scenes are worst.
  """
  shown = list(rows)
  if len(shown) > _ROWS:
    shown = sorted(shown, key=lambda row: _rank(row, metric_names))[:_ROWS]
  table = Table(title=None if len(shown) == len(rows) else f"the worst {_ROWS} of {len(rows)}")
  table.add_column("scene", overflow="fold")
  table.add_column("status")
  for name in metric_names:
    table.add_column(metric_title(name), justify="right")
  table.add_column("fit s", justify="right")
  table.add_column("total s", justify="right")
  for row in shown:
    table.add_row(*_cells(row, metric_names))
  if len(rows) > 1:
    table.add_section()
    table.add_row(*_cells(_mean_row(rows, metric_names), metric_names))
  return table


def _cells(row: Mapping[str, Any], names: Sequence[str]) -> list[str]:
  values = [format_metric(name, row["metrics"].get(name)) for name in names]
  times = [row["fit_seconds"], row["seconds"]]
  return [row["scene"], row["status"], *values, *(f"{t:.1f}" if t else "–" for t in times)]


def _rank(row: Mapping[str, Any], names: Sequence[str]) -> tuple[bool, float]:
  """Sorts failed scenes first, then by the first metric, ascending."""
  value = row["metrics"].get(names[0]) if names else None
  finite = value is not None and math.isfinite(value)
  return row["status"] != "failed", value if finite and value is not None else -math.inf


def _mean_row(rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> dict[str, Any]:
  return {
    "scene": "mean",
    "status": f"{sum(row['status'] != 'failed' for row in rows)} of {len(rows)}",
    "metrics": {name: _mean([row["metrics"].get(name) for row in rows]) for name in names},
    "seconds": _mean([row["seconds"] or None for row in rows]),
    "fit_seconds": _mean([row["fit_seconds"] or None for row in rows]),
  }


def _mean(values: Sequence[float | None]) -> float | None:
  finite = [value for value in values if value is not None and math.isfinite(value)]
  return sum(finite) / len(finite) if finite else None
