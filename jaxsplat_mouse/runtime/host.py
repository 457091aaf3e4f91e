"""Cores and memory of the host that this process may use."""

from __future__ import annotations

import os
import pathlib


def host_cores() -> int:
  """Returns the number of usable cores, which a batch system may have limited."""
  if hasattr(os, "sched_getaffinity"):
    return len(os.sched_getaffinity(0))
  return os.cpu_count() or 1


def host_memory() -> int:
  """Returns the usable memory in bytes: the machine's, or its container's limit."""
  total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
  try:
    limit = pathlib.Path("/sys/fs/cgroup/memory.max").read_text().strip()
    return min(total, int(limit))
  except (OSError, ValueError):  # no container, or one without a limit
    return total
