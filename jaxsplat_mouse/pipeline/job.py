"""The order of the work: what is finished stays, what was begun goes on, the rest follows."""

from __future__ import annotations

import dataclasses
import functools
import json
import os
import time
from collections.abc import Mapping, Sequence

import numpy as np
from absl import logging
from ml_collections import ConfigDict

from jaxsplat_mouse import dataset, sources
from jaxsplat_mouse.dataset import SceneRecord
from jaxsplat_mouse.io.training_yaml import check_list_path
from jaxsplat_mouse.pipeline import batches, dataset_card, device, fits, outputs, report
from jaxsplat_mouse.pipeline.batches import Plan
from jaxsplat_mouse.pipeline.fits import SavedFit
from jaxsplat_mouse.pipeline.fitting import FitError, Fitted, Fitter
from jaxsplat_mouse.pipeline.ledger import Ledger
from jaxsplat_mouse.pipeline.outputs import scene_bytes
from jaxsplat_mouse.pipeline.overlap import Writers, read_ahead, read_all
from jaxsplat_mouse.pipeline.prepare import Prepared, prepare, read_canonical
from jaxsplat_mouse.pipeline.progress import (
  Progress,
  format_metric,
  format_seconds,
  metric_title,
)
from jaxsplat_mouse.pipeline.scales import fix_scales
from jaxsplat_mouse.pipeline.settings import Settings, flatten
from jaxsplat_mouse.pipeline.stopping import Stopped, StopRequest
from jaxsplat_mouse.pipeline.workdir import Workdir
from jaxsplat_mouse.scene import Scene
from jaxsplat_mouse.sources import Source

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
  device.set_up_cache()
  found = sources.find_sources(
    settings.data.input,
    mice=settings.data.mice,
    mouse_image_size=settings.data.mouse_image_size,
  )
  place = Workdir(workdir)
  check_list_path(place.dataset)
  place.make()
  with place.locked(), StopRequest() as stop:
    flat = flatten(config)
    if settings.data.input:  # the same place, wherever the command is given
      flat["data.input"] = os.path.abspath(settings.data.input)
    changed = place.record_run(flat, config_file, device.describe())
    job = _Job(settings, place, found, stop)
    if changed:
      job.progress.line(
        f"Changed: {', '.join(changed)}. Scenes are rendered again from their fits."
      )
    try:
      with job.progress:
        try:
          job.work()
        finally:
          job.finish_writing()
    except Stopped as stopped:
      job.progress.line(f"Stopped by {stopped.name}. The same command goes on from here.")
      return stopped.exit_status
    return job.close()


class _Job:
  """One run over all scenes."""

  def __init__(
    self, settings: Settings, workdir: Workdir, found: Sequence[Source], stop: StopRequest
  ):
    self._settings, self._workdir, self._stop = settings, workdir, stop
    self._ledger = Ledger(settings, workdir, found)
    self._finished = self._ledger.finished()
    self._input_failures = 0
    self._fitter = Fitter(settings.fit, settings.checkpoint, stop)
    self._writers: Writers[SceneRecord] = Writers(self._written)
    self._scales: dict[str, float] = {}
    self._one_batch = False
    on_cpu = device.describe()["platform"] == "cpu"
    self._reader_threads = 1 if on_cpu else max(2, min(8, (os.cpu_count() or 1) // 2))
    self._told = 0.0
    self.progress = Progress(len(found), len(self._finished))

  def work(self) -> None:
    """Does everything that is not done.

    Raises:
      Stopped: a signal came.
    """
    everything = self._ledger.sources
    if self._finished:
      self.progress.line(f"{len(self._finished)} of {len(everything)} scenes are done already.")
    self._judge_again()
    todo = [name for name in everything if name not in self._finished]
    self._scales = fix_scales(
      self._workdir,
      self._settings,
      everything.values(),
      {everything[name].recording for name in todo},
      self._measuring,
    )
    plans = batches.begun(self._workdir, todo)
    taken = {name for plan in plans for name in plan.names}
    rest = []
    for name in (name for name in todo if name not in taken):
      if self._ledger.is_fitted(name, self._scale(name)):
        self._stop.check()
        self._render_again(name)
      else:
        rest.append(name)
    size = self._settings.batch.scenes or device.auto_batch(self._settings.fit.num_gaussians)
    self._one_batch = len(everything) <= size
    plans += batches.new(self._workdir, rest, size)
    # On a CPU reading ahead would take the cores that the fit is using.
    ahead = self._reader_threads > 1
    for plan, read in read_ahead(plans, self._read, ahead):
      self._stop.check()
      self._do_batch(plan, read)

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

  def _scale(self, name: str) -> float | None:
    return self._scales.get(self._ledger.sources[name].recording)

  def _measuring(self, name: str) -> None:
    self._stop.check()
    self.progress.stage(f"measuring {name}")

  def _read(self, plan: Plan) -> dict[str, Prepared | Exception]:
    """What a batch's scenes are, or why not; runs beside the device where there is one."""
    found = read_all(plan.names, self._read_scene, self._reader_threads)
    return {name: one for name, one in found if one is not None}

  def _read_scene(self, name: str) -> Prepared | Exception | None:
    if self._stop.requested:
      return None
    self.progress.stage(f"reading {name}")
    try:
      return prepare(self._ledger.sources[name], self._settings, self._scale(name))
    except Exception as error:  # stays with its scene
      return error

  def _do_batch(self, plan: Plan, read: Mapping[str, Prepared | Exception]) -> None:
    """Fits and writes the scenes of one batch."""
    for name, one in read.items():
      if isinstance(one, Exception):
        self._input_failures += 1
        self._fail(name, one)
    prepared = [one for one in read.values() if isinstance(one, Prepared)]
    if plan.digests and not batches.is_unchanged(plan, prepared):
      logging.warning("a half-finished batch is begun again: its scenes have changed")
      batches.end(plan)
      plan = dataclasses.replace(plan, digests={}, shape=None)
    if not prepared:
      return
    try:
      saved = self._fit(plan, prepared)
    except Exception as error:  # stays with the batch
      for one in prepared:
        self._fail(one.source.name, error)
      return
    scenes = {p.source.name: p.scene for p in prepared}
    for fit in saved:
      self._stop.check()
      self._finish(fit, scenes[fit.name])

  def _fit(self, plan: Plan, prepared: Sequence[Prepared]) -> list[SavedFit]:
    """Fits a batch and saves what came of it; scenes that failed are recorded."""
    names = [p.source.name for p in prepared]
    shape = plan.shape or batches.choose_shape(self._workdir, prepared, self._one_batch)
    batches.begin(plan, prepared, shape)
    checkpoints = plan.checkpoints()
    total = self._settings.fit.iterations
    self.progress.start_fit(names, max([0, *checkpoints.steps()]), total)

    def on_chunk(iteration: int, metrics: Mapping[str, np.ndarray]) -> None:
      self.progress.update_fit(iteration, float(np.nanmean(metrics["loss"])))
      self._append_metrics(names, iteration, metrics)

    try:
      fitted = self._fitter.fit(batches.stack(prepared, shape), checkpoints, on_chunk)
    finally:
      checkpoints.close()
      self.progress.end_fit()
    saved = []
    for i, one in enumerate(prepared):
      try:
        saved.append(self._save(one, fitted, i))
      except (FitError, OSError, ValueError) as error:
        self._fail(one.source.name, error)
    batches.end(plan)
    return saved

  def _save(self, one: Prepared, fitted: Fitted, index: int) -> SavedFit:
    """Writes one scene's fit into `fits/`; raises FitError where there is none."""
    gaussians = fitted.gaussians[index]
    if gaussians is None:
      raise FitError(fitted.failures[index])
    share = fitted.seconds / len(fitted.gaussians)
    saved = SavedFit(
      name=one.source.name,
      source=one.source,
      digest=one.digest,
      fit_key=fits.fit_key(self._settings, self._scale(one.source.name)),
      similarity=one.similarity,
      gaussians=gaussians,
      info={
        "seed": one.seed,
        "loss": fitted.losses[index],
        "warnings": list(one.warnings),
        "seconds": {"prepare": one.seconds, "fit": share},
      },
    )
    fits.save_fit(self._workdir, saved)
    return saved

  def _render_again(self, name: str) -> None:
    try:
      saved = fits.load_fit(self._workdir, name)
      scene = read_canonical(saved.source, saved.similarity)
    except Exception as error:  # stays with its scene
      self._fail(name, error)
      return
    self._finish(saved, scene)

  def _finish(self, saved: SavedFit, scene: Scene) -> None:
    """Renders a fit here, and has it written into the dataset beside what comes next."""
    self.progress.stage(f"rendering {saved.name}")
    recording = self._ledger.sources[saved.name].recording
    try:
      rendered = outputs.render_fit(saved, scene, self._settings)
    except Exception as error:  # stays with its scene
      self._fail(saved.name, error)
      return
    write = functools.partial(outputs.write_outputs, self._workdir, self._settings)
    job = lambda: write(saved, scene, recording, rendered)
    self._writers.submit(saved.name, job, rendered.nbytes + scene_bytes(scene))

  def _written(self, name: str, outcome: SceneRecord | Exception) -> None:
    """Notes a scene whose files are written, or could not be."""
    if isinstance(outcome, SceneRecord):
      try:
        record = self._ledger.done(outcome)
        self.progress.scene_ended()
        self._tell(record)
        return
      except OSError as error:
        outcome = error
    self._fail(name, outcome)

  def finish_writing(self) -> None:
    """Waits until everything that was rendered is written."""
    self._writers.finish()

  def _fail(self, name: str, error: Exception) -> None:
    """Notes a scene that failed and tells why; the others go on."""
    self.progress.line(f"{name}: failed: {self._ledger.failed(name, error)}")
    self.progress.scene_ended()

  def _tell(self, record: SceneRecord) -> None:
    """One line about a finished scene; where there are many and no terminal, one now and then."""
    now = time.monotonic()
    quiet = len(self._ledger.sources) > 50 and not self.progress.console.is_terminal
    if quiet and now - self._told < 10:
      return
    self._told = now
    shown = ("novel_fg_psnr", "novel_iou", "input_fg_psnr", "input_iou")
    values = [
      f"{metric_title(name)} {format_metric(name, record.metrics[name])}"
      for name in shown
      if name in record.metrics
    ]
    seconds = format_seconds(sum(record.seconds.values()))
    reason = [record.error] if record.error else []
    told = [f"{record.scene}: {record.status}", *values, seconds, *reason]
    self.progress.line(", ".join(told))

  def _append_metrics(
    self, names: Sequence[str], iteration: int, metrics: Mapping[str, np.ndarray]
  ) -> None:
    lines = []
    for i, name in enumerate(names):
      values = {k: round(float(v[i]), 6) for k, v in metrics.items() if np.isfinite(v[i])}
      lines.append(json.dumps({"scene": name, "iteration": iteration, **values}) + "\n")
    try:
      with open(self._workdir.metrics_file, "a", encoding="utf-8") as file:
        file.write("".join(lines))
    except OSError as error:
      logging.warning("%s: not written (%s)", self._workdir.metrics_file, error.strerror)

  def close(self) -> int:
    """Writes lists and report, prints the table; the exit status."""
    for name in self._ledger.lost():
      self._fail(name, FileNotFoundError("gone from the dataset since it was written"))
    records, done = self._ledger.records, self._ledger.listed()
    if not done and self._input_failures == len(self._ledger.sources):
      return NOTHING_STARTED  # each scene's line says why
    try:
      self._ledger.complete_manifest()
      self._write_lists(done)
      report.write_report(self._workdir, records)
    except OSError as error:
      logging.error("%s: lists and report not written (%s)", self._workdir.path, error)
      return SOME_FAILED
    failures = self._ledger.failures
    report.print_summary(self.progress.console, self._workdir, records, failures)
    return SOME_FAILED if failures else DONE

  def _write_lists(self, done: Sequence[str]) -> None:
    recordings = {name: self._ledger.records[name].recording for name in done}
    fraction, seed = self._settings.dataset.val_fraction, self._settings.seed
    train, val = dataset.split_scenes(recordings, val_fraction=fraction, seed=seed)
    dataset.write_lists(self._workdir.dataset, train, val)
    size = self._settings.render.image_size
    dataset.write_training_yaml(self._workdir.dataset, image_size=size)
    dataset_card.write_card(self._workdir, self._settings, self._ledger.records, train, val)
