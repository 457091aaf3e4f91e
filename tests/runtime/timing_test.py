"""Timing: seconds by stage, and those that no stage counts."""

from __future__ import annotations

import json
import pathlib

import pytest

from jaxsplat_mouse.runtime.timing import WAITING, Timing


class Clock:
  """A clock that the test moves."""

  seconds = 100.0

  def __call__(self) -> float:
    return self.seconds


def test_stages_and_the_rest_add_up_to_the_wall_clock(tmp_path: pathlib.Path) -> None:
  path, clock = tmp_path / "timing.jsonl", Clock()
  timing = Timing(path, clock)
  for _ in range(2):
    with timing.stage("fit"):
      clock.seconds += 2
  clock.seconds += 3
  timing.end_round(scenes=4)
  with pytest.raises(ValueError), timing.stage("save"):
    clock.seconds += 0.5
    raise ValueError
  timing.end_round(scenes=2)
  first, second = map(json.loads, path.read_text().splitlines())
  assert first == {"scenes": 4, "seconds": {WAITING: 3, "fit": 4}}
  assert second == {"scenes": 2, "seconds": {WAITING: 0, "save": 0.5}}


def test_a_file_that_cannot_be_written_costs_nothing(tmp_path: pathlib.Path) -> None:
  Timing(tmp_path).end_round(scenes=1)
