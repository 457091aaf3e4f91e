"""What one device does: batches are read, fitted, rendered and written; outcomes are handed on.

The same worker runs in the process of a local run and, several times over, on a cluster.
"""

from __future__ import annotations

import dataclasses
import json
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Protocol

import numpy as np
from absl import logging

from jaxsplat_mouse.dataset.scene_records import SceneRecord
from jaxsplat_mouse.dataset.sources import Source
from jaxsplat_mouse.fit.objective import filter_width
from jaxsplat_mouse.fit.warm_start import warm_config
from jaxsplat_mouse.run import batches, fit_store, frame_order, outputs
from jaxsplat_mouse.run.batches import Plan
from jaxsplat_mouse.run.fit_store import SavedFit
from jaxsplat_mouse.run.fitting import FitError, Fitted, Fitter
from jaxsplat_mouse.run.outputs import Rendered, Rendering, scene_bytes
from jaxsplat_mouse.run.scene_input import (
  Loaded,
  Prepared,
  compile_ahead,
  load,
  prepare,
  read_canonical,
)
from jaxsplat_mouse.run.settings import Settings
from jaxsplat_mouse.run.workdir import Workdir
from jaxsplat_mouse.runtime import devices
from jaxsplat_mouse.runtime.background_compiler import BackgroundCompiler
from jaxsplat_mouse.runtime.host import host_cores
from jaxsplat_mouse.runtime.progress import Progress
from jaxsplat_mouse.runtime.signals import StopRequest
from jaxsplat_mouse.runtime.threads import FetchPool, WriteQueue, ordered_map
from jaxsplat_mouse.runtime.timing import Timing
from jaxsplat_mouse.scene import Scene

Read = dict[str, Loaded | Exception]
_SAVED_AT_ONCE = 16  # mostly waiting for the disk
_FETCHED_AT_ONCE = 3
_MOST_READERS = 8  # decoding images is soon done
# Beside an accelerator, where one thread drives it and many read and write: how long one of them
# keeps the interpreter from the others. Python's own 5 ms are long against a call to the device.
_SWITCH_SECONDS = 0.0005
_ON_DEVICE = 24  # fits whose renders, some 0.1 GB each, wait on an accelerator to be fetched


class Events(Protocol):
  """Who is told what became of scenes, in the thread that works."""

  def written(self, name: str, outcome: SceneRecord | Exception) -> None:
    """A scene is written, or could not be."""

  def failed(self, name: str, error: Exception) -> None:
    """A scene came to nothing before."""

  def fitting(self, iteration: int, metrics: Mapping[str, np.ndarray]) -> None:
    """A batch has come to an iteration with metrics (B,) by name."""


class Worker:
  """Does batches, one after the other."""

  def __init__(
    self,
    settings: Settings,
    workdir: Workdir,
    sources: Mapping[str, Source],
    *,
    stop: StopRequest,
    progress: Progress,
    events: Events,
  ):
    """Takes what to work on; nothing is done yet.

    Args:
      settings: of the run.
      workdir: where to.
      sources: scenes by name.
      stop: asked between two scenes, and by the fit.
      progress: shows the fit.
      events: is told the outcomes.
    """
    self._settings, self._workdir, self._sources = settings, workdir, sources
    self._stop, self._progress, self._events = stop, progress, events
    self._compiler = BackgroundCompiler()
    self._fitter = Fitter(settings.fit, settings.checkpoint, stop, self._compiler)
    warmed = warm_config(settings.fit)
    self._warm_fitter = Fitter(warmed, settings.checkpoint, stop, self._compiler)
    self._timing = Timing(workdir.timing_file)
    self._writers: WriteQueue[SceneRecord] = WriteQueue(events.written)
    self._savers = ThreadPoolExecutor(_SAVED_AT_ONCE, "saver")
    self.scales: Mapping[str, float] = {}
    # On a CPU whatever ran beside the fit would take the cores that it is using.
    beside = devices.is_accelerator()
    self._fetchers = FetchPool(_FETCHED_AT_ONCE, _ON_DEVICE) if beside else None
    self.reader_threads = max(2, min(_MOST_READERS, host_cores() // 2)) if beside else 1
    if beside:
      sys.setswitchinterval(_SWITCH_SECONDS)

  def scale(self, name: str) -> float | None:
    """Canonical units per input unit of a scene, where its recording shares one."""
    return self.scales.get(self._sources[name].recording)

  def read(self, plan: Plan) -> Read:
    """What a batch's scenes are, or why not; may run beside everything else."""
    found = ordered_map(self._read_scene, plan.names, self.reader_threads)
    return {name: one for name, one in found if one is not None}

  def _read_scene(self, name: str) -> Loaded | Exception | None:
    if self._stop.requested:
      return None
    self._progress.stage(f"reading {name}")
    try:
      loaded = load(self._sources[name])
      compile_ahead(self._compiler, loaded.scene, self._settings)
      return loaded
    except Exception as error:  # stays with its scene
      return error

  def do_batch(self, plan: Plan, read: Read, alone: bool) -> None:
    """Fits the scenes of one batch, and has them written.

    Args:
      plan: the batch.
      read: what `read` gave for it.
      alone: the run has no other batch.

    Raises:
      Stopped: a signal came.
    """
    for name, found in read.items():
      if isinstance(found, Exception):
        self._events.failed(name, found)
    loaded = loaded_scenes(read)
    if plan.digests and not batches.is_unchanged(plan, loaded):
      logging.warning("a half-finished batch is begun again: its scenes have changed")
      batches.end(plan)
      plan = dataclasses.replace(plan, digests={}, shape=None)
    if not loaded:
      return
    shape = plan.shape or batches.choose_shape(self._workdir, [one.scene for one in loaded], alone)
    prepared = self._prepare_all(loaded)
    if not prepared:
      return
    first = prepared[0]
    outputs.compile_ahead(self._compiler, first.scene, first.gaussians, self._settings)
    prepared, short = frame_order.start(self._workdir, self._settings, self._sources, prepared)
    try:
      saved = self._fit(plan, prepared, shape, self._warm_fitter if short else self._fitter)
    except Exception as error:  # stays with the batch
      for one in prepared:
        self._events.failed(one.source.name, error)
      return
    scenes = {p.source.name: p.scene for p in prepared}
    try:
      for fit, saving in saved:
        self._stop.check()
        self._finish(fit, scenes[fit.name], saving)
    finally:  # a run that stops here renders the rest from what is saved
      with self._timing.stage("save"):
        wait([saving for _, saving in saved])
      batches.end(plan)
    self._timing.end_round(scenes=len(prepared))

  def _prepare_all(self, loaded: Sequence[Loaded]) -> list[Prepared]:
    """What the fits of a batch start from; scenes without a hull are told."""
    prepared = []
    for scene in loaded:
      name = scene.source.name
      self._progress.stage(f"carving {name}")
      try:
        with self._timing.stage("hull"):
          prepared.append(prepare(scene, self._settings, self.scale(name)))
      except Exception as error:  # stays with its scene
        self._events.failed(name, error)
    return prepared

  def _fit(
    self, plan: Plan, prepared: Sequence[Prepared], shape: tuple[int, int], fitter: Fitter
  ) -> list[tuple[SavedFit, Future[None]]]:
    """Fits a batch and begins to save what came of it; scenes that failed are told."""
    names = [p.source.name for p in prepared]
    batches.begin(plan, prepared, shape)
    checkpoints = plan.checkpoints()
    total = fitter.iterations
    self._progress.start_task(names, max([0, *checkpoints.steps()]), total)
    self._progress.stage("fitting")

    def on_chunk(iteration: int, metrics: Mapping[str, np.ndarray]) -> None:
      self._progress.update_task(iteration, f"loss {np.nanmean(metrics['loss']):.4f}")
      append_metrics(self._workdir, names, iteration, metrics)
      self._events.fitting(iteration, metrics)

    try:
      with self._timing.stage("stack"):
        batch = batches.stack(prepared, shape)
      with self._timing.stage("fit"):
        fitted = fitter.fit(batch, checkpoints, on_chunk)
    finally:
      checkpoints.close()
      self._progress.end_task()
    saved = []
    for i, one in enumerate(prepared):
      try:
        fit = self._as_saved(one, fitted, i)
      except FitError as error:
        self._events.failed(one.source.name, error)
      else:
        saved.append((fit, self._savers.submit(fit_store.save_fit, self._workdir, fit)))
    return saved

  def _as_saved(self, one: Prepared, fitted: Fitted, index: int) -> SavedFit:
    """One scene's fit as it goes into `fits/`; raises FitError where there is none."""
    gaussians = fitted.gaussians[index]
    if gaussians is None:
      raise FitError(fitted.failures[index])
    share = fitted.seconds / len(fitted.gaussians)
    with devices.on_host():
      width = float(filter_width(one.scene, self._settings.fit))
    return SavedFit(
      name=one.source.name,
      source=one.source,
      digest=one.digest,
      fit_key=fit_store.fit_key(self._settings, self.scale(one.source.name)),
      similarity=one.similarity,
      gaussians=gaussians,
      filter_width=width,
      info={
        "seed": one.seed,
        "loss": fitted.losses[index],
        "warnings": list(one.warnings),
        "seconds": {"prepare": one.seconds, "fit": share},
      },
    )

  def render_again(self, name: str) -> None:
    """Renders a scene from the fit that was saved before."""
    try:
      saved = fit_store.load_fit(self._workdir, name)
      scene = read_canonical(saved.source, saved.similarity)
    except Exception as error:  # stays with its scene
      self._events.failed(name, error)
      return
    self._finish(saved, scene)

  def _finish(self, saved: SavedFit, scene: Scene, saving: Future[None] | None = None) -> None:
    """Renders a fit here, and has it written into the dataset once it is saved."""
    self._progress.stage(f"rendering {saved.name}")
    recording = self._sources[saved.name].recording
    try:
      with self._timing.stage("render"):
        rendered, size = self._render(saved, scene)
    except Exception as error:  # stays with its scene
      self._events.failed(saved.name, error)
      return

    def write() -> SceneRecord:
      if saving:
        saving.result()
      return outputs.write_outputs(
        self._workdir, self._settings, saved, scene, recording, rendered.result()
      )

    with self._timing.stage("hand over"):  # waits where more is rendered than can be written
      self._writers.submit(saved.name, write, size + scene_bytes(scene))

  def _render(self, saved: SavedFit, scene: Scene) -> tuple[Future[Rendered], int]:
    """Renders a fit, and about how many bytes that takes; an accelerator is not waited for."""
    give = lambda: outputs.render_fit(saved, scene, self._settings)
    if self._fetchers is None:
      now: Future[Rendered] = Future()
      now.set_result(give().fetch())
      return now, now.result().nbytes
    rendering, later = self._fetchers.submit(give, Rendering.fetch)
    return later, rendering.nbytes

  def flush(self) -> None:
    """Waits until everything that was rendered is written."""
    self._writers.flush()

  def close(self) -> None:
    """As `flush`, and takes no more work."""
    try:
      self._writers.close()
    finally:  # not before: writers wait for what is saved, fetched and compiled
      self._savers.shutdown()
      if self._fetchers:
        self._fetchers.close()
      self._compiler.close()


def loaded_scenes(read: Read) -> list[Loaded]:
  """Those that could be read."""
  return [one for one in read.values() if isinstance(one, Loaded)]


def append_metrics(
  workdir: Workdir, names: Sequence[str], iteration: int, metrics: Mapping[str, np.ndarray]
) -> None:
  """Appends a line for each scene to `metrics.jsonl`; a fit goes on without."""
  lines = []
  for i, name in enumerate(names):
    values = {k: round(float(v[i]), 6) for k, v in metrics.items() if np.isfinite(v[i])}
    lines.append(json.dumps({"scene": name, "iteration": iteration, **values}) + "\n")
  try:
    with open(workdir.metrics_file, "a", encoding="utf-8") as file:
      file.write("".join(lines))
  except OSError as error:
    logging.warning("%s: not written (%s)", workdir.metrics_file, error.strerror)
