"""The end of a run for people: the closing table, and `report/index.html`.

The page is one file without links to anywhere; pictures lie beside it in `sheets/` and `thumbs/`
and are loaded as they come into view, so that 1,600 scenes open as fast as three.
"""

from __future__ import annotations

import datetime
import json
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from markupsafe import Markup
from rich.console import Console

from jaxsplat_mouse import __version__
from jaxsplat_mouse.dataset.scene_records import SceneRecord
from jaxsplat_mouse.io import atomic
from jaxsplat_mouse.report import charts, statistics, templates
from jaxsplat_mouse.report.formatting import (
  format_bytes,
  format_metric,
  metric_digits,
  metric_title,
)
from jaxsplat_mouse.report.scene_pictures import THUMBS
from jaxsplat_mouse.report.summary_table import summary_table
from jaxsplat_mouse.report.turntable import TURNTABLES
from jaxsplat_mouse.run.workdir import Workdir
from jaxsplat_mouse.runtime.progress import format_seconds
from jaxsplat_mouse.validation.rules import Rules

_FEWEST = 8  # scenes that a distribution says something about
_SAMPLES = {0.05: "", 0.25: "", 0.75: "", 0.5: "median", 1.0: "best", 0.0: "worst"}
_MOST_HISTOGRAMS = 8
# Flags of `validate` that follow settings of `render`.
_RULES = {
  "views": "num_views",
  "size": "image_size",
  "fov": "fov",
  "elevation": "elevation",
  "distance": "distance",
}
_MOST_LISTED = 50  # scenes of one reason; the table of scenes has them all


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
  names = statistics.metric_names(records)
  if rows:
    console.print(summary_table(rows, [name for name in names if name in statistics.HEADLINES]))
  say = lambda text: console.print(text, markup=False, highlight=False, soft_wrap=True)
  for name, reason in failures.items():
    say(f"failed: {name}: {reason}")
  say(f"dataset  {workdir.dataset}")
  say(f"report   {workdir.report / 'index.html'}")
  say(f"check    {validate_command(workdir)}")


def validate_command(workdir: Workdir) -> str:
  """The command that checks a run's dataset, with the flags that its views call for."""
  config = (workdir.read_record() or {}).get("config", {})
  usual, flags = Rules(), []
  for flag, key in _RULES.items():
    wanted = config.get(f"render.{key}", getattr(usual, flag))
    if wanted != getattr(usual, flag):
      flags.append(f"--{flag}={wanted}")
  return " ".join(["python -m jaxsplat_mouse.validate", shlex.quote(str(workdir.dataset)), *flags])


def write_report(workdir: Workdir, records: Mapping[str, SceneRecord]) -> None:
  """Writes `report/index.html`.

  Raises:
    OSError: the disk is full or not writable.
  """
  workdir.report.mkdir(parents=True, exist_ok=True)
  page = templates.load("report.html").render(_describe(workdir, records))
  atomic.write_bytes(workdir.report / "index.html", page.encode())


def _describe(workdir: Workdir, records: Mapping[str, SceneRecord]) -> dict[str, Any]:
  """Everything that the page shows."""
  names = statistics.metric_names(records)
  main = names[0] if names else None
  order = statistics.worst_first(records, main)
  pictures = {path.stem for path in (workdir.report / THUMBS).glob("*.jpg")}
  videos = {path.stem for path in (workdir.report / TURNTABLES).glob("*.mp4")}
  told = workdir.read_record() or {}
  config, runs = told.get("config", {}), told.get("runs", [])
  speed = statistics.measure_speed(records, runs)
  seconds = statistics.mean_seconds(records)
  counts = statistics.count_statuses(records)
  return {
    "title": workdir.path.name,
    "counts": counts,
    "total": len(records),
    "facts": _facts(config, runs),
    "tiles": _tiles(records, counts, names, speed, seconds),
    "main_metric": metric_title(main) if main else "",
    "samples": _samples(records, main, [n for n in order if n in pictures]),
    "histograms": _histograms(records, names),
    "speed_svg": Markup(charts.speed(speed)) if speed else "",
    "speed_note": f"{speed.per_minute:.1f} on average; dashed: a later run" if speed else "",
    "stages": charts.stages(seconds),
    "stage_total": f"{sum(seconds.values()):.2f} s",
    "failures": statistics.group_failures(records),
    "max_listed": _MOST_LISTED,
    "manifest": workdir.dataset / "manifest.jsonl",
    "runs": [_run(run) for run in runs],
    "versions": runs[-1].get("versions", {}) if runs else {},
    "config": config,
    "validate": validate_command(workdir),
    "written": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M UTC"),
    "version": __version__,
    "data": Markup(_page_data(records, order, names, pictures, videos)),
  }


def _facts(config: Mapping[str, Any], runs: Sequence[Mapping[str, Any]]) -> list[str]:
  facts = []
  if "fit.model" in config:
    gaussians, steps = config.get("fit.num_gaussians", 0), config.get("fit.iterations", 0)
    facts.append(f"{config['fit.model']}, {gaussians:,} Gaussians, {steps:,} iterations")
  if runs:
    facts += [runs[-1].get("device", {}).get("kind", ""), str(runs[-1].get("started", ""))[:10]]
  return [fact for fact in facts if fact]


def _run(run: Mapping[str, Any]) -> dict[str, Any]:
  started = str(run.get("started", "")).replace("T", " ")[:16]
  return {
    "started": started,
    "device": {"kind": "", "count": 1, **run.get("device", {})},
    "host": run.get("host", ""),
    "command": run.get("command", ""),
  }


def _tiles(
  records: Mapping[str, SceneRecord],
  counts: Mapping[str, int],
  names: Sequence[str],
  speed: statistics.Speed | None,
  seconds: Mapping[str, float],
) -> list[dict[str, Any]]:
  """The few numbers at the top."""
  tile = lambda value, unit, label, bad=False: {
    "value": value, "unit": unit, "label": label, "bad": bad,
  }  # fmt: skip
  tiles = [tile(f"{counts['done']:,}", "", "scenes in the dataset")]
  lost = counts["failed"] + counts["rejected"]
  if lost:
    text = ", ".join(f"{counts[k]} {k}" for k in ("failed", "rejected") if counts[k])
    tiles.append(tile(f"{lost:,}", "", text, bad=True))
  for name in names[:2]:
    median = statistics.distribution(records, name).quantile(0.5)
    unit = "dB" if "psnr" in name else ""
    tiles.append(tile(format_metric(name, median), unit, f"median {metric_title(name)}"))
  if speed:
    tiles.append(tile(f"{speed.per_minute:.1f}", "/min", "scenes"))
  if seconds:
    value, unit = _split_unit(sum(seconds.values()))
    tiles.append(tile(value, unit, "work on a scene"))
  size = sum(record.extra.get("bytes", 0) for record in records.values())
  if size:
    value, _, unit = format_bytes(size).partition(" ")
    tiles.append(tile(value, unit, "of images and cameras"))
  return tiles


def _split_unit(seconds: float) -> tuple[str, str]:
  if seconds < 10:
    return f"{seconds:.2f}", "s"
  value, _, unit = format_seconds(seconds).partition(" ")
  return value, unit


def _samples(
  records: Mapping[str, SceneRecord], metric: str | None, order: Sequence[str]
) -> list[dict[str, str]]:
  """Scenes with pictures spread from the worst to the best."""
  scored = [n for n in order if metric and records[n].metrics.get(metric) is not None]
  if metric is None or len(scored) < _FEWEST:
    return []
  places = {
    round(share * (len(scored) - 1)): label or f"{share:.0%} are worse"
    for share, label in _SAMPLES.items()
  }
  unit = " dB" if "psnr" in metric else ""
  return [
    {
      "name": scored[place],
      "value": format_metric(metric, records[scored[place]].metrics[metric]) + unit,
      "label": f"{places[place]} · {scored[place]}",
    }
    for place in sorted(places)
  ]


def _histograms(records: Mapping[str, SceneRecord], names: Sequence[str]) -> list[dict[str, Any]]:
  found = []
  for values in (statistics.distribution(records, name) for name in names[:_MOST_HISTOGRAMS]):
    if len(values.values) >= _FEWEST:
      low, high = (format_metric(values.name, values.quantile(share)) for share in (0.05, 0.95))
      svg = Markup(charts.histogram(values, metric_digits(values.name)))
      title = metric_title(values.name)
      found.append({"title": title, "spread": f"90 % within {low} – {high}", "svg": svg})
  return found


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
      "unit": " dB" if "psnr" in name else "",
      "digits": metric_digits(name),
      "lower": statistics.lower_is_better(name),
    }
    for name in names
  ]
  scenes = [
    {**_page_scene(records[name], names), "picture": name in pictures, "video": name in videos}
    for name in order
  ]
  text = json.dumps({"metrics": metrics, "scenes": scenes}, separators=(",", ":"))
  return text.replace("<", "\\u003c").replace("&", "\\u0026")


def _page_scene(record: SceneRecord, names: Sequence[str]) -> dict[str, Any]:
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
