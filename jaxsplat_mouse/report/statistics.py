"""What a run came to, in numbers: counts, distributions, speed over time, failures by reason.

The manifest and `config.json` in, plain values out; the report and the dataset card show them.
"""

from __future__ import annotations

import dataclasses
import datetime
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxsplat_mouse.dataset.manifest import SceneRecord

HEADLINES = ("novel_fg_psnr", "novel_iou", "input_fg_psnr", "input_iou")
_LOWER_IS_BETTER = (
  "lpips",
  "error",
  "mse",
  "chamfer",
  "distance",
  "leak",
  "hausdorff",
  "floaters",
  "holes",
)
_STAGES = ("prepare", "fit", "output")
_MOST_BINS, _FEWEST_TIMED = 48, 8


@dataclasses.dataclass(frozen=True, kw_only=True)
class Distribution:
  """One metric over the scenes that have it.

  Attributes:
    name: the metric.
    values: (n,) finite, ascending.
  """

  name: str
  values: np.ndarray

  def quantile(self, share: float) -> float:
    """The value below which a share of the scenes lies."""
    return float(np.quantile(self.values, share))

  @property
  def mean(self) -> float:
    """Arithmetic mean."""
    return float(self.values.mean())


@dataclasses.dataclass(frozen=True, kw_only=True)
class Speed:
  """Scenes over working time: pauses between two runs of a workdir do not count.

  Attributes:
    edges: (n + 1,) minutes of working time.
    rates: (n,) scenes a minute between them.
    runs: minutes at which the second and later runs began.
    per_minute: scenes a minute from the first to the last scene.
  """

  edges: np.ndarray
  rates: np.ndarray
  runs: list[float]
  per_minute: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Failures:
  """Scenes that failed or were rejected for the same kind of reason.

  Attributes:
    status: `failed` or `rejected`.
    reason: the first scene's, word for word.
    scenes: scene to its own reason.
  """

  status: str
  reason: str
  scenes: dict[str, str]


def count_statuses(records: Mapping[str, SceneRecord]) -> dict[str, int]:
  """Scenes that are `done`, `rejected` and `failed`."""
  counts = {"done": 0, "rejected": 0, "failed": 0}
  for record in records.values():
    counts[record.status] += 1
  return counts


def lower_is_better(metric: str) -> bool:
  """Whether a small value of a metric is a good one."""
  return any(part in metric for part in _LOWER_IS_BETTER)


def metric_names(records: Mapping[str, SceneRecord]) -> list[str]:
  """Every metric that a scene has a value for, the headlines first."""
  found = {n for r in records.values() for n, value in r.metrics.items() if _is_finite(value)}
  first = [name for name in HEADLINES if name in found]
  return [*first, *sorted(found - set(first), key=lambda name: (name.startswith("input"), name))]


def distribution(records: Mapping[str, SceneRecord], name: str) -> Distribution:
  """A metric over all scenes that have a finite value."""
  values = [r.metrics[name] for r in records.values() if _is_finite(r.metrics.get(name))]
  return Distribution(name=name, values=np.sort(np.array(values, np.float64)))


def worst_first(records: Mapping[str, SceneRecord], metric: str | None) -> list[str]:
  """Scene names from the worst metric to the best, then those that failed; names break ties."""

  def key(name: str) -> tuple[bool, float, str]:
    failed = records[name].status == "failed"
    value = records[name].metrics.get(metric) if metric else None
    if value is None or not _is_finite(value):
      return failed, -np.inf, name
    return failed, -value if lower_is_better(str(metric)) else value, name

  return sorted(records, key=key)


def group_failures(records: Mapping[str, SceneRecord]) -> list[Failures]:
  """Scenes without a place in the lists by kind of reason, the most frequent kind first.

  Reasons are of one kind where they differ in paths, numbers and scene names alone.
  """
  groups: dict[tuple[str, str], Failures] = {}
  for name, record in records.items():
    if record.status == "done":
      continue
    kind = re.sub(rf"\S*/\S*|\b{re.escape(name)}\b|\d+(\.\d+)?", "#", record.error)
    new = Failures(status=record.status, reason=record.error, scenes={})
    groups.setdefault((record.status, kind), new).scenes[name] = record.error
  return sorted(groups.values(), key=lambda g: (g.status != "failed", -len(g.scenes), g.reason))


def mean_seconds(records: Mapping[str, SceneRecord]) -> dict[str, float]:
  """Mean seconds of a scene by stage, in the order of the work; {} where no scene has any."""
  sums: dict[str, list[float]] = {}
  for record in records.values():
    if record.status != "failed":
      for stage, seconds in record.seconds.items():
        sums.setdefault(stage, []).append(seconds)
  order = [*_STAGES, *sorted(set(sums) - set(_STAGES))]
  return {stage: float(np.mean(sums[stage])) for stage in order if stage in sums}


def measure_speed(
  records: Mapping[str, SceneRecord], runs: Sequence[Mapping[str, Any]]
) -> Speed | None:
  """Scenes a minute over working time; None where too few scenes say when they ended.

  Args:
    records: of the manifest.
    runs: `runs` of `config.json`, each with its `started`.
  """
  starts = sorted(t for run in runs if (t := parse_time(run.get("started"))) is not None)
  ends = sorted(t for r in records.values() if (t := parse_time(r.extra.get("finished"))))
  if len(ends) < _FEWEST_TIMED or not starts:
    return None
  minutes, begun = _working_minutes(np.array(starts), np.array(ends))
  span = minutes[-1] - minutes[0]
  if span <= 0:
    return None
  count = int(np.clip(len(ends) // 6, 4, _MOST_BINS))
  edges = np.linspace(0, minutes[-1], count + 1)
  rates = np.histogram(minutes, edges)[0] / np.diff(edges)
  return Speed(edges=edges, rates=rates, runs=begun, per_minute=float((len(ends) - 1) / span))


def _working_minutes(starts: np.ndarray, ends: np.ndarray) -> tuple[np.ndarray, list[float]]:
  """When scenes ended (n,), in minutes of the runs' own time, and when later runs began.

  A run lasts from its start to its last scene.
  """
  owner = np.maximum(np.searchsorted(starts, ends, side="right") - 1, 0)
  minutes, begun, offset = np.zeros(len(ends)), [], 0.0
  for run in np.unique(owner):
    mine = owner == run
    if offset > 0:
      begun.append(offset)
    minutes[mine] = offset + (ends[mine] - min(starts[run], ends[mine][0])) / 60
    offset = float(minutes[mine][-1])
  return minutes, begun


def parse_time(text: Any) -> float | None:
  """Seconds since 1970 of an ISO time; None where it is none."""
  try:
    return datetime.datetime.fromisoformat(text).timestamp()
  except (TypeError, ValueError):
    return None


def _is_finite(value: float | None) -> bool:
  return value is not None and bool(np.isfinite(value))
