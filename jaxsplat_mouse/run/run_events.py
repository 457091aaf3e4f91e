"""Records the outcomes of scenes as they arrive, and prints one line for each."""

from __future__ import annotations

import time
from collections.abc import Mapping

import numpy as np

from jaxsplat_mouse.dataset.scene_records import SceneRecord
from jaxsplat_mouse.errors import InputError
from jaxsplat_mouse.report.formatting import format_metric, metric_title
from jaxsplat_mouse.report.statistics import HEADLINE_METRICS
from jaxsplat_mouse.report.tensorboard import TensorBoardWriter
from jaxsplat_mouse.run.ledger import Ledger
from jaxsplat_mouse.runtime.progress import Progress, format_seconds

_MANY_SCENES = 50  # from which a log file gets a line now and then instead of one for each scene
_SECONDS_BETWEEN_LINES = 10.0


class RunEvents:
  """Receives the outcomes of scenes; see `worker.SceneEvents`.

  Attributes:
    unreadable: number of scenes that failed because their input cannot be read.
  """

  def __init__(self, ledger: Ledger, progress: Progress, curves: TensorBoardWriter):
    """Stores where outcomes go.

    Args:
      ledger: records them in the manifest.
      progress: prints a line and counts the scene.
      curves: gets metrics and losses.
    """
    self._ledger, self._progress, self._curves = ledger, progress, curves
    self.unreadable = 0
    self._line_printed_at = 0.0

  def written(self, name: str, outcome: SceneRecord | Exception) -> None:
    """Records a scene whose files are written, or the error that prevented it."""
    if isinstance(outcome, SceneRecord):
      try:
        record = self._ledger.record_written(outcome)
        self._progress.item_ended()
        self._curves.add_scene(record)
        self._print_scene(record)
        return
      except OSError as error:
        outcome = error
    self.failed(name, outcome)

  def failed(self, name: str, error: Exception) -> None:
    """Records a scene that failed and prints the reason; the others continue."""
    self.unreadable += isinstance(error, InputError)
    self._progress.line(f"{name}: failed: {self._ledger.record_failure(name, error)}")
    self._progress.item_ended()

  def fitting(self, iteration: int, metrics: Mapping[str, np.ndarray]) -> None:
    """Adds the losses (B,) of a batch to the curves."""
    self._curves.add_iteration(iteration, metrics)

  def _print_scene(self, record: SceneRecord) -> None:
    """Prints a line about a scene; of many scenes without a terminal, one line now and then."""
    now = time.monotonic()
    many = len(self._ledger.sources) > _MANY_SCENES and not self._progress.console.is_terminal
    if many and now - self._line_printed_at < _SECONDS_BETWEEN_LINES:
      return
    self._line_printed_at = now
    self._progress.line(format_outcome(record))


def format_outcome(record: SceneRecord) -> str:
  """Returns `NAME: done, input fg PSNR 27.1 dB, ..., 41 s`, with the reason where there is one."""
  values = [
    f"{metric_title(name)} {format_metric(name, record.metrics[name])}"
    for name in HEADLINE_METRICS
    if name in record.metrics
  ]
  seconds = format_seconds(sum(record.seconds.values()))
  reason = [record.error] if record.error else []
  return ", ".join([f"{record.scene}: {record.status}", *values, seconds, *reason])
