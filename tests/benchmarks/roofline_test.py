"""The counts of the roofline, against arithmetic by hand at a tiny size."""

from __future__ import annotations

import json
import pathlib

import pytest

from benchmarks import roofline, workload

_SIZES = roofline.Sizes(
  flat=False,
  splats=10,
  images=6,
  pixels=100,
  tile=64,
  parameters=14,
  features=9,
  channels=3,
  entries=1000.0,
  walked=500.0,
)


def test_counts_by_hand():
  counts = roofline.count(_SIZES)
  assert counts["adam"] == (4 * 7 * 140, 12 * 140)
  assert counts["forward"] == (4 * (540 + 500 + 5 * 600), (13 + 2 + 6) * 500 * 64)
  assert counts["backward_sums"] == (4 * (9 * 500 + 540), 4500)
  assert counts["photometric"] == (4 * 15 * 600, (352 + 40) * 1800)


def test_the_slower_of_memory_and_arithmetic_decides():
  (row, whole) = roofline.bound({"a": (2.9e9, 1.0)}, 2.9, 67.0)
  assert row["least_ms"] == pytest.approx(1.0) and row["limit"] == "memory"
  (row, whole) = roofline.bound({"a": (1.0, 134e9)}, 2.9, 67.0)
  assert row["least_ms"] == pytest.approx(2.0) and row["limit"] == "compute"
  rows = [row, whole]
  roofline.compare(rows, {"a": 8.0, "whole_ms": 4.0})
  assert [r["fraction"] for r in rows] == pytest.approx([0.25, 0.5])


def test_entries_come_from_the_workload_and_scale_with_it(tmp_path: pathlib.Path, capsys):
  setting = workload.Setting(flat=False, scenes=2, splats=50, size=24, entries=40.0)
  sizes = roofline.count_sizes(setting)
  assert (sizes.splats, sizes.images, sizes.pixels, sizes.tile) == (100, 12, 576, 64)
  assert sizes.parameters == 3 + 3 + 4 + 1 + 3 and sizes.channels == 3
  assert 0 < sizes.entries <= 12 * 50 * 9 and sizes.walked == sizes.entries
  with pytest.raises(ValueError, match="did not fit"):
    roofline.count_sizes(workload.Setting(flat=False, scenes=1, splats=50, size=24, entries=0.5))
  measured = dict(model="3d", scenes=2, splats=50, size=24, forward=1.0, walked_m=1e-4)
  path = tmp_path / "w1.json"
  path.write_text(json.dumps({"rows": [{"check": "3d"}, measured]}))
  roofline.main([f"--measured={path}", "--entries=40"])
  told = capsys.readouterr().out
  assert told.count("fraction=") == 1 and "stage=whole" in told
