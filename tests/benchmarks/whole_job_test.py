"""The benchmark of the whole job, at a size that says nothing about speed."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent


def test_the_benchmark_runs_and_tells(tmp_path: pathlib.Path) -> None:
  found = subprocess.run(
    [
      *(sys.executable, "-m", "benchmarks.whole_job", "--scenes=3", "--tiny"),
      *(f"--folder={tmp_path}", "--config.batch.scenes=2"),
    ],
    cwd=ROOT,
    env={**os.environ, "OUT": str(tmp_path)},
    capture_output=True,
    text=True,
  )
  assert found.returncode == 0, found.stderr
  told = json.loads((tmp_path / "whole_job.json").read_text())
  assert (told["scenes"], told["done"], told["first_batch_scenes"]) == (3, 3, 2)
  assert told["steady_scenes_per_minute"] > 0 and told["projected_minutes_for_1600"] > 0
  assert set(told["stage_seconds"]) >= {"prepare", "fit", "output"}
  assert "steady scenes per minute" in found.stdout
  if sys.platform == "linux":
    assert 1 << 26 < told["peak_rss_bytes"] < 1 << 36
