"""What a run has to do, and what an engine is that does it."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any, Protocol

from jaxsplat_mouse.dataset.sources import Source
from jaxsplat_mouse.run.batches import BatchPlan
from jaxsplat_mouse.run.worker import SceneEvents
from jaxsplat_mouse.runtime.progress import Progress


@dataclasses.dataclass(frozen=True, kw_only=True)
class Work:
  """What a run has to do.

  Attributes:
    sources: scenes by name.
    scales: canonical units per input unit by recording.
    fitted: scenes that are only rendered, from the fits of before.
    plans: batches to fit.
    one_batch: the run is a single batch, whose crops may be as tight as they can be.
  """

  sources: Mapping[str, Source]
  scales: Mapping[str, float]
  fitted: tuple[str, ...]
  plans: tuple[BatchPlan, ...]
  one_batch: bool


class Engine(Protocol):
  """Does the work of a run."""

  def describe(self) -> dict[str, Any]:
    """What it computes on."""

  def auto_batch(self) -> int:
    """Scenes to fit together."""

  def measure(self, source: Source) -> float:
    """Radius of a scene's hull in input units; raises InputError where there is none."""

  def run(self, work: Work, events: SceneEvents, progress: Progress) -> None:
    """Does everything and tells every outcome; raises Stopped where a signal came."""
