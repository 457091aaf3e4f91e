"""Where batches run: on this machine, or spread over a cluster."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

from jaxsplat_mouse.dataset.sources import Source
from jaxsplat_mouse.run import batches
from jaxsplat_mouse.run.scene_input import measure_radius
from jaxsplat_mouse.run.settings import Settings
from jaxsplat_mouse.run.work import Engine, Work
from jaxsplat_mouse.run.workdir import Workdir
from jaxsplat_mouse.run.worker import SceneEvents, Worker
from jaxsplat_mouse.runtime import devices
from jaxsplat_mouse.runtime.progress import Progress
from jaxsplat_mouse.runtime.signals import StopRequest
from jaxsplat_mouse.runtime.threads import read_ahead


@contextlib.contextmanager
def open_engine(settings: Settings, workdir: Workdir, stop: StopRequest) -> Iterator[Engine]:
  """The engine that the settings ask for; a cluster is left again at the end.

  Raises:
    ConfigError: there is no such device or cluster, or its library is missing.
  """
  if settings.execution.engine == "local":
    devices.set_up_cache()
    yield Local(settings, workdir, stop)
    return
  from jaxsplat_mouse.run import ray_cluster

  with ray_cluster.open_cluster(settings, workdir, stop) as engine:
    yield engine


class Local:
  """All devices of this machine, in this process."""

  def __init__(self, settings: Settings, workdir: Workdir, stop: StopRequest):
    """Takes what every run has; no device is touched yet."""
    self._settings, self._workdir, self._stop = settings, workdir, stop

  def describe(self) -> dict[str, Any]:
    """Platform, kind and number of the devices."""
    return devices.describe()

  def auto_batch(self) -> int:
    """What the memory of the devices holds."""
    return batches.auto_batch(self._settings.fit.num_gaussians)

  def measure(self, source: Source) -> float:
    """Radius of a scene's hull in input units."""
    with devices.on_host():
      return measure_radius(source, self._settings.hull)

  def run(self, work: Work, events: SceneEvents, progress: Progress) -> None:
    """Renders what is fitted, then does batch after batch."""
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
