"""Chooses where batches run: on the devices of this machine, or on the workers of a cluster."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from jaxsplat_mouse.dataset.sources import Source
from jaxsplat_mouse.run import batches
from jaxsplat_mouse.run.engine import Engine, RunPlan
from jaxsplat_mouse.run.scene_input import measure_radius
from jaxsplat_mouse.run.settings import Settings
from jaxsplat_mouse.run.workdir import Workdir
from jaxsplat_mouse.run.worker import SceneEvents, Worker
from jaxsplat_mouse.runtime import devices
from jaxsplat_mouse.runtime.progress import Progress
from jaxsplat_mouse.runtime.signals import StopRequest
from jaxsplat_mouse.runtime.threads import read_ahead


@contextlib.contextmanager
def open_engine(settings: Settings, workdir: Workdir, stop: StopRequest) -> Iterator[Engine]:
  """Opens the engine that `execution.engine` names and disconnects from its cluster at the end.

  Args:
    settings: of the run.
    workdir: folder of the run.
    stop: reports a signal.

  Yields:
    the engine.

  Raises:
    ConfigError: the device or cluster does not exist, or its library is not installed.
  """
  if settings.execution.engine == "local":
    devices.set_up_cache()
    yield LocalEngine(settings, workdir, stop)
    return
  from jaxsplat_mouse.run import ray_cluster  # Ray is optional

  with ray_cluster.open_cluster(settings, workdir, stop) as engine:
    yield engine


class LocalEngine:
  """Uses all devices of this machine, in this process; see `engine.Engine`."""

  def __init__(self, settings: Settings, workdir: Workdir, stop: StopRequest):
    """Stores what every run shares; touches no device yet.

    Args:
      settings: of the run.
      workdir: folder of the run.
      stop: reports a signal.
    """
    self._settings, self._workdir, self._stop = settings, workdir, stop

  def describe(self) -> dict[str, Any]:
    """Returns the platform, kind and number of the devices."""
    return devices.describe()

  def auto_batch(self) -> int:
    """Returns how many scenes the memory of the devices can fit together."""
    return batches.auto_batch(self._settings.fit.num_gaussians)

  def measure(self, source: Source) -> float:
    """Returns the radius of a scene's hull in input units; raises InputError without a hull."""
    with devices.on_host():
      return measure_radius(source, self._settings.hull)

  def run(self, work: RunPlan, events: SceneEvents, progress: Progress) -> None:
    """Renders the scenes that are fitted already, then fits batch after batch.

    Args:
      work: the scenes and batches.
      events: receives the outcome of every scene, in this thread.
      progress: displays the fit.

    Raises:
      Stopped: a signal came.
    """
    worker = Worker(
      self._settings,
      self._workdir,
      work.sources,
      stop=self._stop,
      progress=progress,
      events=events,
    )
    worker.scales = work.scales
    try:
      for name in work.fitted:
        self._stop.check()
        worker.render_again(name)
      for plan, read in read_ahead(work.plans, worker.read, worker.reader_threads > 1):
        self._stop.check()
        worker.do_batch(plan, read, work.one_batch)
    finally:
      worker.close()
