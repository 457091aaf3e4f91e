"""The dataset card `README.md`: describes a dataset to a person who has the folder alone."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from jaxsplat_mouse.dataset.gate import Rule
from jaxsplat_mouse.dataset.scene_records import SceneRecord
from jaxsplat_mouse.io import atomic
from jaxsplat_mouse.report import statistics
from jaxsplat_mouse.report.formatting import format_bytes, format_metric, metric_title
from jaxsplat_mouse.report.reported_run import ReportedRun
from jaxsplat_mouse.report.template_loader import load_template

CARD_FILE = "README.md"


@dataclasses.dataclass(frozen=True, kw_only=True)
class DatasetDescription:
  """How the scenes of a dataset were made, as the card describes it.

  Attributes:
    license: of the dataset; empty where it is not stated.
    model: `2dgs` or `3dgs`.
    num_gaussians: of each scene.
    iterations: of each fit.
    normalize: what shares one scale: `scene` or `recording`; `none` keeps the input's frame.
    radius: of the animal in the canonical frame, units.
    num_views: of each scene.
    image_size: side of the square images, pixels.
    fov: field of view, degrees.
    elevation: of the cameras, degrees.
    distance: of the cameras from the origin, units.
    gate: quality rules that a listed scene satisfies.
  """

  license: str
  model: str
  num_gaussians: int
  iterations: int
  normalize: str
  radius: float
  num_views: int
  image_size: int
  fov: float
  elevation: float
  distance: float
  gate: Sequence[Rule]

  @property
  def half_extent(self) -> float:
    """Half of the frame's side at the origin, units."""
    return float(self.distance * np.tan(np.radians(self.fov) / 2))

  @property
  def focal_length(self) -> float:
    """fx and fy, pixels."""
    return float(0.5 * self.image_size / np.tan(np.radians(self.fov) / 2))


def write_card(
  run: ReportedRun,
  description: DatasetDescription,
  records: Mapping[str, SceneRecord],
  train: Sequence[str],
  val: Sequence[str],
) -> None:
  """Writes the dataset card into the folder of the dataset.

  Args:
    run: the run that made the dataset.
    description: how its scenes were made.
    records: of the manifest, by scene.
    train: scenes of `train.txt`.
    val: scenes of `val.txt`.

  Raises:
    OSError: the disk is full or not writable.
  """
  listed = {name: records[name] for name in (*train, *val)}
  text = load_template("dataset_card.md").render(
    name=run.name,
    dataset=description,
    size_category=_size_category(len(listed)),
    size=format_bytes(sum(record.extra.get("bytes", 0) for record in listed.values())),
    counts=statistics.count_statuses(records),
    lists={"train": _count_list(records, train), "val": _count_list(records, val)},
    metrics=_metric_rows(listed),
    commands=_distinct(start.get("command", "") for start in run.starts),
    versions=run.versions,
    devices=_distinct(start.get("device", {}).get("kind", "") for start in run.starts),
  )
  atomic.write_bytes(run.dataset / CARD_FILE, text.encode())


def _distinct(values: Iterable[str]) -> list[str]:
  """The values in order of first appearance, without repetitions and empty ones."""
  return [value for value in dict.fromkeys(values) if value]


def _count_list(records: Mapping[str, SceneRecord], names: Sequence[str]) -> dict[str, int]:
  return {"scenes": len(names), "recordings": len({records[name].recording for name in names})}


def _metric_rows(records: Mapping[str, SceneRecord]) -> list[list[str]]:
  """Metric, scenes, mean, and the 5th, 50th and 95th percentile."""
  rows = []
  for name in statistics.metric_names(records):
    metric = statistics.distribution(records, name)
    values = [metric.mean, *(metric.quantile(share) for share in (0.05, 0.5, 0.95))]
    numbers = [format_metric(name, value, with_unit=True) for value in values]
    rows.append([metric_title(name), str(len(metric.values)), *numbers])
  return rows


def _size_category(scenes: int) -> str:
  """The size class that dataset hubs sort by."""
  for bound, text in ((1_000, "n<1K"), (10_000, "1K<n<10K"), (100_000, "10K<n<100K")):
    if scenes < bound:
      return text
  return "100K<n<1M"
