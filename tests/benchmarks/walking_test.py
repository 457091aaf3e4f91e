"""Benchmarks on walking mice: frames differ, both scripts run small."""

from __future__ import annotations

import json

import numpy as np
import pytest

from benchmarks import surface, walking, warm_start, warm_steps


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
  flags = ["--size=tiny", "--mice=1", "--moments=32", "--rates=30", "--config.batch.scenes=8"]
  monkeypatch.setattr("sys.argv", ["warm_start", *flags])
  warm_start.main()
  rows = json.loads((tmp_path / "warm_start.json").read_text())["rows"]
  assert [(row["way"], row["scenes"]) for row in rows] == [("off", 32), ("auto", 32)]
  assert rows[0]["warm"] == 0 and rows[1]["warm"] == 28 / 32
  assert max(one["depth"] for one in rows[1]["by_depth"]) == 4


@pytest.mark.slow
def test_warm_steps_runs_small(monkeypatch, tmp_path):
  monkeypatch.setenv("OUT", str(tmp_path))
  flags = ["--size=tiny", "--mice=1", "--rates=30", "--steps=5"]
  monkeypatch.setattr("sys.argv", ["warm_steps", *flags])
  warm_steps.main()
  rows = json.loads((tmp_path / "warm_steps.json").read_text())["rows"]
  assert [(row["start"], row["steps"]) for row in rows] == [("cold", 10), ("warm", 5)]
  assert 0.8 < rows[0]["overlap"] < 1


@pytest.mark.slow
def test_surface_runs_small(monkeypatch, tmp_path):
  pytest.importorskip("skimage")
  pytest.importorskip("trimesh")
  monkeypatch.setenv("OUT", str(tmp_path))
  monkeypatch.setattr("sys.argv", ["surface", "--size=tiny", "--mice=1", "--config=2dgs"])
  surface.main()
  (row,) = json.loads((tmp_path / "surface.json").read_text())["rows"]
  assert 0 < row["chamfer"] < 1 and 0 < row["normal_error"] < 90
