"""What a run has left to do, and the interface of the engines that do it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Protocol

from jaxsplat_mouse.dataset.sources import Source
from jaxsplat_mouse.run.batches import BatchPlan
from jaxsplat_mouse.run.worker import SceneEvents
from jaxsplat_mouse.runtime.progress import Progress


@dataclasses.dataclass(frozen=True, kw_only=True)
class RunPlan:
  """What a run has left to do.

  Attributes:
    sources: all scenes of the run by name.
    scales: canonical units per input unit by recording; empty where every scene has its own scale.
    fitted: names of scenes that are rendered from the fits of earlier runs.
    plans: batches to fit, in order.
    one_batch: the run is a single batch, whose crops can be as tight as possible.
  """

  sources: Mapping[str, Source]
  scales: Mapping[str, float]
  fitted: tuple[str, ...]
  plans: tuple[BatchPlan, ...]
  one_batch: bool


class Engine(Protocol):
  """Fits batches and renders scenes: `execution.LocalEngine` or `ray_cluster.Cluster`."""

  def describe(self) -> dict[str, Any]:
    """Returns the platform, kind and number of the devices, for `config.json`."""

  def auto_batch(self) -> int:
    """Returns how many scenes a device's memory can fit together."""

  def measure(self, source: Source) -> float:
    """Returns the radius of a scene's hull in input units.

    Raises:
      InputError: the scene cannot be read, or has no hull.
    """

  def run(self, work: RunPlan, events: SceneEvents, progress: Progress) -> None:
    """Renders and fits all scenes of a plan.

    Args:
      work: the scenes and batches.
      events: receives the outcome of every scene, in the calling thread.
      progress: displays the fit.

    Raises:
      Stopped: a signal came; what was computed is saved.
    """
