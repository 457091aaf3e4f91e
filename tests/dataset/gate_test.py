"""The quality gate: bounds on metrics, reasons, and a change of mind."""

from __future__ import annotations

import pytest

from jaxsplat_mouse.dataset import gate
from jaxsplat_mouse.dataset.scene_records import SceneRecord


def record(**metrics: float | None) -> SceneRecord:
  return SceneRecord(scene="a", status="done", metrics=metrics)


RULES = gate.parse_rules({"min_input_iou": 0.9, "max_leak": 0.1})


@pytest.mark.parametrize(
  ("metrics", "reason"),
  [
    ({"input_iou": 0.9, "leak": 0.1}, ""),
    ({"input_iou": 0.95}, ""),
    ({}, ""),
    ({"input_iou": 0.8999}, "input_iou 0.8999 is below 0.9 (dataset.gate.min_input_iou)"),
    ({"leak": 0.2}, "leak 0.2 is above 0.1 (dataset.gate.max_leak)"),
    ({"input_iou": None}, "input_iou no number is below 0.9 (dataset.gate.min_input_iou)"),
  ],
)
def test_a_scene_passes_or_is_rejected_with_the_reason(
  metrics: dict[str, float | None], reason: str
) -> None:
  found = gate.apply_rules(record(**metrics), RULES)
  assert (found.status, found.error) == ("rejected" if reason else "done", reason)


def test_every_reason_is_told() -> None:
  found = gate.apply_rules(record(input_iou=0.1, leak=0.5), RULES)
  assert found.error.count("; ") == 1


def test_a_laxer_rule_takes_a_scene_back() -> None:
  rejected = gate.apply_rules(record(input_iou=0.5), RULES)
  assert gate.apply_rules(rejected, gate.parse_rules({"min_input_iou": 0.4})) == record(
    input_iou=0.5
  )


def test_a_failed_scene_stays_failed() -> None:
  failed = SceneRecord(scene="a", status="failed", error="broken", metrics={"input_iou": 1.0})
  assert gate.apply_rules(failed, RULES) == failed


@pytest.mark.parametrize("values", [{"input_iou": 0.5}, {"min_": 1}, {"min_x": "many"}])
def test_what_is_no_rule_is_told(values: dict) -> None:
  with pytest.raises(ValueError, match=r"dataset\.gate\.\w+: .*expected"):
    gate.parse_rules(values)
