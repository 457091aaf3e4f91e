"""The order of a run: finished scenes stay, begun batches continue, the other scenes follow."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from absl import logging
from ml_collections import ConfigDict

from jaxsplat_mouse.dataset import sources
from jaxsplat_mouse.dataset.lists import check_list_path
from jaxsplat_mouse.dataset.sources import Source
from jaxsplat_mouse.report import turntable
from jaxsplat_mouse.report.closing_summary import print_closing_summary
from jaxsplat_mouse.report.tensorboard import TensorBoardWriter
from jaxsplat_mouse.run import batches, frame_order
from jaxsplat_mouse.run.closing import write_lists_and_report
from jaxsplat_mouse.run.config_keys import flatten
from jaxsplat_mouse.run.engine import Engine, RunPlan
from jaxsplat_mouse.run.execution import open_engine
from jaxsplat_mouse.run.ledger import Ledger
from jaxsplat_mouse.run.recording_scales import fix_scales
from jaxsplat_mouse.run.run_events import RunEvents
from jaxsplat_mouse.run.settings import Settings
from jaxsplat_mouse.run.workdir import Workdir
from jaxsplat_mouse.runtime.host import host_cores
from jaxsplat_mouse.runtime.progress import Progress
from jaxsplat_mouse.runtime.signals import Stopped, StopRequest

DONE, NOTHING_STARTED, SOME_FAILED = 0, 1, 3


def run(config: ConfigDict, workdir: str | os.PathLike[str], config_file: str = "") -> int:
  """Fits all scenes of a configuration and writes the dataset; continues a stopped run.

  Args:
    config: as a file of `configs/` returns it.
    workdir: the folder of the run.
    config_file: the name of that file, for `config.json`.

  Returns:
    the exit status: 0 if all scenes are done, 3 if some failed, 1 if no scene could be read, 130 or
    143 if Ctrl-C or SIGTERM stopped the run.

  Raises:
    ConfigError: a setting cannot be used, or differs from the one that the workdir was made with.
    InputError: the input cannot be read at all, or the workdir cannot be written or is in use.
  """
  settings = Settings.from_config(config)
  found = _find_sources(settings)
  shard = settings.data.shard
  folder = Workdir(workdir, str(shard) if shard else "")
  check_list_path(folder.dataset)
  folder.make()
  with folder.locked(), StopRequest() as stop, open_engine(settings, folder, stop) as engine:
    with folder.turn():
      changed = folder.record_run(_flatten(config, settings), config_file, engine.describe())
    job = _Job(settings, folder, found, stop, engine)
    if changed:
      job.progress.line(
        f"Changed: {', '.join(changed)}. Scenes are rendered again from their fits."
      )
    try:
      with job.progress:
        job.compute()
    except Stopped as stopped:
      job.progress.line(f"Stopped by {stopped.name}. The same command continues from here.")
      return stopped.exit_status
    return job.close()


def _find_sources(settings: Settings) -> list[Source]:
  data = settings.data
  return sources.find_sources(data.input, mice=data.mice, mouse_image_size=data.mouse_image_size)


def _flatten(config: ConfigDict, settings: Settings) -> dict[str, Any]:
  """Returns the configuration for `config.json`, with an absolute path of the input."""
  flat = flatten(config)
  if settings.data.input:
    flat["data.input"] = os.path.abspath(settings.data.input)
  return flat


class _Job:
  """One run over all scenes, or over a shard of them."""

  def __init__(
    self,
    settings: Settings,
    workdir: Workdir,
    found: Sequence[Source],
    stop: StopRequest,
    engine: Engine,
  ):
    self._settings, self._workdir, self._stop, self._engine = settings, workdir, stop, engine
    self._everything, shard = found, settings.data.shard
    own = frame_order.shard_sources(settings, found) if shard else found
    self._ledger = Ledger(settings, workdir, own)
    self._finished = self._ledger.find_finished()
    curves = workdir.state / "tensorboard" if settings.report.tensorboard else None
    self._curves = TensorBoardWriter(curves)
    if settings.report.turntable:
      turntable.import_video_library()  # fails now rather than after the first fit
    self.progress = Progress("scenes", len(own), len(self._finished))
    self._events = RunEvents(self._ledger, self.progress, self._curves)

  def compute(self) -> None:
    """Computes every scene that is not finished.

    Raises:
      Stopped: a signal came.
    """
    if self._finished:
      count = f"{len(self._finished)} of {len(self._ledger.sources)}"
      self.progress.line(f"{count} scenes are done already.")
    self._apply_gate()
    self._engine.run(self._plan(), self._events, self.progress)

  def _apply_gate(self) -> None:
    """Applies a gate that changed since the scenes were written."""
    try:
      changed = list(self._ledger.apply_gate().values())
    except OSError as error:
      logging.warning("the quality gate is not applied again (%s)", error.strerror)
      return
    for status in sorted(set(changed)):
      count = changed.count(status)
      self.progress.line(f"The quality gate now marks {count} earlier scenes as {status}.")

  def _plan(self) -> RunPlan:
    """Sorts the unfinished scenes: begun batches, scenes with a saved fit, new batches."""
    workdir, settings, own = self._workdir, self._settings, self._ledger.sources
    todo = [name for name in own if name not in self._finished]
    scales = self._scales(todo)
    begun = batches.unfinished_plans(workdir, todo)
    in_begun = {name for plan in begun for name in plan.names}
    todo = [name for name in todo if name not in in_begun]
    fitted = self._ledger.find_fitted(todo, scales)
    todo = [name for name in todo if name not in fitted]
    size = settings.batch.scenes or self._engine.auto_batch()
    starts = frame_order.find_starts(settings, own, self._looking) if todo else {}
    if starts:
      self.progress.line(
        f"{len(starts)} of {len(own)} scenes start from the fit of a near moment "
        "and take fewer steps (fit.warm_start)."
      )
    device = self._engine.describe()
    new = frame_order.ordered_plans(
      workdir,
      starts,
      list(own),
      todo,
      size,
      workers=device.get("workers", 1),
      devices=device.get("count", 1),
    )
    return RunPlan(
      sources=own,
      scales=scales,
      fitted=tuple(fitted),
      plans=(*begun, *new),
      one_batch=len(own) <= size and not starts,
    )

  def _looking(self, name: str) -> None:
    self._stop.check()
    self.progress.stage(f"looking at {name}")

  def _scales(self, todo: Sequence[str]) -> dict[str, float]:
    """Returns the scale of each recording, measured where it is not known yet."""

    def on_scene(name: str) -> None:
      self._stop.check()
      self.progress.stage(f"measuring {name}")

    return fix_scales(
      self._workdir,
      self._settings,
      self._everything,
      {self._ledger.sources[name].recording for name in todo},
      on_scene,
      self._engine.measure,
      threads=host_cores(),
    )

  def close(self) -> int:
    """Writes lists and report and prints the table of scenes; returns the exit status."""
    self._curves.close()
    for name in self._ledger.deleted_scenes():
      deleted = FileNotFoundError("gone from the dataset since it was written")
      self._events.failed(name, deleted)
    count = len(self._ledger.sources)
    if count and self._events.unreadable == count and not self._ledger.scenes_for_lists():
      return NOTHING_STARTED  # the line of each scene gives the reason
    try:
      reported = write_lists_and_report(self._settings, self._workdir, self._ledger)
    except OSError as error:
      logging.error("%s: lists and report not written (%s)", self._workdir.path, error)
      return SOME_FAILED
    failures = self._ledger.failures
    print_closing_summary(self.progress.console, reported, self._ledger.records, failures)
    return SOME_FAILED if failures else DONE
