"""What a run prints when it ends: a table of scenes, the failures, and where everything is."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from rich.console import Console
from rich.table import Table

from jaxsplat_mouse.dataset.scene_records import SceneRecord
from jaxsplat_mouse.report import statistics
from jaxsplat_mouse.report.formatting import format_metric, metric_title
from jaxsplat_mouse.report.reported_run import ReportedRun

_MAX_ROWS = 40  # with more scenes, the table shows the worst ones


def print_closing_summary(
  console: Console,
  run: ReportedRun,
  records: Mapping[str, SceneRecord],
  failures: Mapping[str, str],
) -> None:
  """Prints the table of scenes, the failures, and the paths of dataset and report.

  Args:
    console: prints.
    run: the run that ends.
    records: of the manifest, by scene.
    failures: reasons of the scenes that failed at this start of the run, by scene.
  """
  if records:
    found = statistics.metric_names(records)
    console.print(closing_table(records, [n for n in found if n in statistics.HEADLINE_METRICS]))
  lines = [f"failed: {name}: {reason}" for name, reason in failures.items()]
  lines.append(f"dataset  {run.dataset}")
  lines.append(f"report   {run.report / 'index.html'}")
  lines.append(f"check    {run.validate_command()}")
  for line in lines:
    console.print(line, markup=False, highlight=False, soft_wrap=True)


def closing_table(records: Mapping[str, SceneRecord], metric_names: Sequence[str]) -> Table:
  """Returns a table of scenes with their metrics and times, and a row of means.

  More than 40 scenes are sorted, failed ones first, then the worst, and the rest is left out.

  Args:
    records: of the manifest, by scene.
    metric_names: metrics to show; the first one decides which scenes are worst.
  """
  names = list(records)
  if len(names) > _MAX_ROWS:
    worst = statistics.worst_first(records, metric_names[0] if metric_names else None)
    names = sorted(worst, key=lambda name: records[name].status != "failed")[:_MAX_ROWS]
  omitted = len(names) < len(records)
  table = Table(title=f"the worst {_MAX_ROWS} of {len(records)}" if omitted else None)
  table.add_column("scene", overflow="fold")
  table.add_column("status")
  for title in (*map(metric_title, metric_names), "fit s", "total s"):
    table.add_column(title, justify="right")
  for name in names:
    table.add_row(*_scene_cells(records[name], metric_names))
  if len(records) > 1:
    table.add_section()
    table.add_row(*_mean_cells(records, metric_names))
  return table


def _scene_cells(record: SceneRecord, metric_names: Sequence[str]) -> list[str]:
  values = [format_metric(name, record.metrics.get(name)) for name in metric_names]
  times = record.seconds.get("fit"), sum(record.seconds.values())
  return [record.scene, record.status, *values, *map(_format_time, times)]


def _mean_cells(records: Mapping[str, SceneRecord], metric_names: Sequence[str]) -> list[str]:
  written = sum(record.status != "failed" for record in records.values())
  means = []
  for name in metric_names:
    values = statistics.distribution(records, name).values
    means.append(format_metric(name, float(values.mean()) if len(values) else None))
  fit = _mean(record.seconds.get("fit", 0.0) for record in records.values())
  total = _mean(sum(record.seconds.values()) for record in records.values())
  return ["mean", f"{written} of {len(records)}", *means, _format_time(fit), _format_time(total)]


def _format_time(seconds: float | None) -> str:
  return f"{seconds:.1f}" if seconds else "–"


def _mean(seconds: Iterable[float]) -> float:
  """The mean of the times that were measured, zero where none was."""
  measured = [value for value in seconds if value]
  return sum(measured) / len(measured) if measured else 0.0
