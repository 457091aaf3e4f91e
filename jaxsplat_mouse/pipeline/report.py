"""The end of a run for people: the closing table, and `report/index.html`."""

from __future__ import annotations

import html
from collections.abc import Mapping, Sequence

from rich.console import Console

from jaxsplat_mouse.dataset import SceneRecord
from jaxsplat_mouse.io import atomic
from jaxsplat_mouse.pipeline.progress import closing_table, format_metric, metric_title
from jaxsplat_mouse.pipeline.workdir import Workdir

_COLUMNS = ("novel_fg_psnr", "novel_iou", "input_fg_psnr", "input_iou")
_STYLE = """
  body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 76rem; color: #222; }
  table { border-collapse: collapse; } td, th { padding: .2rem .8rem; text-align: right; }
  td:first-child, th:first-child { text-align: left; } tr:nth-child(even) { background: #f5f5f7; }
  img { max-width: 100%; border: 1px solid #e2e3e7; margin: 1rem 0; } .failed { color: #a22; }
"""


def shown_metrics(records: Mapping[str, SceneRecord]) -> list[str]:
  """The columns that any scene has a value for."""
  return [c for c in _COLUMNS if any(c in record.metrics for record in records.values())]


def print_summary(
  console: Console,
  workdir: Workdir,
  records: Mapping[str, SceneRecord],
  failures: Mapping[str, str],
) -> None:
  """The table of scenes, what failed in this run and why, and where everything is."""
  rows = [
    {
      "scene": record.scene,
      "status": record.status,
      "metrics": record.metrics,
      "fit_seconds": record.seconds.get("fit"),
      "seconds": sum(record.seconds.values()),
    }
    for record in records.values()
  ]
  if rows:
    console.print(closing_table(rows, shown_metrics(records)))
  say = lambda text: console.print(text, markup=False, highlight=False, soft_wrap=True)
  for name, reason in failures.items():
    say(f"failed: {name}: {reason}")
  say(f"dataset  {workdir.dataset}")
  say(f"report   {workdir.report / 'index.html'}")
  say(f"check    python -m jaxsplat_mouse.validate {workdir.dataset}")


def write_report(workdir: Workdir, records: Mapping[str, SceneRecord]) -> None:
  """Writes `report/index.html`.

  Raises:
    OSError: the disk is full or not writable.
  """
  workdir.report.mkdir(parents=True, exist_ok=True)
  columns = shown_metrics(records)
  head = ["scene", "status", *map(metric_title, columns), "seconds"]
  rows = [_row(record, columns) for record in records.values()]
  sheets = {name: f"contact_sheet_{name}.png" for name in map(html.escape, records)}
  pictures = [
    f'<h2>{name}</h2>\n<img loading="lazy" src="{sheet}" alt="contact sheet of {name}">'
    for name, sheet in sheets.items()
    if (workdir.report / sheet).is_file()
  ]
  text = f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{html.escape(workdir.path.name)}</title>
<style>{_STYLE}</style></head><body>
<h1>{html.escape(workdir.path.name)}: {_count(records)}</h1>
<table>
{_table_row(head, "th")}
{chr(10).join(rows)}
</table>
{chr(10).join(pictures)}
</body></html>
"""
  atomic.write_bytes(workdir.report / "index.html", text.encode())


def _count(records: Mapping[str, SceneRecord]) -> str:
  done = sum(record.status != "failed" for record in records.values())
  return f"{done} of {len(records)} scenes"


def _row(record: SceneRecord, columns: Sequence[str]) -> str:
  if record.status == "failed":
    reason = (
      f'<td class="failed" colspan="{len(columns) + 2}">failed: {html.escape(record.error)}</td>'
    )
    return f"<tr><td>{html.escape(record.scene)}</td>{reason}</tr>"
  values = [format_metric(c, record.metrics.get(c)) for c in columns]
  return _table_row([record.scene, record.status, *values, f"{sum(record.seconds.values()):.1f}"])


def _table_row(cells: Sequence[str], tag: str = "td") -> str:
  return "<tr>" + "".join(f"<{tag}>{html.escape(c)}</{tag}>" for c in cells) + "</tr>"
