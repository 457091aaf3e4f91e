"""Batches on several devices, and what a device is asked for."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys
from typing import Any

import pytest

from jaxsplat_mouse import pipeline
from jaxsplat_mouse.pipeline import device, fitting
from tests.run_fixtures import CONFIG_FILE, results, tiny_config

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent


def test_two_devices_do_what_one_does(
  mice: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
  """A batch of two on two devices is the same as one scene after the other on one."""
  (tmp_path / "tiny.py").write_text(CONFIG_FILE)
  flags = [f"--config={tmp_path / 'tiny.py'}", f"--config.data.input={mice}"]
  two = "--xla_force_host_platform_device_count=2"
  done = subprocess.run(
    [sys.executable, "-m", "jaxsplat_mouse.main", *flags, f"--workdir={tmp_path / 'two'}"],
    cwd=ROOT,
    env={**os.environ, "PYTHONPATH": str(ROOT), "XLA_FLAGS": two},
    capture_output=True,
    text=True,
  )
  assert done.returncode == 0, done.stderr
  assert '"count": 2' in (tmp_path / "two" / "config.json").read_text()
  start = fitting.Fitter.__init__

  def short_of_memory(self: fitting.Fitter, *args: Any) -> None:
    start(self, *args)
    self._at_once = 1

  monkeypatch.setattr(fitting.Fitter, "__init__", short_of_memory)
  assert pipeline.run(tiny_config(str(mice)), tmp_path / "one") == 0
  plys = lambda folder: {k: v for k, v in results(folder).items() if k.endswith(".ply")}
  assert len(plys(tmp_path / "one")) == 2
  assert plys(tmp_path / "two") == plys(tmp_path / "one")


def test_batches_follow_the_memory(monkeypatch: pytest.MonkeyPatch) -> None:
  def has(count: int, memory: int | None) -> None:
    monkeypatch.setattr(device, "describe", lambda: {"count": count, "memory": memory})

  has(1, None)
  assert device.auto_batch(20_000) == 1
  has(1, 80 << 30)
  assert device.auto_batch(20_000) == 64
  has(4, 80 << 30)
  assert device.auto_batch(20_000) == 256
  has(1, 4 << 30)
  assert 4 <= device.auto_batch(20_000) <= 10
  has(1, 1 << 20)
  assert device.auto_batch(20_000) == 1


def test_the_cache_is_the_users_and_can_be_moved_or_turned_off(
  tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
  monkeypatch.setenv(device.CACHE_VARIABLE, str(tmp_path / "mine"))
  assert device.set_up_cache() == tmp_path / "mine"
  monkeypatch.setenv(device.CACHE_VARIABLE, "")
  assert device.set_up_cache() is None
  code = (
    "from jaxsplat_mouse.pipeline import device; import jax;"
    "print(device.set_up_cache()); print(jax.config.jax_compilation_cache_dir)"
  )
  env = {k: v for k, v in os.environ.items() if k != device.CACHE_VARIABLE}
  found = subprocess.run(
    [sys.executable, "-c", code],
    cwd=ROOT,
    env={**env, "XDG_CACHE_HOME": str(tmp_path / "cache")},
    capture_output=True,
    text=True,
  )
  lines = found.stdout.splitlines()
  assert lines[0] == lines[1]
  assert lines[0].startswith(str(tmp_path / "cache" / "jaxsplat_mouse")), found.stderr
