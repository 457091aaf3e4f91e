"""States of a half-finished fit on disk, with Orbax: whole or not there, whatever kills the run.

States go in and come out as NumPy arrays, so what is restored is bit for bit what was saved and a
checkpoint does not depend on the devices it was made on.
"""

from __future__ import annotations

import os
import pathlib
from typing import Any, TypeVar

import jax
import numpy as np
import orbax.checkpoint as ocp
from absl import logging

T = TypeVar("T")

_KEPT = 2  # the newest may turn out to be unreadable


class CheckpointError(OSError):
  """A state could not be saved; older ones are as they were."""


class Checkpoints:
  """The states of one fit under one folder, by step."""

  def __init__(self, folder: str | os.PathLike[str]):
    """Opens the folder, which is made with the first `save`; half-written states are removed."""
    self._folder = pathlib.Path(folder).absolute()
    self._manager: ocp.CheckpointManager | None = None

  def _open(self) -> ocp.CheckpointManager:
    if self._manager is None:
      options = ocp.CheckpointManagerOptions(
        max_to_keep=_KEPT, enable_async_checkpointing=False, cleanup_tmp_directories=True
      )
      self._manager = ocp.CheckpointManager(self._folder, options=options)
    return self._manager

  def steps(self) -> list[int]:
    """Steps with a whole state on disk, ascending."""
    return sorted(self._open().all_steps()) if self._folder.is_dir() else []

  def save(self, step: int, state: Any) -> None:
    """Saves a pytree of arrays, none of them empty; a step that is there already stays as it is.

    Raises:
      CheckpointError: the disk is full, the folder is gone or not writable.
    """
    host = jax.tree.map(np.asarray, state)
    try:
      manager = self._open()
      if step not in manager.all_steps():
        manager.save(step, args=ocp.args.StandardSave(host), force=True)
    except Exception as error:  # TensorStore and Orbax raise many types for one thing: not saved
      self.close()
      reason = (str(error) or type(error).__name__).splitlines()[0]
      raise CheckpointError(f"{self._folder}: cannot save step {step} ({reason})") from error

  def restore(self, template: T) -> tuple[int, T] | None:
    """The newest state that can be read, and its step; None where there is none.

    Args:
      template: a pytree with the structure, shapes and dtypes of the state.
    """
    shapes = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), template)
    for step in reversed(self.steps()):
      try:
        restored = self._open().restore(step, args=ocp.args.StandardRestore(shapes))
      except Exception as error:  # as above: a torn file shows in many ways
        reason = (str(error) or type(error).__name__).splitlines()[0]
        logging.warning("%s/%d: unreadable checkpoint left out (%s)", self._folder, step, reason)
        continue
      return step, restored
    return None

  def close(self) -> None:
    """Lets go of the folder."""
    if self._manager is not None:
      self._manager.close()
      self._manager = None
