"""Workers of a cluster that die where a test wants it, and the command with such workers."""

from __future__ import annotations

import os
import pathlib
import runpy
import signal
import sys
from collections.abc import Mapping, Sequence

import numpy as np

from jaxsplat_mouse.run import ray_cluster
from jaxsplat_mouse.run.batches import BatchPlan
from jaxsplat_mouse.run.ray_tasks import CropShapes
from jaxsplat_mouse.run.ray_worker import Collector, RemoteWorker, Scenes
from jaxsplat_mouse.run.settings import Settings
from jaxsplat_mouse.run.workdir import Workdir


def _die() -> None:
  os.kill(os.getpid(), signal.SIGKILL)


class DiesOnce(RemoteWorker):
  """The first worker to come half way through a fit dies there; its replacements do not."""

  def __init__(self, settings: Settings, workdir: Workdir):
    """Watches the fit."""
    super().__init__(settings, workdir)
    collector: Collector = self._collector
    collector.fitting = self._fitting  # type: ignore[method-assign]

  def _fitting(self, iteration: int, metrics: Mapping[str, np.ndarray]) -> None:
    if iteration >= 10:
      try:
        (pathlib.Path(os.environ["DYING_WORKERS"]) / "died").touch(exist_ok=False)
      except FileExistsError:
        return
      _die()


class DiesOfOneScene(RemoteWorker):
  """Dies whenever it reads `mouse_1`."""

  def prepare(self, plan: BatchPlan, scenes: Scenes) -> CropShapes | None:
    """Reads a batch, or dies."""
    if "mouse_1" in plan.names:
      _die()
    return super().prepare(plan, scenes)


def run_command(worker: type[RemoteWorker], flags: Sequence[str]) -> None:
  """Runs `python -m jaxsplat_mouse.main` with another class of workers."""
  ray_cluster.RemoteWorker = worker  # type: ignore[misc]
  sys.argv = ["jaxsplat_mouse.main", *flags]
  runpy.run_module("jaxsplat_mouse.main", run_name="__main__")
