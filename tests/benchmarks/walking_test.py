"""Benchmarks on walking mice: frames differ, both scripts run small."""

from __future__ import annotations

import json

import numpy as np
import pytest

from benchmarks import surface, walking, warm_start


def test_an_animal_walks_from_frame_to_frame(tmp_path):
  frames = [walking.Frame(seed=3, phase=phase) for phase in (0.0, 0.25)]
  first, second = walking.trials(frames, 32, 1, tmp_path)
  assert first.scene.images.shape == (6, 32, 32, 3)
  assert np.abs(first.scene.alphas - second.scene.alphas).max() > 0.5
  assert first.truth[0].max() <= 1 and first.truth[0][..., 3].max() > 0.9
  kept, _ = walking.trials(frames, 32, 1, tmp_path)
  np.testing.assert_array_equal(kept.scene.images, first.scene.images)


@pytest.mark.slow
def test_warm_start_runs_small(monkeypatch, tmp_path):
  monkeypatch.setenv("OUT", str(tmp_path))
  monkeypatch.setattr("sys.argv", ["warm_start", "--size=tiny", "--mice=1"])
  warm_start.main()
  rows = json.loads((tmp_path / "warm_start.json").read_text())["rows"]
  assert [row["start"] for row in rows] == ["cold", "short", "warm"]
  assert rows[1]["steps"] == rows[2]["steps"] < rows[0]["steps"]


@pytest.mark.slow
def test_surface_runs_small(monkeypatch, tmp_path):
  pytest.importorskip("skimage")
  pytest.importorskip("trimesh")
  monkeypatch.setenv("OUT", str(tmp_path))
  monkeypatch.setattr("sys.argv", ["surface", "--size=tiny", "--mice=1", "--config=2dgs"])
  surface.main()
  (row,) = json.loads((tmp_path / "surface.json").read_text())["rows"]
  assert 0 < row["chamfer"] < 1 and 0 < row["normal_error"] < 90
