"""The report page of a run, `index.html`.

The page is one file without links to other sites. Pictures lie beside it in `sheets/`, `thumbs/`
and `turntables/` and load as they come into view, so that 1,600 scenes open as fast as three.
"""

from __future__ import annotations

import dataclasses
import datetime
import json
from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup

from jaxsplat_mouse.dataset.scene_records import SceneRecord
from jaxsplat_mouse.io import atomic
from jaxsplat_mouse.report import charts, statistics
from jaxsplat_mouse.report.formatting import (
  format_bytes,
  format_metric,
  lower_is_better,
  metric_digits,
  metric_title,
  metric_unit,
)
from jaxsplat_mouse.report.reported_run import ReportedRun
from jaxsplat_mouse.report.scene_pictures import THUMBS_FOLDER
from jaxsplat_mouse.report.template_loader import load_template
from jaxsplat_mouse.report.turntable import TURNTABLES_FOLDER
from jaxsplat_mouse.runtime.progress import format_seconds
from jaxsplat_mouse.version import __version__

_MIN_SCENES = 8  # for a distribution and for samples of it
# Scenes that stand for all, as shares of the way from the worst to the best.
_SAMPLES = {
  0.0: "worst",
  0.05: "5th percentile",
  0.25: "25th percentile",
  0.5: "median",
  0.75: "75th percentile",
  1.0: "best",
}
_MAX_HISTOGRAMS = 8
_MAX_LISTED = 50  # scenes under one reason; the table of scenes holds them all


def write_report_page(run: ReportedRun, records: Mapping[str, SceneRecord]) -> None:
  """Writes `index.html` into the folder of the report.

  Args:
    run: the run.
    records: of the manifest, by scene.

  Raises:
    OSError: the disk is full or not writable.
  """
  run.report.mkdir(parents=True, exist_ok=True)
  page = load_template("report.html").render(_template_values(run, records))
  atomic.write_bytes(run.report / "index.html", page.encode())


def _template_values(run: ReportedRun, records: Mapping[str, SceneRecord]) -> dict[str, Any]:
  names = statistics.metric_names(records)
  main = names[0] if names else None
  order = statistics.worst_first(records, main)
  pictures = {path.stem for path in (run.report / THUMBS_FOLDER).glob("*.jpg")}
  videos = {path.stem for path in (run.report / TURNTABLES_FOLDER).glob("*.mp4")}
  return {
    "title": run.name,
    "counts": statistics.count_statuses(records),
    "total": len(records),
    "facts": _facts(run),
    "main_metric": metric_title(main) if main else "",
    "samples": _samples(records, main, [name for name in order if name in pictures]),
    "histograms": _histograms(records, names),
    **_time_values(run, records, names),
    "failures": statistics.group_failures(records),
    "max_listed": _MAX_LISTED,
    "manifest": run.dataset / "manifest.jsonl",
    "starts": [_start_row(start) for start in run.starts],
    "versions": run.versions,
    "config": run.config,
    "validate": run.validate_command(),
    "written": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
    "version": __version__,
    "data": Markup(_page_data(records, order, names, pictures, videos)),
  }


def _facts(run: ReportedRun) -> list[str]:
  """Model, device and date, for the line below the title."""
  facts = []
  if "fit.model" in run.config:
    gaussians, steps = run.config.get("fit.num_gaussians", 0), run.config.get("fit.iterations", 0)
    facts.append(f"{run.config['fit.model']}, {gaussians:,} Gaussians, {steps:,} iterations")
  if run.starts:
    last = run.starts[-1]
    facts += [last.get("device", {}).get("kind", ""), str(last.get("started", ""))[:10]]
  return [fact for fact in facts if fact]


def _start_row(start: Mapping[str, Any]) -> dict[str, Any]:
  return {
    "started": str(start.get("started", "")).replace("T", " ")[:16],
    "device": {"kind": "", "count": 1, **start.get("device", {})},
    "host": start.get("host", ""),
    "command": start.get("command", ""),
  }


def _time_values(
  run: ReportedRun, records: Mapping[str, SceneRecord], names: Sequence[str]
) -> dict[str, Any]:
  """The tiles at the top of the page, and the charts of throughput and stages."""
  throughput = statistics.measure_throughput(records, run.starts)
  seconds = statistics.mean_seconds(records)
  note = ""
  if throughput:
    note = f"mean {throughput.per_minute:.1f} (dotted)"
    note += "; a dashed line marks a restart" if throughput.restarts else ""
  return {
    "tiles": _tiles(records, names, throughput, seconds),
    "throughput_svg": Markup(charts.throughput_svg(throughput)) if throughput else "",
    "throughput_note": note,
    "stages": charts.stage_shares(seconds),
    "stage_total": _format_scene_time(seconds),
  }


@dataclasses.dataclass(frozen=True)
class _Tile:
  """A number at the top of the page."""

  value: str
  unit: str
  label: str
  bad: bool = False


def _tiles(
  records: Mapping[str, SceneRecord],
  names: Sequence[str],
  throughput: statistics.Throughput | None,
  seconds: Mapping[str, float],
) -> list[_Tile]:
  counts = statistics.count_statuses(records)
  noun = "scene" if counts["done"] == 1 else "scenes"
  tiles = [_Tile(f"{counts['done']:,}", "", f"{noun} in the dataset")]
  lost = {status: counts[status] for status in ("failed", "rejected") if counts[status]}
  if lost:
    text = ", ".join(f"{count:,} {status}" for status, count in lost.items())
    tiles.append(_Tile(f"{sum(lost.values()):,}", "", text, bad=True))
  for name in names[:2]:
    median = statistics.distribution(records, name).quantile(0.5)
    label = f"median {metric_title(name)}"
    tiles.append(_Tile(format_metric(name, median), metric_unit(name), label))
  if throughput:
    tiles.append(_Tile(f"{throughput.per_minute:.1f}", "per min", "scenes"))
  if seconds:
    value, _, unit = _format_scene_time(seconds).partition(" ")
    tiles.append(_Tile(value, unit, "mean time of a scene"))
  size = sum(record.extra.get("bytes", 0) for record in records.values())
  if size:
    value, _, unit = format_bytes(size).partition(" ")
    tiles.append(_Tile(value, unit, "images and cameras"))
  return tiles


def _format_scene_time(seconds: Mapping[str, float]) -> str:
  """The time of all stages, as `1.28 s` or `3:07 min`."""
  total = sum(seconds.values())
  return f"{total:.2f} s" if total < 10 else format_seconds(total)


def _samples(
  records: Mapping[str, SceneRecord], metric: str | None, order: Sequence[str]
) -> list[dict[str, str]]:
  """Scenes that stand for all of them, from the worst to the best; none where scenes are few."""
  if metric is None:
    return []
  scored = [name for name in order if records[name].metrics.get(metric) is not None]
  if len(scored) < _MIN_SCENES:
    return []
  places = {round(share * (len(scored) - 1)): label for share, label in _SAMPLES.items()}
  return [
    {
      "name": scored[place],
      "value": format_metric(metric, records[scored[place]].metrics[metric], with_unit=True),
      "label": f"{label} · {scored[place]}",
    }
    for place, label in places.items()
  ]


def _histograms(records: Mapping[str, SceneRecord], names: Sequence[str]) -> list[dict[str, Any]]:
  histograms = []
  for name in names[:_MAX_HISTOGRAMS]:
    metric = statistics.distribution(records, name)
    if len(metric.values) < _MIN_SCENES:
      continue
    low, high = (format_metric(name, metric.quantile(share)) for share in (0.05, 0.95))
    histograms.append(
      {
        "title": metric_title(name),
        "spread": f"90% of scenes: {low} – {high} {metric_unit(name)}".rstrip(),
        "svg": Markup(charts.histogram_svg(metric, metric_digits(name))),
      }
    )
  return histograms


def _page_data(
  records: Mapping[str, SceneRecord],
  order: Sequence[str],
  names: Sequence[str],
  pictures: set[str],
  videos: set[str],
) -> str:
  """What the page's script reads, as JSON that is safe inside a script element."""
  metrics = [
    {
      "name": name,
      "title": metric_title(name),
      "unit": f" {metric_unit(name)}".rstrip(),
      "digits": metric_digits(name),
      "lower": lower_is_better(name),
    }
    for name in names
  ]
  scenes = [
    {**_scene_data(records[name], names), "picture": name in pictures, "video": name in videos}
    for name in order
  ]
  text = json.dumps({"metrics": metrics, "scenes": scenes}, separators=(",", ":"))
  return text.replace("<", "\\u003c").replace("&", "\\u0026")


def _scene_data(record: SceneRecord, names: Sequence[str]) -> dict[str, Any]:
  fit = record.seconds.get("fit")
  return {
    "name": record.scene,
    "status": record.status,
    "recording": record.recording,
    "metrics": [None if (v := record.metrics.get(n)) is None else round(v, 5) for n in names],
    "seconds": round(sum(record.seconds.values()), 3) if record.seconds else None,
    "fit": None if fit is None else round(fit, 3),
    "error": record.error,
    "warnings": list(record.extra.get("warnings", ())),
    "source": record.extra.get("source", ""),
    "gaussians": record.extra.get("num_gaussians"),
  }
