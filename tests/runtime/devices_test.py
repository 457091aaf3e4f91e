"""Devices: what their memory holds, and where compiled programs are kept."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys

import pytest

from jaxsplat_mouse.runtime import devices

ROOT = pathlib.Path(__file__).resolve().parents[2]


@pytest.mark.parametrize(
  ("count", "memory", "items"),
  [(1, None, 1), (4, None, 4), (1, 1000, 6), (1, 10_000, 8), (4, 10_000, 32), (1, 1, 1)],
)
def test_memory_bounds_the_items(
  count: int, memory: int | None, items: int, monkeypatch: pytest.MonkeyPatch
) -> None:
  monkeypatch.setattr(devices, "describe", lambda: {"count": count, "memory": memory})
  assert devices.items_in_memory(100, most=8) == items


def test_the_cache_is_the_users_and_can_be_moved_or_turned_off(
  tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
  monkeypatch.setenv(devices.CACHE_VARIABLE, str(tmp_path / "mine"))
  assert devices.set_up_cache() == tmp_path / "mine"
  monkeypatch.setenv(devices.CACHE_VARIABLE, "")
  assert devices.set_up_cache() is None
  code = (
    "from jaxsplat_mouse.runtime import devices; import jax;"
    "print(devices.set_up_cache()); print(jax.config.jax_compilation_cache_dir)"
  )
  env = {k: v for k, v in os.environ.items() if k != devices.CACHE_VARIABLE}
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
