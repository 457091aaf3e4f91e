"""Reads, fits, renders and writes batches of scenes on the devices of one process.

A local run has one worker, a cluster one in each of its processes. One thread drives the devices;
other threads read the next batch, compile later programs, fetch renders, save fits and write scenes
(`runtime.threads`).
"""

from __future__ import annotations

import contextlib
import dataclasses
import sys
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import Protocol

import numpy as np
from absl import logging

from jaxsplat_mouse.dataset.scene_records import SceneRecord
from jaxsplat_mouse.dataset.sources import Source
from jaxsplat_mouse.fit.driver import BatchFit, FitError
from jaxsplat_mouse.fit.objective import filter_width
from jaxsplat_mouse.fit.warm_start import continuation_config
from jaxsplat_mouse.run import batches, fit_store, frame_order, outputs
from jaxsplat_mouse.run.batches import BatchPlan, ImageShape
from jaxsplat_mouse.run.fit_progress import RunCallbacks, make_driver
from jaxsplat_mouse.run.fit_store import SavedFit
from jaxsplat_mouse.run.outputs import SceneRenders, scene_bytes
from jaxsplat_mouse.run.scene_input import (
  SceneInput,
  check_views,
  compile_carving,
  prepare_scene,
  read_canonical_scene,
  read_scene_input,
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

ReadScenes = dict[str, SceneInput | Exception]
_SAVED_AT_ONCE = 16  # mostly waiting for the disk
_FETCHED_AT_ONCE = 3
_MOST_READERS = 8  # more do not help: decoding images takes little time
# How long a thread keeps the interpreter from the thread that drives an accelerator. Python's
# default of 5 ms is long compared with a call to the device.
_SWITCH_SECONDS = 0.0005
_ON_DEVICE = 24  # fits whose renders, about 0.1 GB each, wait on an accelerator to be fetched


class SceneEvents(Protocol):
  """Receives the outcomes of scenes, in the thread that drives the devices."""

  def written(self, name: str, outcome: SceneRecord | Exception) -> None:
    """Receives the record of a scene that is written, or the error that prevented it."""

  def failed(self, name: str, error: Exception) -> None:
    """Receives the error of a scene that failed before it could be written."""

  def fitting(self, iteration: int, metrics: Mapping[str, np.ndarray]) -> None:
    """Receives the losses (B,) by name of a batch at an iteration."""


class Worker:
  """Processes batches one after the other; `close` waits for everything that was begun.

  Attributes:
    scales: canonical units per input unit by recording.
    reader_threads: how many scenes are read at a time.
  """

  def __init__(
    self,
    settings: Settings,
    workdir: Workdir,
    sources: Mapping[str, Source],
    *,
    stop: StopRequest,
    progress: Progress,
    events: SceneEvents,
  ):
    """Starts the threads; nothing is read yet.

    Args:
      settings: of the run.
      workdir: folder of the run.
      sources: scenes by name.
      stop: checked between two scenes, and by the fit.
      progress: displays the fit.
      events: receives the outcomes.
    """
    self._settings, self._workdir, self._sources = settings, workdir, sources
    self._stop, self._progress, self._events = stop, progress, events
    self._timing = Timing(workdir.timing_file)
    self.scales: Mapping[str, float] = {}
    # On a CPU, other threads would take cores from the fit.
    beside = devices.is_accelerator()
    self.reader_threads = max(2, min(_MOST_READERS, host_cores() // 2)) if beside else 1
    if beside:
      sys.setswitchinterval(_SWITCH_SECONDS)
    # Pools end in reverse order: writers wait for savers, fetchers and compiled programs.
    self._threads = contextlib.ExitStack()
    enter = self._threads.enter_context
    self._compiler = enter(BackgroundCompiler())
    self._fetchers = enter(FetchPool(_FETCHED_AT_ONCE, _ON_DEVICE)) if beside else None
    self._savers = enter(ThreadPoolExecutor(_SAVED_AT_ONCE, "saver"))
    self._writers: WriteQueue[SceneRecord] = enter(WriteQueue(events.written))
    # Settings that no step looks at: the same programs either way.
    plain = dataclasses.replace(settings.fit, warm_start="off", inexact_from=1.0)
    self._driver = make_driver(plain, settings.checkpoint)
    self._continuation = make_driver(continuation_config(plain), settings.checkpoint)

  def scale(self, name: str) -> float | None:
    """Returns canonical units per input unit of a scene; None if it has a scale of its own."""
    return self.scales.get(self._sources[name].recording)

  def read(self, plan: BatchPlan) -> ReadScenes:
    """Reads the scenes of a batch; any thread may call it.

    Returns:
      each scene, or the error that it cannot be read for, by name; a stopped run leaves out the
      scenes that it did not read.
    """
    found = ordered_map(self._read_scene, plan.names, self.reader_threads)
    return {name: one for name, one in found if one is not None}

  def _read_scene(self, name: str) -> SceneInput | Exception | None:
    if self._stop.requested:
      return None
    self._progress.stage(f"reading {name}")
    try:
      read = check_views(read_scene_input(self._sources[name]), self._settings.fit)
      compile_carving(self._compiler, read.scene, self._settings)
      return read
    except Exception as error:  # fails this scene alone
      return error

  def do_batch(self, plan: BatchPlan, read: ReadScenes, only_batch: bool) -> None:
    """Fits and renders the scenes of one batch and queues them for writing.

    Args:
      plan: the batch.
      read: what `read` returned for it.
      only_batch: the run has no other batch; its crops are then as tight as possible.

    Raises:
      Stopped: a signal came.
    """
    for name, found in read.items():
      if isinstance(found, Exception):
        self._events.failed(name, found)
    readable = readable_scenes(read)
    if plan.digests and not batches.is_unchanged(plan, readable):
      plan = _begin_again(plan, "its scenes have changed")
    if not readable:
      return
    shape = plan.shape
    if shape is None:
      needed = batches.needed_shapes([one.scene for one in readable])
      shape = batches.choose_shape(self._workdir, *needed, only_batch)
    prepared = self._prepare_all(readable)
    if plan.starts:
      plan, prepared = self._start_warm(plan, shape, prepared)
    if prepared:
      self._fit_and_finish(plan, shape, prepared)

  def _start_warm(
    self, plan: BatchPlan, shape: ImageShape, prepared: Sequence[SceneInput]
  ) -> tuple[BatchPlan, list[SceneInput]]:
    """Returns the scenes of a batch that start from other scenes' fits, and their plan.

    A scene whose neighbour has failed starts from its hull, which takes all steps. Such scenes are
    fitted here, in a batch of their own.
    """
    warm, cold = frame_order.start_from_fits(self._workdir, self._settings, plan.starts, prepared)
    if cold and plan.digests:
      plan = _begin_again(plan, "a fit that it started from is gone")
    if cold:
      names = [one.source.name for one in cold]
      (alone,) = batches.new_plans(self._workdir, names, len(names))
      self._fit_and_finish(alone, shape, cold)
    return plan, warm

  def _prepare_all(self, read: Sequence[SceneInput]) -> list[SceneInput]:
    """Returns the prepared scenes of a batch; reports scenes that have no hull."""
    prepared = []
    for scene in read:
      name = scene.source.name
      self._progress.stage(f"carving {name}")
      try:
        with self._timing.stage("hull"):
          prepared.append(prepare_scene(scene, self._settings, self.scale(name)))
      except Exception as error:  # fails this scene alone
        self._events.failed(name, error)
    return prepared

  def _fit_and_finish(
    self, plan: BatchPlan, shape: ImageShape, prepared: Sequence[SceneInput]
  ) -> None:
    """Fits prepared scenes, renders their fits and queues them for writing."""
    first = prepared[0]
    outputs.compile_outputs(self._compiler, first.scene, first.first_gaussians, self._settings)
    try:
      saved = self._fit(plan, shape, prepared)
    except Exception as error:  # fails this batch alone
      for one in prepared:
        self._events.failed(one.source.name, error)
      return
    scenes = {p.source.name: p.scene for p in prepared}
    try:
      for fit, saving in saved:
        self._stop.check()
        self._finish(fit, scenes[fit.name], saving)
    finally:  # A run that stops here renders the other scenes from their saved fits later.
      with self._timing.stage("save"):
        wait([saving for _, saving in saved])
      batches.remove_plan(plan)
    self._timing.end_round(scenes=len(prepared))

  def _fit(
    self,
    plan: BatchPlan,
    shape: ImageShape,
    prepared: Sequence[SceneInput],
  ) -> list[tuple[SavedFit, Future[None]]]:
    """Fits a batch and begins to save its fits; reports scenes that failed."""
    driver = self._continuation if plan.starts else self._driver
    batches.record_plan(plan, prepared, shape)
    with self._timing.stage("stack"):
      scenes, state = batches.stack_batch(prepared, driver.config, shape, plan.fill)
    callbacks = RunCallbacks(
      names=[p.source.name for p in prepared],
      iterations=driver.config.iterations,
      checkpoints=plan.checkpoints(),
      seconds_between=self._settings.checkpoint.seconds,
      metrics_file=self._workdir.metrics_file,
      stop=self._stop,
      progress=self._progress,
      compiler=self._compiler,
      fitting=self._events.fitting,
    )
    with callbacks as running, self._timing.stage("fit"):
      fitted = driver.fit(scenes, running.newest(state), running)
    saved = []
    for i, one in enumerate(prepared):
      if i in fitted.failures:
        self._events.failed(one.source.name, FitError(fitted.failures[i]))
        continue
      fit = self._saved_fit(one, fitted, i, running.seconds / len(prepared))
      if one.source.name in plan.starts:
        fit.info["start"] = plan.starts[one.source.name]
      saved.append((fit, self._savers.submit(fit_store.save_fit, self._workdir, fit)))
    return saved

  def _saved_fit(self, one: SceneInput, fitted: BatchFit, index: int, seconds: float) -> SavedFit:
    """Returns the fit of one scene as `fits/` stores it."""
    with devices.on_host():
      width = float(filter_width(one.scene, self._settings.fit))
    return SavedFit(
      name=one.source.name,
      source=one.source,
      digest=one.digest,
      fit_key=fit_store.fit_key(self._settings, self.scale(one.source.name)),
      similarity=one.similarity,
      gaussians=batches.result_gaussians(fitted.state, index),
      filter_width=width,
      info={
        "seed": one.seed,
        "loss": float(fitted.losses[index, -1]) if fitted.losses.size else float("nan"),
        "warnings": list(one.warnings),
        "agreement": one.agreement,
        "seconds": {"prepare": one.seconds, "fit": seconds},
      },
    )

  def render_again(self, name: str) -> None:
    """Renders a scene from the fit that an earlier run saved, and queues it for writing."""
    try:
      saved = fit_store.load_fit(self._workdir, name)
      scene = read_canonical_scene(saved.source, saved.similarity, saved.info.get("agreement"))
    except Exception as error:  # fails this scene alone
      self._events.failed(name, error)
      return
    self._finish(saved, scene)

  def _finish(self, saved: SavedFit, scene: Scene, saving: Future[None] | None = None) -> None:
    """Renders a fit and queues it for writing into the dataset once it is saved."""
    self._progress.stage(f"rendering {saved.name}")
    recording = self._sources[saved.name].recording
    try:
      with self._timing.stage("render"):
        renders, fetched = self._render(saved, scene)
    except Exception as error:  # fails this scene alone
      self._events.failed(saved.name, error)
      return

    def write() -> SceneRecord:
      if saving:
        saving.result()
      return outputs.write_outputs(
        self._workdir, self._settings, saved, recording, fetched.result()
      )

    with self._timing.stage("hand over"):  # waits while the queue is full
      self._writers.submit(saved.name, write, renders.nbytes + scene_bytes(scene))

  def _render(self, saved: SavedFit, scene: Scene) -> tuple[SceneRenders, Future[SceneRenders]]:
    """Renders a fit; a thread fetches the results of an accelerator."""
    launch = lambda: SceneRenders(saved, scene, self._settings)
    if self._fetchers is not None:
      return self._fetchers.submit(launch, SceneRenders.fetch)
    renders, done = launch().fetch(), Future[SceneRenders]()
    done.set_result(renders)
    return renders, done

  def flush(self) -> None:
    """Waits until all rendered scenes are written."""
    self._writers.flush()

  def close(self) -> None:
    """Waits until all rendered scenes are written, and ends the threads."""
    self._threads.close()


def _begin_again(plan: BatchPlan, reason: str) -> BatchPlan:
  """Deletes what was saved of a half-finished batch; returns its plan as it was before."""
  logging.warning("a half-finished batch starts again: %s", reason)
  batches.remove_plan(plan)
  return dataclasses.replace(plan, digests={}, shape=None)


def readable_scenes(read: ReadScenes) -> list[SceneInput]:
  """Returns the scenes that could be read."""
  return [one for one in read.values() if isinstance(one, SceneInput)]
