"""A worker on a machine of a cluster, and what it sends back; Ray makes an actor of it."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import signal
import threading
from collections.abc import Mapping
from typing import Any

import numpy as np
from absl import logging
from rich.console import Console

from jaxsplat_mouse.dataset.scene_records import SceneRecord
from jaxsplat_mouse.dataset.sources import Source
from jaxsplat_mouse.errors import InputError
from jaxsplat_mouse.run import batches
from jaxsplat_mouse.run.batches import Plan
from jaxsplat_mouse.run.fitting import FitError
from jaxsplat_mouse.run.scene_input import measure_radius
from jaxsplat_mouse.run.settings import Settings
from jaxsplat_mouse.run.workdir import Workdir
from jaxsplat_mouse.run.worker import Read, Worker, loaded_scenes
from jaxsplat_mouse.runtime import devices
from jaxsplat_mouse.runtime.progress import Progress
from jaxsplat_mouse.runtime.signals import Stopped, StopRequest

Shapes = tuple[tuple[int, int], tuple[int, int]]
Scenes = tuple[dict[str, Source], dict[str, float]]  # by name, and scales by recording


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outcome:
  """What became of a scene on a worker: a record, or the reason why there is none."""

  name: str
  record: SceneRecord | None = None
  reason: str = ""
  unreadable: bool = False


class Collector:
  """Keeps outcomes as what can be sent to the driver."""

  def __init__(self) -> None:
    """None yet."""
    self.outcomes: list[Outcome] = []

  def written(self, name: str, outcome: SceneRecord | Exception) -> None:
    """A scene is written, or could not be."""
    if isinstance(outcome, SceneRecord):
      self.outcomes.append(Outcome(name=name, record=outcome))
    else:
      self.failed(name, outcome)

  def failed(self, name: str, error: Exception) -> None:
    """A scene came to nothing."""
    reason = (str(error) or type(error).__name__).splitlines()[0]
    if not isinstance(error, (InputError, FitError, OSError)):
      logging.error("%s failed in a way that was not foreseen", name, exc_info=error)
      reason = f"{type(error).__name__}: {reason}"
    unreadable = isinstance(error, InputError)
    self.outcomes.append(Outcome(name=name, reason=reason, unreadable=unreadable))

  def fitting(self, iteration: int, metrics: Mapping[str, np.ndarray]) -> None:
    """A batch has come to an iteration: `metrics.jsonl` tells."""

  def take(self) -> list[Outcome]:
    """What has come since the last call."""
    taken, self.outcomes = self.outcomes, []
    return taken


class RemoteWorker:
  """Does batches in a process of its own, told by calls from several threads."""

  def __init__(self, settings: Settings, workdir: Workdir):
    """Takes what every run has; scenes come with each call, so that nothing need be told twice."""
    devices.set_up_cache()
    self._settings = settings
    self._stop, self._collector = StopRequest(), Collector()
    self._sources: dict[str, Source] = {}
    self._read: dict[str, Read] = {}
    self._device = threading.Lock()
    self._worker = Worker(
      settings,
      workdir,
      self._sources,
      stop=self._stop,
      progress=Progress("scenes", 0, console=Console(file=io.StringIO())),
      events=self._collector,
    )

  def describe(self) -> tuple[dict[str, Any], int]:
    """The device, and how many scenes it fits together."""
    return devices.describe(), batches.auto_batch(self._settings.fit.num_gaussians)

  def measure(self, source: Source) -> float | str:
    """Radius of a scene's hull in input units, or why there is none."""
    try:
      return measure_radius(source, self._settings.hull)
    except InputError as error:
      return str(error)

  def _meet(self, scenes: Scenes) -> None:
    sources, scales = scenes
    self._sources.update(sources)
    self._worker.scales = {**self._worker.scales, **scales}

  def prepare(self, plan: Plan, scenes: Scenes) -> Shapes | None:
    """Reads a batch ahead; the crops that it needs, None where none of its scenes can be read."""
    self._meet(scenes)
    read = self._read[plan.folder.name] = self._worker.read(plan)
    found = [one.scene for one in loaded_scenes(read)]
    return batches.needed_shapes(found) if found else None

  def fit(self, plan: Plan, scenes: Scenes) -> list[Outcome]:
    """Does a batch, read before or not; a stopped one tells only what was finished."""
    self._meet(scenes)
    with self._device:
      read = self._read.pop(plan.folder.name, None) or self._worker.read(plan)
      with contextlib.suppress(Stopped):
        self._worker.do_batch(plan, read, alone=False)
      self._worker.flush()
      return self._collector.take()

  def render(self, names: tuple[str, ...], scenes: Scenes) -> list[Outcome]:
    """Renders scenes from the fits of before."""
    self._meet(scenes)
    with self._device:
      for name in names:
        if not self._stop.requested:
          self._worker.render_again(name)
      self._worker.flush()
      return self._collector.take()

  def stop(self) -> None:
    """Asks the fit to save its state and end."""
    self._stop.number = signal.SIGTERM
