"""`dataset/README.md`: what a dataset is, for whoever gets the folder without the run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxsplat_mouse.dataset.scene_records import SceneRecord
from jaxsplat_mouse.io import atomic
from jaxsplat_mouse.report import statistics, templates
from jaxsplat_mouse.report.formatting import format_bytes, format_metric, metric_title
from jaxsplat_mouse.run.settings import Settings
from jaxsplat_mouse.run.workdir import Workdir

CARD_FILE = "README.md"


def write_card(
  workdir: Workdir,
  settings: Settings,
  records: Mapping[str, SceneRecord],
  train: Sequence[str],
  val: Sequence[str],
) -> None:
  """Writes the dataset card.

  Args:
    workdir: the run.
    settings: of the run.
    records: of the manifest.
    train: scenes of `train.txt`.
    val: scenes of `val.txt`.

  Raises:
    OSError: the disk is full or not writable.
  """
  values = _describe(workdir, settings, records, train, val)
  text = templates.load("dataset_card.md").render(values)
  atomic.write_bytes(workdir.dataset / CARD_FILE, text.encode())


def _describe(
  workdir: Workdir,
  settings: Settings,
  records: Mapping[str, SceneRecord],
  train: Sequence[str],
  val: Sequence[str],
) -> dict[str, Any]:
  told = workdir.read_record() or {}
  runs = told.get("runs", [])
  listed = {name: records[name] for name in (*train, *val)}
  size = sum(record.extra.get("bytes", 0) for record in listed.values())
  return {
    "name": workdir.path.name,
    "license": settings.dataset.license,
    "size_category": _size_category(len(listed)),
    "counts": statistics.count_statuses(records),
    "lists": {"train": _count(records, train), "val": _count(records, val)},
    "size": format_bytes(size),
    "render": settings.render,
    "focal": 0.5 * settings.render.image_size / np.tan(np.radians(settings.render.fov) / 2),
    "half_extent": settings.render.distance * np.tan(np.radians(settings.render.fov) / 2),
    "normalize": settings.data.normalize,
    "radius": settings.data.radius,
    "fit": settings.fit,
    "metrics": _metric_rows(listed),
    "gate": settings.dataset.gate,
    "commands": list(dict.fromkeys(run.get("command", "") for run in runs)),
    "versions": runs[-1].get("versions", {}) if runs else {},
    "devices": list(dict.fromkeys(run.get("device", {}).get("kind", "") for run in runs)),
  }


def _count(records: Mapping[str, SceneRecord], names: Sequence[str]) -> dict[str, int]:
  return {"scenes": len(names), "recordings": len({records[name].recording for name in names})}


def _metric_rows(records: Mapping[str, SceneRecord]) -> list[list[str]]:
  """Metric, scenes, mean, and the 5th, 50th and 95th percentile."""
  rows = []
  for name in statistics.metric_names(records):
    found = statistics.distribution(records, name)
    values = [found.mean, *(found.quantile(share) for share in (0.05, 0.5, 0.95))]
    rows.append([
      metric_title(name), str(len(found.values)), *(format_metric(name, v) for v in values)
    ])  # fmt: skip
  return rows


def _size_category(scenes: int) -> str:
  """The size class that dataset hubs sort by."""
  for bound, text in ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K")):
    if scenes < bound:
      return text
  return "100K<n<1M"
