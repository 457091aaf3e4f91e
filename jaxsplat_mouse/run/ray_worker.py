"""The worker that runs on a machine of a cluster as a Ray actor, and what it returns."""

from __future__ import annotations

import contextlib
import dataclasses
import io
import signal
import threading
import uuid
from collections.abc import Mapping
from typing import Any

import numpy as np
from rich.console import Console

from jaxsplat_mouse.dataset.scene_records import SceneRecord
from jaxsplat_mouse.dataset.sources import Source
from jaxsplat_mouse.errors import InputError
from jaxsplat_mouse.run import batches
from jaxsplat_mouse.run.batches import BatchPlan
from jaxsplat_mouse.run.ledger import failure_reason
from jaxsplat_mouse.run.ray_tasks import CropShapes
from jaxsplat_mouse.run.scene_input import measure_radius
from jaxsplat_mouse.run.settings import Settings
from jaxsplat_mouse.run.workdir import Workdir
from jaxsplat_mouse.run.worker import ReadScenes, Worker, readable_scenes
from jaxsplat_mouse.runtime import devices
from jaxsplat_mouse.runtime.progress import Progress
from jaxsplat_mouse.runtime.signals import Stopped, StopRequest

Scenes = tuple[dict[str, Source], dict[str, float]]  # sources by name, scales by recording


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outcome:
  """The outcome of a scene, as it travels to the driver.

  Attributes:
    name: the scene.
    record: its record; None where it failed.
    reason: why it failed, in one line.
    unreadable: it failed because its input cannot be read.
  """

  name: str
  record: SceneRecord | None = None
  reason: str = ""
  unreadable: bool = False


class Collector:
  """Receives the events of a worker and keeps the outcomes for the driver."""

  def __init__(self) -> None:
    """Starts empty."""
    self.outcomes: list[Outcome] = []

  def written(self, name: str, outcome: SceneRecord | Exception) -> None:
    """Keeps the record of a scene, or the error that kept it from being written."""
    if isinstance(outcome, SceneRecord):
      self.outcomes.append(Outcome(name=name, record=outcome))
    else:
      self.failed(name, outcome)

  def failed(self, name: str, error: Exception) -> None:
    """Keeps the reason why a scene failed."""
    unreadable = isinstance(error, InputError)
    reason = failure_reason(name, error)
    self.outcomes.append(Outcome(name=name, reason=reason, unreadable=unreadable))

  def fitting(self, iteration: int, metrics: Mapping[str, np.ndarray]) -> None:
    """Ignores the progress of a fit, which `metrics.jsonl` contains."""

  def take(self) -> list[Outcome]:
    """Returns the outcomes since the last call."""
    taken, self.outcomes = self.outcomes, []
    return taken


class RemoteWorker:
  """Computes batches in a process of its own; Ray calls its methods in several threads."""

  def __init__(self, settings: Settings, workdir: Workdir):
    """Takes what all calls share; scenes come with each call, so a new process needs no history.

    Args:
      settings: of the run.
      workdir: the run's folder, which every machine sees.
    """
    self._process = uuid.uuid4().hex
    devices.set_up_cache()
    self._settings = settings
    self._stop, self._collector = StopRequest(), Collector()
    self._sources: dict[str, Source] = {}
    self._read: dict[str, ReadScenes] = {}
    self._device = threading.Lock()
    self._worker = Worker(
      settings,
      workdir,
      self._sources,
      stop=self._stop,
      progress=Progress("scenes", 0, console=Console(file=io.StringIO())),
      events=self._collector,
    )

  def ping(self) -> str:
    """Returns an identifier of this process: a worker that was started again has another one."""
    return self._process

  def watch(self) -> None:
    """Never returns: to the driver this call fails when the process dies."""
    threading.Event().wait()

  def describe(self) -> tuple[dict[str, Any], int]:
    """Returns the description of the device, and how many scenes it fits together."""
    return devices.describe(), batches.auto_batch(self._settings.fit.num_gaussians)

  def measure(self, source: Source) -> float | str:
    """Returns the radius of a scene's hull in input units, or why it has none."""
    try:
      return measure_radius(source, self._settings.hull)
    except InputError as error:
      return str(error)

  def _add_scenes(self, scenes: Scenes) -> None:
    sources, scales = scenes
    self._sources.update(sources)
    self._worker.scales = {**self._worker.scales, **scales}

  def prepare(self, plan: BatchPlan, scenes: Scenes) -> CropShapes | None:
    """Reads a batch ahead; returns the crops that it needs, None where no scene can be read."""
    self._add_scenes(scenes)
    read = self._read[plan.folder.name] = self._worker.read(plan)
    found = [one.scene for one in readable_scenes(read)]
    return batches.needed_shapes(found) if found else None

  def fit(self, plan: BatchPlan, scenes: Scenes) -> list[Outcome]:
    """Fits and writes a batch, read ahead or not; a stopped one returns what was finished."""
    self._add_scenes(scenes)
    with self._device:
      read = self._read.pop(plan.folder.name, None) or self._worker.read(plan)
      with contextlib.suppress(Stopped):
        self._worker.do_batch(plan, read, only_batch=False)
      self._worker.flush()
      return self._collector.take()

  def render(self, names: tuple[str, ...], scenes: Scenes) -> list[Outcome]:
    """Renders scenes from their saved fits and writes them."""
    self._add_scenes(scenes)
    with self._device:
      for name in names:
        if not self._stop.requested:
          self._worker.render_again(name)
      self._worker.flush()
      return self._collector.take()

  def stop(self) -> None:
    """Has the fit save its state and end."""
    self._stop.number = signal.SIGTERM
