"""The quality gate: scenes whose metrics miss a bound are written, but left out of the lists.

The rules are the keys of `dataset.gate`: `min_METRIC` or `max_METRIC`, METRIC being a name in the
manifest's `metrics`. A rule ignores scenes without its metric. Rules are applied to the manifest,
so changing them costs neither fits nor renders.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from jaxsplat_mouse.dataset.scene_records import SceneRecord


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rule:
  """A bound on one metric.

  Attributes:
    metric: name in the manifest.
    bound: the least or the largest value that passes.
    least: whether `bound` is the least.
  """

  metric: str
  bound: float
  least: bool

  @property
  def key(self) -> str:
    """The key in the configuration, such as `min_input_iou`."""
    return f"{'min' if self.least else 'max'}_{self.metric}"

  def problem(self, metrics: Mapping[str, float | None]) -> str:
    """Returns why metrics do not pass, or ""; a metric that is not finite does not pass."""
    if self.metric not in metrics:
      return ""
    value = metrics[self.metric]
    if value is not None and (value >= self.bound if self.least else value <= self.bound):
      return ""
    shown = "no number" if value is None else f"{value:.4g}"
    side = "below" if self.least else "above"
    return f"{self.metric} {shown} is {side} {self.bound:g} (dataset.gate.{self.key})"


def parse_rules(values: Mapping[str, Any]) -> tuple[Rule, ...]:
  """Returns the rules of a `dataset.gate` section.

  Raises:
    ValueError: a key without `min_` or `max_`, or a bound that is no number.
  """
  rules = []
  for key, bound in values.items():
    side, _, metric = key.partition("_")
    if side not in ("min", "max") or not metric:
      raise ValueError(f"dataset.gate.{key}: expected min_METRIC or max_METRIC")
    if isinstance(bound, bool) or not isinstance(bound, (int, float)):
      raise ValueError(f"dataset.gate.{key}: {bound!r}, expected a number")
    rules.append(Rule(metric=metric, bound=float(bound), least=side == "min"))
  return tuple(rules)


def apply_rules(record: SceneRecord, rules: Sequence[Rule]) -> SceneRecord:
  """Returns the record with the status `done`, or `rejected` and the rules that it breaks.

  The record of a scene that failed stays as it is.
  """
  if record.status == "failed":
    return record
  problems = [text for rule in rules if (text := rule.problem(record.metrics))]
  status = "rejected" if problems else "done"
  return dataclasses.replace(record, status=status, error="; ".join(problems))
