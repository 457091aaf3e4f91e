"""Curves of a run for TensorBoard: `tensorboard --logdir=FOLDER`.

fit/NAME       mean over the scenes of a batch, by iterations of this run
scene/NAME     metrics of finished scenes, by scenes finished in this run
seconds/STAGE  seconds of finished scenes, by scenes finished in this run
train/NAME     losses and scores of a training, by its steps
"""

from __future__ import annotations

import pathlib
from collections.abc import Mapping
from types import ModuleType

import numpy as np

from jaxsplat_mouse.dataset.scene_records import SceneRecord
from jaxsplat_mouse.errors import ConfigError


class TensorBoardWriter:
  """Writes TensorBoard event files, or nothing where it has no folder."""

  def __init__(self, folder: pathlib.Path | None, key: str = "report.tensorboard"):
    """Opens a new event file.

    Args:
      folder: where to write; None writes nothing.
      key: the setting that asked for it, for messages.

    Raises:
      ConfigError: tensorboardX is not installed.
    """
    # Iterations of earlier batches, and the last iteration of the present one.
    self._earlier, self._iteration = 0, 0
    self._scenes = 0
    self._writer = None
    if folder is not None:
      self._writer = _import_library(key).SummaryWriter(str(folder))

  def add_iteration(self, iteration: int, metrics: Mapping[str, np.ndarray]) -> None:
    """Adds metrics (B,) of a batch, by name, at one of its iterations."""
    if iteration <= self._iteration:  # the count began again: another batch
      self._earlier += self._iteration
    self._iteration = iteration
    for name, values in metrics.items():
      self._add(f"fit/{name}", float(np.mean(values)), self._earlier + iteration)

  def add_scene(self, record: SceneRecord) -> None:
    """Adds the metrics and times of a finished scene."""
    self._scenes += 1
    for name, value in record.metrics.items():
      if value is not None:
        self._add(f"scene/{name}", value, self._scenes)
    for stage, seconds in record.seconds.items():
      self._add(f"seconds/{stage}", seconds, self._scenes)

  def add_step(self, step: int, record: Mapping[str, float]) -> None:
    """Adds losses and scores of a training, by name, at one of its steps."""
    for name, value in record.items():
      self._add(f"train/{name}", value, step)

  def _add(self, name: str, value: float, step: int) -> None:
    if self._writer is not None and np.isfinite(value):
      self._writer.add_scalar(name, value, step)

  def close(self) -> None:
    """Flushes and closes the event file."""
    if self._writer is not None:
      self._writer.close()


def _import_library(key: str) -> ModuleType:
  try:
    import tensorboardX
  except ImportError:
    raise ConfigError(
      f"{key}: needs tensorboardX; expected pip install 'jaxsplat-mouse[tensorboard]'"
    ) from None
  return tensorboardX
