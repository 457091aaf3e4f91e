"""Shows, records, saves and stops a fit between two of its chunks of steps."""

from __future__ import annotations

import json
import pathlib
import time
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType
from typing import Any

import numpy as np
from absl import logging

from jaxsplat_mouse.fit.config import FitConfig
from jaxsplat_mouse.fit.driver import FitCallbacks, FitDriver, Snapshot
from jaxsplat_mouse.fit.loop import FitState, run_chunk
from jaxsplat_mouse.run.settings import CheckpointSettings
from jaxsplat_mouse.runtime import devices
from jaxsplat_mouse.runtime.background_compiler import BackgroundCompiler
from jaxsplat_mouse.runtime.checkpoints import CheckpointError, Checkpoints
from jaxsplat_mouse.runtime.programs import Program
from jaxsplat_mouse.runtime.progress import Progress
from jaxsplat_mouse.runtime.signals import StopRequest
from jaxsplat_mouse.runtime.threads import side_by_side

# Steps of a chunk. A chunk takes a few seconds, so the host's work in between costs little.
_STEPS = 50
_STEPS_ON_ACCELERATORS = 250

chunk_program = Program(run_chunk, static=(2, 3, 4, 5))


def make_driver(config: FitConfig, settings: CheckpointSettings) -> FitDriver:
  """Returns the driver of a run, with programs that are stored on disk and a thread per device.

  Args:
    config: the recipe.
    settings: number of steps of a chunk.
  """
  usual = _STEPS_ON_ACCELERATORS if devices.is_accelerator() else _STEPS
  return FitDriver(
    config,
    chunk_steps=settings.steps or usual,
    program=lambda *arguments: chunk_program(*arguments),
    side_by_side=side_by_side,
  )


class RunCallbacks(FitCallbacks):
  """Follows the fit of one batch; as a context manager it closes the checkpoints.

  Attributes:
    seconds: wall time of the fit in this process, after the block.
  """

  def __init__(
    self,
    *,
    names: Sequence[str],
    iterations: int,
    checkpoints: Checkpoints | None,
    seconds_between: float,
    stop: StopRequest,
    metrics_file: pathlib.Path | None = None,
    progress: Progress | None = None,
    compiler: BackgroundCompiler | None = None,
    fitting: Callable[[int, Mapping[str, np.ndarray]], None] = lambda iteration, metrics: None,
  ):
    """Stores what to follow and where to report it.

    Args:
      names: names of the scenes of the batch.
      iterations: steps of the fit.
      checkpoints: where snapshots are saved; None saves none.
      seconds_between: least time between two snapshots.
      stop: ends the fit after the present chunk, once its state is saved.
      metrics_file: gets the losses of every scene after each chunk, one JSON object a line.
      progress: displays the fit.
      compiler: compiles later programs in the background.
      fitting: called with the iteration and the losses (B,) by name after each chunk.
    """
    self._names, self._iterations = names, iterations
    self._checkpoints, self._seconds_between = checkpoints, seconds_between
    self._stop, self._metrics_file, self._progress = stop, metrics_file, progress
    self._compiler, self._fitting = compiler, fitting
    self._started = self._saved_at = time.monotonic()
    self.seconds = 0.0

  def __enter__(self) -> RunCallbacks:
    """Displays the fit."""
    if self._progress:
      steps = self._checkpoints.steps() if self._checkpoints else []
      self._progress.start_task(self._names, max([0, *steps]), self._iterations)
    self._started = self._saved_at = time.monotonic()
    return self

  def __exit__(
    self,
    kind: type[BaseException] | None,
    error: BaseException | None,
    trace: TracebackType | None,
  ) -> None:
    """Closes the checkpoints and removes the fit from the display."""
    self.seconds = time.monotonic() - self._started
    if self._checkpoints:
      self._checkpoints.close()
    if self._progress:
      self._progress.end_task()

  def newest(self, state: FitState) -> FitState | Snapshot:
    """Returns the newest snapshot that can be read, or `state` if there is none."""
    template: dict[str, Any] = {"state": state, "tile_entries": np.zeros((), np.float64)}
    restored = self._checkpoints.restore(template) if self._checkpoints else None
    if restored is None:
      return state
    saved = restored[1]
    return Snapshot(state=saved["state"], tile_entries=float(saved["tile_entries"]))

  def chunk_done(
    self, iteration: int, metrics: Mapping[str, np.ndarray], snapshot: Callable[[], Snapshot]
  ) -> None:
    """Saves a snapshot if one is due, reports losses, and stops after a signal.

    Args:
      iteration: steps that are done.
      metrics: losses (B,) by name.
      snapshot: copies the state to the host.

    Raises:
      Stopped: a signal came; the state is saved.
    """
    stopping = self._stop.requested and iteration < self._iterations
    if stopping or time.monotonic() - self._saved_at >= self._seconds_between:
      self._save(iteration, snapshot)
    if self._progress:
      self._progress.update_task(iteration, f"loss {np.nanmean(metrics['loss']):.4f}")
    self._append_metrics(iteration, metrics)
    self._fitting(iteration, metrics)
    if stopping:
      self._stop.check()

  def will_run(self, arguments: Sequence[tuple[Any, ...]]) -> None:
    """Compiles later programs in the background."""
    for one in arguments:
      if self._compiler:
        self._compiler.start(chunk_program, *one)

  def room_grew(self, dropped: int, tile_entries: float) -> None:
    """Logs that a chunk runs again with more tile entries per splat."""
    logging.info(
      "%d splat-tile pairs dropped: fit.tile_entries is now %g, the chunk runs again",
      dropped,
      tile_entries,
    )

  def pairs_dropped(self, dropped: int) -> None:
    """Logs that a fit leaves out pairs of splat and tile."""
    logging.warning("%d splat-tile pairs left out of a fit", dropped)

  def memory_short(self, scenes: int, scenes_at_once: int) -> None:
    """Logs that fewer scenes run at a time."""
    logging.warning("out of device memory with %d scenes at once; now %d", scenes, scenes_at_once)

  def _save(self, iteration: int, snapshot: Callable[[], Snapshot]) -> None:
    """Saves the state; the fit continues if that fails."""
    if self._checkpoints is None:
      return
    now = snapshot()
    room = np.array(now.tile_entries, np.float64)
    try:
      self._checkpoints.save(iteration, {"state": now.state, "tile_entries": room})
    except CheckpointError as error:
      logging.warning("%s; the fit continues without this checkpoint", error)
    self._saved_at = time.monotonic()

  def _append_metrics(self, iteration: int, metrics: Mapping[str, np.ndarray]) -> None:
    """Appends a line for each scene; the fit continues if that fails."""
    if self._metrics_file is None:
      return
    lines = []
    for i, name in enumerate(self._names):
      values = {k: round(float(v[i]), 6) for k, v in metrics.items() if np.isfinite(v[i])}
      lines.append(json.dumps({"scene": name, "iteration": iteration, **values}) + "\n")
    try:
      with open(self._metrics_file, "a", encoding="utf-8") as file:
        file.write("".join(lines))
    except OSError as error:
      logging.warning("%s: not written (%s)", self._metrics_file, error.strerror)
