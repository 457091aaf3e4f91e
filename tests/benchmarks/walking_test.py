"""Benchmarks on walking mice: frames differ, both scripts run small."""

from __future__ import annotations

import json

import numpy as np
import pytest

from benchmarks import surface, walking, warm_start, warm_steps
from jaxsplat_mouse.run import frame_order, job
from tests.run_fixtures import tiny_config


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
  monkeypatch.setattr(frame_order, "FEWEST", 4)
  monkeypatch.setattr(frame_order, "_SEGMENTS", 1)
  ways = []

  def process(film: warm_start.Film, way: str, flags: list[str]) -> float:
    ways.append(way)
    if len(ways) > 2:  # the first two only compile
      config = tiny_config(str(film.folder / "in"))
      config.fit.warm_start = way
      assert job.run(config, film.folder / way) == 0
    return 60.0

  monkeypatch.setattr(warm_start, "process", process)
  flags = ["--size=tiny", "--mice=1", "--moments=5", "--rates=30"]
  monkeypatch.setattr("sys.argv", ["warm_start", *flags])
  warm_start.main()
  assert ways == 2 * ["off", "auto"]
  rows = json.loads((tmp_path / "warm_start.json").read_text())["rows"]
  assert [(row["way"], row["scenes_per_minute"]) for row in rows] == [("off", 5), ("auto", 5)]
  assert rows[0]["warm"] == 0 and rows[1]["warm"] == 4 / 5
  assert [(one["depth"], one["scenes"]) for one in rows[1]["by_depth"]] == [(0, 1), (1, 2), (2, 2)]


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
