"""A pool of processes that compute on the CPU, each on cores of its own, for films of mice."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any


@contextlib.contextmanager
def cpu_workers(jobs: int, cores: int) -> Iterator[ProcessPoolExecutor]:
  """Opens a pool of `jobs` processes, with `cores` cores each; 0 for all.

  They are spawned, since they must not inherit the device of this process.
  """
  context = get_context("spawn")
  held = dict(os.environ)
  os.environ["JAX_PLATFORMS"] = "cpu"
  if cores:
    os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = str(cores)
  try:
    number = context.Value("i", 0)
    with ProcessPoolExecutor(jobs, context, _keep_to_cores, (number, cores)) as pool:
      yield pool
  finally:
    os.environ.clear()
    os.environ.update(held)


def _keep_to_cores(number: Any, cores: int) -> None:
  """Gives a worker cores of its own, so that the thread pools of many do not crowd one another."""
  import cv2

  if not cores or not hasattr(os, "sched_setaffinity"):
    return
  with number.get_lock():
    mine, number.value = number.value, number.value + 1
  every = sorted(os.sched_getaffinity(0))
  os.sched_setaffinity(0, [every[(mine * cores + i) % len(every)] for i in range(cores)])
  cv2.setNumThreads(cores)
