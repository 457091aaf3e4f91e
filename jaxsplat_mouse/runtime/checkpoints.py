"""Checkpoints of an unfinished computation, with Orbax: each is whole or absent, even after a kill.

A state is a pytree of arrays, such as that of a fit or of a training run. It is saved and restored
as NumPy arrays, so it comes back bit for bit and does not depend on the devices of either process.
"""

from __future__ import annotations

import os
import pathlib
from typing import Any, TypeVar

import jax
import numpy as np
import orbax.checkpoint as ocp
from absl import logging

from jaxsplat_mouse.errors import reason

T = TypeVar("T")

_KEPT = 2  # the newest may turn out to be unreadable


class CheckpointError(OSError):
  """A state could not be saved; older checkpoints are unchanged."""


class Checkpoints:
  """The newest two states of one computation in a folder, by step."""

  def __init__(self, folder: str | os.PathLike[str]):
    """Names the folder; the first `save` makes it.

    Opening an existing folder removes states that were never completed.
    """
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
    """Returns the steps with a complete state on disk, ascending."""
    return sorted(self._open().all_steps()) if self._folder.is_dir() else []

  def save(self, step: int, state: Any) -> None:
    """Saves a state; a step that is on disk already stays as it is.

    Args:
      step: the number of steps that led to the state.
      state: a pytree of arrays, none of them empty.

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
      message = f"{self._folder}: cannot save step {step} ({reason(error)})"
      raise CheckpointError(message) from error

  def restore(self, template: T) -> tuple[int, T] | None:
    """Restores the newest state that can be read.

    Args:
      template: a pytree with the structure, shapes and dtypes of the state.

    Returns:
      its step and the state; None where there is none.
    """
    shapes = jax.tree.map(lambda leaf: np.zeros(leaf.shape, leaf.dtype), template)
    for step in reversed(self.steps()):
      try:
        restored = self._open().restore(step, args=ocp.args.StandardRestore(shapes))
      except Exception as error:  # as above: a damaged file shows in many ways
        message = "%s/%d: ignoring an unreadable checkpoint (%s)"
        logging.warning(message, self._folder, step, reason(error))
        continue
      return step, restored
    return None

  def close(self) -> None:
    """Releases the folder; the next call of another method opens it again."""
    if self._manager is not None:
      self._manager.close()
      self._manager = None
