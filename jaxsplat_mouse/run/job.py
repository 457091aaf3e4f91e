"""The order of the work: what is finished stays, what was begun goes on, the rest follows."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from absl import logging
from ml_collections import ConfigDict

from jaxsplat_mouse.dataset import lists, sources, training_yaml
from jaxsplat_mouse.dataset.lists import check_list_path
from jaxsplat_mouse.dataset.scene_records import SceneRecord
from jaxsplat_mouse.dataset.sources import Source
from jaxsplat_mouse.errors import InputError
from jaxsplat_mouse.report import closing_summary, dataset_card, page, turntable
from jaxsplat_mouse.report.dataset_card import DatasetDescription
from jaxsplat_mouse.report.formatting import format_metric, metric_title
from jaxsplat_mouse.report.reported_run import ReportedRun
from jaxsplat_mouse.report.statistics import HEADLINE_METRICS
from jaxsplat_mouse.report.tensorboard import TensorBoardWriter
from jaxsplat_mouse.run import batches, engines, frame_order
from jaxsplat_mouse.run.config_keys import flatten
from jaxsplat_mouse.run.ledger import Ledger
from jaxsplat_mouse.run.recording_scales import fix_scales
from jaxsplat_mouse.run.settings import Settings
from jaxsplat_mouse.run.work import Engine, Work
from jaxsplat_mouse.run.workdir import Workdir
from jaxsplat_mouse.runtime.host import host_cores
from jaxsplat_mouse.runtime.progress import Progress, format_seconds
from jaxsplat_mouse.runtime.signals import Stopped, StopRequest

DONE, NOTHING_STARTED, SOME_FAILED = 0, 1, 3


def run(config: ConfigDict, workdir: str | os.PathLike[str], config_file: str = "") -> int:
  """Fits every scene of a configuration and writes the dataset; goes on where a run was stopped.

  Args:
    config: as `configs/` make it.
    workdir: the folder of the run.
    config_file: where the config came from, for the record.

  Returns:
    0 where every scene is done, 3 where some failed, 1 where none could start, 130 or 143 where
    Ctrl-C or SIGTERM stopped it.

  Raises:
    ConfigError: a setting that cannot be used, or that does not match the workdir.
    InputError: input that cannot be read at all, a workdir that cannot be written or is in use.
  """
  settings = Settings.from_config(config)
  found = sources.find_sources(
    settings.data.input,
    mice=settings.data.mice,
    mouse_image_size=settings.data.mouse_image_size,
  )
  shard = settings.data.shard
  place = Workdir(workdir, str(shard) if shard else "")
  check_list_path(place.dataset)
  place.make()
  with place.locked(), StopRequest() as stop, engines.open_engine(settings, place, stop) as engine:
    with place.turn():
      changed = place.record_run(_flatten(config, settings), config_file, engine.describe())
    job = _Job(settings, place, found, stop, engine)
    if changed:
      job.progress.line(
        f"Changed: {', '.join(changed)}. Scenes are rendered again from their fits."
      )
    try:
      with job.progress:
        job.work()
    except Stopped as stopped:
      job.progress.line(f"Stopped by {stopped.name}. The same command goes on from here.")
      return stopped.exit_status
    return job.close()


def _flatten(config: ConfigDict, settings: Settings) -> dict[str, Any]:
  """The configuration for the record; the input is the same place wherever a command is given."""
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
    mine = found[shard.index :: shard.count] if shard else found
    self._ledger = Ledger(settings, workdir, mine)
    self._finished = self._ledger.finished()
    self._unreadable = 0
    self._told = 0.0
    curves = workdir.state / "tensorboard" if settings.report.tensorboard else None
    self._curves = TensorBoardWriter(curves)
    if settings.report.turntable:
      turntable.import_video_library()  # fails now rather than after the first fit
    self.progress = Progress("scenes", len(mine), len(self._finished))

  def work(self) -> None:
    """Does everything that is not done.

    Raises:
      Stopped: a signal came.
    """
    mine = self._ledger.sources
    if self._finished:
      self.progress.line(f"{len(self._finished)} of {len(mine)} scenes are done already.")
    self._judge_again()
    todo = [name for name in mine if name not in self._finished]
    scales = fix_scales(
      self._workdir,
      self._settings,
      self._everything,
      {mine[name].recording for name in todo},
      self._measuring,
      self._engine.measure,
      threads=host_cores(),
    )
    plans = batches.unfinished_plans(self._workdir, todo)
    taken = {name for plan in plans for name in plan.names}
    left = [name for name in todo if name not in taken]
    fitted = self._ledger.fitted(left, scales)
    rest = [name for name in left if name not in fitted]
    size = self._settings.batch.scenes or self._engine.auto_batch()
    plans += frame_order.ordered_plans(self._workdir, self._settings, mine, rest, size)
    work = Work(
      sources=mine,
      scales=scales,
      fitted=tuple(fitted),
      plans=tuple(plans),
      one_batch=len(mine) <= size,
    )
    self._engine.run(work, self, self.progress)

  def _judge_again(self) -> None:
    """Applies a gate that changed since the scenes were written."""
    try:
      changed = list(self._ledger.judge_again().values())
    except OSError as error:
      logging.warning("the quality gate is not applied again (%s)", error.strerror)
      return
    for status in sorted(set(changed)):
      count = changed.count(status)
      self.progress.line(f"The quality gate now counts {count} scenes of before as {status}.")

  def _measuring(self, name: str) -> None:
    self._stop.check()
    self.progress.stage(f"measuring {name}")

  def written(self, name: str, outcome: SceneRecord | Exception) -> None:
    """Notes a scene whose files are written, or could not be."""
    if isinstance(outcome, SceneRecord):
      try:
        record = self._ledger.done(outcome)
        self.progress.item_ended()
        self._curves.add_scene(record)
        self._tell(record)
        return
      except OSError as error:
        outcome = error
    self.failed(name, outcome)

  def fitting(self, iteration: int, metrics: Mapping[str, np.ndarray]) -> None:
    """A batch has come to an iteration."""
    self._curves.add_iteration(iteration, metrics)

  def failed(self, name: str, error: Exception) -> None:
    """Notes a scene that failed and tells why; the others go on."""
    self._unreadable += isinstance(error, InputError)
    self.progress.line(f"{name}: failed: {self._ledger.failed(name, error)}")
    self.progress.item_ended()

  def _tell(self, record: SceneRecord) -> None:
    """One line about a finished scene; where there are many and no terminal, one now and then."""
    now = time.monotonic()
    quiet = len(self._ledger.sources) > 50 and not self.progress.console.is_terminal
    if quiet and now - self._told < 10:
      return
    self._told = now
    values = [
      f"{metric_title(name)} {format_metric(name, record.metrics[name])}"
      for name in HEADLINE_METRICS
      if name in record.metrics
    ]
    seconds = format_seconds(sum(record.seconds.values()))
    reason = [record.error] if record.error else []
    told = [f"{record.scene}: {record.status}", *values, seconds, *reason]
    self.progress.line(", ".join(told))

  def close(self) -> int:
    """Writes lists and report, prints the table; the exit status."""
    self._curves.close()
    for name in self._ledger.lost():
      self.failed(name, FileNotFoundError("gone from the dataset since it was written"))
    nothing = self._unreadable == len(self._ledger.sources) and bool(self._ledger.sources)
    if nothing and not self._ledger.listed():
      return NOTHING_STARTED  # each scene's line says why
    try:
      with self._workdir.turn():
        self._ledger.complete_manifest()
        self._ledger.read_others()
        reported = _reported_run(self._workdir)
        self._write_lists(self._ledger.listed(), reported)
        page.write_report_page(reported, self._ledger.records)
    except OSError as error:
      logging.error("%s: lists and report not written (%s)", self._workdir.path, error)
      return SOME_FAILED
    failures = self._ledger.failures
    closing_summary.print_closing_summary(
      self.progress.console, reported, self._ledger.records, failures
    )
    return SOME_FAILED if failures else DONE

  def _write_lists(self, done: Sequence[str], reported: ReportedRun) -> None:
    recordings = {name: self._ledger.records[name].recording for name in done}
    fraction, seed = self._settings.dataset.val_fraction, self._settings.seed
    train, val = lists.split_scenes(recordings, val_fraction=fraction, seed=seed)
    lists.write_lists(self._workdir.dataset, train, val)
    size = self._settings.render.image_size
    training_yaml.write_training_yaml(self._workdir.dataset, image_size=size)
    description = _describe_dataset(self._settings)
    dataset_card.write_card(reported, description, self._ledger.records, train, val)


def _reported_run(workdir: Workdir) -> ReportedRun:
  record = workdir.read_record() or {}
  return ReportedRun(
    name=workdir.path.name,
    dataset=workdir.dataset,
    report=workdir.report,
    config=record.get("config", {}),
    starts=record.get("runs", []),
  )


def _describe_dataset(settings: Settings) -> DatasetDescription:
  return DatasetDescription(
    license=settings.dataset.license,
    gate=settings.dataset.gate,
    model=settings.fit.model,
    num_gaussians=settings.fit.num_gaussians,
    iterations=settings.fit.iterations,
    normalize=settings.data.normalize,
    radius=settings.data.radius,
    **dataclasses.asdict(settings.render),
  )
