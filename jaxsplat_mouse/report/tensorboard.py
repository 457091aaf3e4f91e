"""A run's curves, beside `metrics.jsonl`, for `tensorboard --logdir=WORKDIR/tensorboard`.

fit/NAME       mean over the scenes of a batch, by iterations done in this run
scene/NAME     metrics of finished scenes, by scenes done in this run
seconds/STAGE  likewise
"""

from __future__ import annotations

from collections.abc import Mapping
from types import ModuleType

import numpy as np

from jaxsplat_mouse.dataset.manifest import SceneRecord
from jaxsplat_mouse.errors import ConfigError
from jaxsplat_mouse.run.workdir import Workdir


class Scalars:
  """Writes event files; without `wanted`, nothing."""

  def __init__(self, workdir: Workdir, wanted: bool):
    """Opens a new event file.

    Raises:
      ConfigError: tensorboardX is not installed.
    """
    self._scenes, self._before, self._last = 0, 0, 0
    self._writer = None
    if wanted:
      self._writer = _library().SummaryWriter(str(workdir.state / "tensorboard"))

  def chunk(self, iteration: int, metrics: Mapping[str, np.ndarray]) -> None:
    """A batch has come to an iteration with metrics (B,) by name."""
    if iteration <= self._last:  # another batch
      self._before += self._last
    self._last = iteration
    for name, values in metrics.items():
      self._add(f"fit/{name}", float(np.mean(values)), self._before + iteration)

  def scene(self, record: SceneRecord) -> None:
    """A scene is done."""
    self._scenes += 1
    for name, value in record.metrics.items():
      if value is not None:
        self._add(f"scene/{name}", value, self._scenes)
    for stage, seconds in record.seconds.items():
      self._add(f"seconds/{stage}", seconds, self._scenes)

  def _add(self, name: str, value: float, step: int) -> None:
    if self._writer is not None and np.isfinite(value):
      self._writer.add_scalar(name, value, step)

  def close(self) -> None:
    """Writes what is left."""
    if self._writer is not None:
      self._writer.close()


def _library() -> ModuleType:
  try:
    import tensorboardX
  except ImportError:
    raise ConfigError(
      "report.tensorboard: needs tensorboardX; expected pip install 'jaxsplat-mouse[tensorboard]'"
    ) from None
  return tensorboardX
