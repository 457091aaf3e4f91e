"""Where the time of a run goes: stages, and what no stage counts."""

from __future__ import annotations

import json
import pathlib
import time

import pytest

from jaxsplat_mouse.runtime.timing import WAITING, Timing


def test_stages_and_the_rest_add_up_to_the_wall_clock(tmp_path: pathlib.Path) -> None:
  path = tmp_path / "timing.jsonl"
  began = time.monotonic()
  timing = Timing(path)
  for _ in range(2):
    with timing.stage("fit"):
      time.sleep(0.02)
  time.sleep(0.03)
  timing.end_batch(4)
  wall = time.monotonic() - began
  with pytest.raises(ValueError), timing.stage("save"):
    time.sleep(0.01)
    raise ValueError
  timing.end_batch(2)
  first, second = map(json.loads, path.read_text().splitlines())
  assert (first["scenes"], second["scenes"]) == (4, 2)
  assert first["seconds"]["fit"] >= 0.04 and first["seconds"][WAITING] >= 0.03
  assert sum(first["seconds"].values()) <= wall + 0.001
  assert set(second["seconds"]) == {WAITING, "save"} and second["seconds"]["save"] >= 0.01


def test_a_run_goes_on_where_it_cannot_be_told(tmp_path: pathlib.Path) -> None:
  Timing(tmp_path).end_batch(1)
