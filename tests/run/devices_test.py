"""Batches on several devices, and what a device is asked for."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys

import pytest

from jaxsplat_mouse.run import batches
from jaxsplat_mouse.runtime import devices

ROOT = pathlib.Path(__file__).resolve().parents[2]


# One process for both runs: how XLA splits a loop over threads, and so the last bit of a scene's
# preparation, depends on the number of devices that a process has.
TWO_DEVICES = """
import pathlib, sys
import jax
from jaxsplat_mouse.fit import driver
from jaxsplat_mouse.run import job
from tests.run_fixtures import results, tiny_config

mice, workdir = sys.argv[1], pathlib.Path(sys.argv[2])
devices = jax.local_devices()
placed = []
place = driver._BatchLoop._place

def watch(self, state):
  shards = place(self, state)
  placed.append({d for _, one in shards for d in one.step.devices()})
  return shards

driver._BatchLoop._place = watch
assert job.run(tiny_config(mice), workdir / "two") == 0
jax.local_devices = lambda **kinds: devices[:1]
start = driver.FitDriver.__init__

def short_of_memory(self, *args, **kinds):
  start(self, *args, **kinds)
  self._scenes_at_once = 1

driver.FitDriver.__init__ = short_of_memory
assert job.run(tiny_config(mice), workdir / "one") == 0
assert placed == [set(devices), set(devices[:1])], placed
assert results(workdir / "two") == results(workdir / "one")
print(len(results(workdir / "two")), "files")
"""


def test_two_devices_do_what_one_does(mice: pathlib.Path, tmp_path: pathlib.Path) -> None:
  """A batch of two on two devices is the same as one scene after the other on one, bit for bit."""
  two = "--xla_force_host_platform_device_count=2 " + os.environ.get("XLA_FLAGS", "")
  done = subprocess.run(
    [sys.executable, "-c", TWO_DEVICES, str(mice), str(tmp_path)],
    cwd=ROOT,
    env={**os.environ, "PYTHONPATH": str(ROOT), "XLA_FLAGS": two},
    capture_output=True,
    text=True,
  )
  assert done.returncode == 0, done.stderr
  assert '"count": 2' in (tmp_path / "two" / "config.json").read_text()
  assert done.stdout.splitlines()[-1] == "12 files"


def test_batches_follow_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
  def has(count: int, memory: int | None) -> None:
    monkeypatch.setattr(devices, "describe", lambda: {"count": count, "memory": memory})

  has(1, None)
  assert batches.auto_batch(20_000) == 1
  has(1, 80 << 30)
  assert batches.auto_batch(20_000) == 64
  has(4, 80 << 30)
  assert batches.auto_batch(20_000) == 256
  has(1, 4 << 30)
  assert 4 <= batches.auto_batch(20_000) <= 10
  has(1, 1 << 20)
  assert batches.auto_batch(20_000) == 1
