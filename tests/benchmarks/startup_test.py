"""The benchmark of start-up: what it reads from a log and a run, and that it runs."""

from __future__ import annotations

import json
import os
import pathlib
import subprocess
import sys

import pytest

from benchmarks import startup

ROOT = pathlib.Path(__file__).resolve().parents[2]
LOG = """
warning: Finished tracing run_chunk for jit in 3.5 sec
warning: Compiling jit(run_chunk) with global shapes and types (ShapedArray(bool[]),).
warning: Finished jaxpr to MLIR module conversion jit(run_chunk) in 1.25 sec
warning: Finished XLA compilation of jit(run_chunk) in 16.0 sec
warning: Finished XLA compilation of jit(_render) in 5e-1 sec
mouse_00000: done, fit 3 s
"""


def test_seconds_of_compilation_are_read_from_the_log() -> None:
  found = startup.compiled(LOG)
  assert (found["trace"], found["lower"], found["compile"]) == (3.5, 1.25, 16.5)
  assert found["programs"] == 2
  assert found["slowest"] == {"run_chunk": 20.75, "_render": 0.5}


def test_the_parts_make_up_the_whole() -> None:
  found = startup.parts({"config": 4.0, "fit": 20.0, "done": 26.0}, {"prepare": 5.0, "fit": 10.0})
  assert found == {"imports": 4.0, "prepare": 5.0, "fit": 10.0, "output": 6.0, "other": 1.0}


@pytest.mark.slow
def test_the_second_start_compiles_less(tmp_path: pathlib.Path) -> None:
  flags = ["--tiny", "--config.report.quality=False", "--config.report.contact_sheets=False"]
  found = subprocess.run(
    [sys.executable, "-m", "benchmarks.startup", *flags],
    cwd=ROOT,
    env={**os.environ, "OUT": str(tmp_path)},
    capture_output=True,
    text=True,
  )
  assert found.returncode == 0, found.stderr
  cold, warm = json.loads((tmp_path / "startup.json").read_text())["rows"]
  # Not the whole time, which depends on what else the machine does; compiling takes many times as
  # long as loading from the cache.
  assert warm["seconds"] > 0 and warm["compile"] < 0.7 * cold["compile"]
  assert warm["imports"] > 0 and warm["programs"] > 0 and "run_chunk" in warm["slowest"]
  assert "cold" in found.stdout and "warm" in found.stdout
