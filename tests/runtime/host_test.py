"""The host: cores and memory."""

from __future__ import annotations

import os

from jaxsplat_mouse.runtime.host import host_cores, host_memory


def test_cores_and_memory_are_plausible() -> None:
  assert 1 <= host_cores() <= (os.cpu_count() or 1)
  assert 1 << 28 < host_memory() < 1 << 50
