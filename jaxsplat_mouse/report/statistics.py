"""Statistics of a run's scenes: counts, distributions, throughput, and failures by reason.

The functions take records of the manifest and the starts of a run, and return plain values for the
report and the dataset card.
"""

from __future__ import annotations

import dataclasses
import datetime
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxsplat_mouse.dataset.scene_records import SceneRecord
from jaxsplat_mouse.report.formatting import lower_is_better

# Scores that say most about a scene, the most important first.
HEADLINE_METRICS = ("novel_fg_psnr", "novel_iou", "input_fg_psnr", "input_iou")
_STAGES = ("prepare", "fit", "output")
_MOST_BINS = 48
_FEWEST_TIMED = 8  # finished scenes that a throughput needs


@dataclasses.dataclass(frozen=True, kw_only=True)
class Distribution:
  """The values of one metric over scenes.

  Attributes:
    name: of the metric.
    values: (n,) finite, ascending; one for each scene that has the metric.
  """

  name: str
  values: np.ndarray

  def quantile(self, share: float) -> float:
    """Returns the value below which a share, from 0 to 1, of the scenes lies."""
    return float(np.quantile(self.values, share))

  @property
  def mean(self) -> float:
    """Arithmetic mean."""
    return float(self.values.mean())


@dataclasses.dataclass(frozen=True, kw_only=True)
class Throughput:
  """Finished scenes over working time, which excludes the pauses between two starts of a run.

  Attributes:
    edges: (n + 1,) bounds of the intervals, minutes of working time.
    rates: (n,) scenes per minute in each interval.
    restarts: minutes at which the second and later starts fall.
    per_minute: scenes per minute from the first to the last finished scene.
  """

  edges: np.ndarray
  rates: np.ndarray
  restarts: list[float]
  per_minute: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class FailureGroup:
  """Scenes that failed, or were rejected, for the same kind of reason.

  Attributes:
    status: `failed` or `rejected`.
    reason: of the first scene, word for word.
    scenes: each scene's own reason, by scene name.
  """

  status: str
  reason: str
  scenes: dict[str, str]


def count_statuses(records: Mapping[str, SceneRecord]) -> dict[str, int]:
  """Returns the number of scenes by status: `done`, `rejected` and `failed`."""
  counts = {"done": 0, "rejected": 0, "failed": 0}
  for record in records.values():
    counts[record.status] += 1
  return counts


def metric_names(records: Mapping[str, SceneRecord]) -> list[str]:
  """Returns the metrics that any scene has a finite value of, `HEADLINE_METRICS` first."""
  found = {n for r in records.values() for n, value in r.metrics.items() if _is_finite(value)}
  first = [name for name in HEADLINE_METRICS if name in found]
  return [*first, *sorted(found - set(first), key=lambda name: (name.startswith("input"), name))]


def distribution(records: Mapping[str, SceneRecord], name: str) -> Distribution:
  """Returns a metric over all scenes that have a finite value of it."""
  values = [r.metrics[name] for r in records.values() if _is_finite(r.metrics.get(name))]
  return Distribution(name=name, values=np.sort(np.array(values, np.float64)))


def worst_first(records: Mapping[str, SceneRecord], metric: str | None) -> list[str]:
  """Sorts scene names from the worst value of a metric to the best.

  Scenes without a value come before those with one, failed scenes come last, and names break ties.

  Args:
    records: of the manifest.
    metric: to sort by; None sorts by status and name alone.
  """

  def key(name: str) -> tuple[bool, float, str]:
    failed = records[name].status == "failed"
    value = records[name].metrics.get(metric) if metric else None
    if value is None or not _is_finite(value):
      return failed, -np.inf, name
    return failed, -value if metric and lower_is_better(metric) else value, name

  return sorted(records, key=key)


def group_failures(records: Mapping[str, SceneRecord]) -> list[FailureGroup]:
  """Groups failed and rejected scenes by kind of reason: failed first, then the largest groups.

  Reasons are of one kind if they differ only in paths, numbers and scene names.
  """
  groups: dict[tuple[str, str], FailureGroup] = {}
  for name, record in records.items():
    if record.status == "done":
      continue
    kind = re.sub(rf"\S*/\S*|\b{re.escape(name)}\b|\d+(\.\d+)?", "#", record.error)
    new = FailureGroup(status=record.status, reason=record.error, scenes={})
    groups.setdefault((record.status, kind), new).scenes[name] = record.error
  return sorted(groups.values(), key=lambda g: (g.status != "failed", -len(g.scenes), g.reason))


def mean_seconds(records: Mapping[str, SceneRecord]) -> dict[str, float]:
  """Returns the mean seconds of a scene by stage, in the order of the stages.

  Failed scenes do not count. Empty where no scene has times.
  """
  sums: dict[str, list[float]] = {}
  for record in records.values():
    if record.status != "failed":
      for stage, seconds in record.seconds.items():
        sums.setdefault(stage, []).append(seconds)
  order = [*_STAGES, *sorted(set(sums) - set(_STAGES))]
  return {stage: float(np.mean(sums[stage])) for stage in order if stage in sums}


def measure_throughput(
  records: Mapping[str, SceneRecord], starts: Sequence[Mapping[str, Any]]
) -> Throughput | None:
  """Returns scenes per minute over working time.

  Args:
    records: of the manifest; `extra["finished"]` is the ISO time at which a scene was finished.
    starts: of the run, each with its ISO time under `started`.

  Returns:
    None where fewer than eight scenes carry a time, or no start does.
  """
  began = sorted(t for start in starts if (t := parse_time(start.get("started"))) is not None)
  ends = sorted(t for r in records.values() if (t := parse_time(r.extra.get("finished"))))
  if len(ends) < _FEWEST_TIMED or not began:
    return None
  minutes, restarts = _working_minutes(np.array(began), np.array(ends))
  span = minutes[-1] - minutes[0]
  if span <= 0:
    return None
  count = int(np.clip(len(ends) // 6, 4, _MOST_BINS))
  edges = np.linspace(0, minutes[-1], count + 1)
  rates = np.histogram(minutes, edges)[0] / np.diff(edges)
  per_minute = float((len(ends) - 1) / span)
  return Throughput(edges=edges, rates=rates, restarts=restarts, per_minute=per_minute)


def _working_minutes(starts: np.ndarray, ends: np.ndarray) -> tuple[np.ndarray, list[float]]:
  """Places scenes on a clock that stands still between two starts of a run.

  A start works until its last scene is finished.

  Args:
    starts: times at which the run started, ascending, seconds.
    ends: (n,) times at which scenes were finished, ascending, seconds.

  Returns:
    (n,) minutes at which the scenes were finished, and minutes of the second and later starts.
  """
  owner = np.maximum(np.searchsorted(starts, ends, side="right") - 1, 0)
  minutes, restarts, offset = np.zeros(len(ends)), [], 0.0
  for start in np.unique(owner):
    own = owner == start
    if offset > 0:
      restarts.append(offset)
    minutes[own] = offset + (ends[own] - min(starts[start], ends[own][0])) / 60
    offset = float(minutes[own][-1])
  return minutes, restarts


def parse_time(text: Any) -> float | None:
  """Returns an ISO time as seconds since 1970, or None for anything else."""
  try:
    return datetime.datetime.fromisoformat(text).timestamp()
  except (TypeError, ValueError):
    return None


def _is_finite(value: float | None) -> bool:
  return value is not None and bool(np.isfinite(value))
