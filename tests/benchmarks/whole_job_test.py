"""The benchmark of the whole job, at a size that allows no claim about speed."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys

import pytest

from benchmarks import whole_job
from tests.report.report_fixtures import START, fake_run

ROOT = pathlib.Path(__file__).resolve().parents[2]


def test_the_steady_rate_leaves_out_the_first_batch(tmp_path: pathlib.Path) -> None:
  workdir = tmp_path / "w"
  fake_run(workdir, 60, pictures=False)
  names = [f"mouse{i % 12:02d}_frame_{i:05d}" for i in range(60)]
  rows = [(n, step) for batch in (names[:20], names[20:]) for step in (5, 10) for n in batch]
  lines = [json.dumps({"scene": name, "iteration": step}) + "\n" for name, step in rows]
  (workdir / "metrics.jsonl").write_text("".join(lines))
  rows = [
    (20, {"waiting": 40.0, "fit": 9.0}),
    (30, {"waiting": 3.0, "fit": 12.0}),
    (10, {"fit": 8.0}),
  ]
  lines = [json.dumps({"scenes": n, "seconds": seconds}) + "\n" for n, seconds in rows]
  (workdir / "timing.jsonl").write_text("".join(lines))
  watch = whole_job.Watch(os.getpid())
  watch.gpu = [(START.timestamp() + s, 50.0, 1000.0) for s in range(3)]
  found = whole_job.measure(workdir, watch, START.timestamp(), 100.0, 3)
  assert found["first_batch_scenes"] == 20 and found["scenes_per_minute"] == 36
  assert 30 < found["first_batch_done_seconds"] < 60
  rest = found["projected_minutes_for_1600"] - found["first_batch_done_seconds"] / 60
  assert found["steady_scenes_per_minute"] * rest == pytest.approx(1580)
  assert found["gpu_busy_percent"] == 50
  assert found["device_thread_seconds_a_scene"] == {"waiting": 3 / 40, "fit": 20 / 40}


@pytest.mark.slow
def test_the_benchmark_runs_and_writes_its_figures(tmp_path: pathlib.Path) -> None:
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
  figures = json.loads((tmp_path / "whole_job.json").read_text())
  assert (figures["scenes"], figures["done"], figures["first_batch_scenes"]) == (3, 3, 2)
  assert figures["steady_scenes_per_minute"] > 0 and figures["projected_minutes_for_1600"] > 0
  assert set(figures["stage_seconds"]) >= {"prepare", "fit", "output"}
  assert "steady scenes per minute" in found.stdout
  if sys.platform == "linux":
    assert 1 << 26 < figures["peak_rss_bytes"] < 1 << 36
