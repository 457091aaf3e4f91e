"""Batches spread over a Ray cluster: one worker for each GPU, one driver that keeps the books.

The driver cuts the batches and chooses their crops in the order of the batches, as a local run
does: where the devices are the same, so are the bytes. A batch of warm starts is fitted after the
batches whose fits it starts from. Workers write scenes into the shared
workdir; only the driver writes the manifest, the lists and the report.

When a worker dies, other workers take over its tasks, batches from their checkpoints, until its
replacement is up. No time limit fails a scene. A scene fails by deaths only if workers keep dying
while they work on it alone; `ray_tasks` contains these rules, `ray_pool` the liveness of workers.

Workers find scenes by their paths: every machine must see the input and the workdir at the same
ones.
"""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
import logging
import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any

from jaxsplat_mouse.dataset.sources import Source
from jaxsplat_mouse.errors import ConfigError, InputError
from jaxsplat_mouse.fit.driver import FitError
from jaxsplat_mouse.run import batches
from jaxsplat_mouse.run.batches import BatchPlan
from jaxsplat_mouse.run.engine import RunPlan
from jaxsplat_mouse.run.ray_pool import (
  FIRST_PAUSE,
  LONGEST_PAUSE,
  REPORT_SECONDS,
  Reply,
  WorkerHandle,
  WorkerPool,
)
from jaxsplat_mouse.run.ray_tasks import MOST_DEATHS, CropShapes, Task, TaskState, TaskTable
from jaxsplat_mouse.run.ray_worker import Outcome, RemoteWorker, Scenes
from jaxsplat_mouse.run.settings import Settings
from jaxsplat_mouse.run.workdir import Workdir
from jaxsplat_mouse.run.worker import SceneEvents
from jaxsplat_mouse.runtime.progress import Progress
from jaxsplat_mouse.runtime.signals import Stopped, StopRequest

_POLL_SECONDS = 0.5  # between two looks at signals
_STOP_SECONDS = 120.0  # for workers to save their fits
_RENDERED_AT_ONCE = 16
_THREADS = 5  # of a worker: one computes, one reads, one watches, one stops, one answers pings


@contextlib.contextmanager
def open_cluster(settings: Settings, workdir: Workdir, stop: StopRequest) -> Iterator[Cluster]:
  """Connects to the cluster, or starts Ray on this machine where the settings name none.

  Args:
    settings: of the run.
    workdir: the run's folder, which every machine sees.
    stop: notes signals.

  Yields:
    the engine; its workers end with the block.

  Raises:
    ConfigError: Ray is not installed, or the cluster cannot be reached.
  """
  try:
    import ray
  except ImportError:
    raise ConfigError(
      "execution.engine: 'ray' is not installed; expected pip install 'jaxsplat-mouse[cluster]'"
    ) from None
  address = settings.execution.address
  os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
  try:
    with _own_signals():
      ray.init(address=address or None, include_dashboard=False, logging_level=logging.ERROR)
  except (ConnectionError, ValueError, RuntimeError) as error:
    raise ConfigError(
      f"execution.address: {address!r}, cluster not reached ({str(error).splitlines()[0]})"
    ) from None
  try:
    cluster = Cluster(settings, workdir, stop)
    try:
      yield cluster
    finally:
      cluster.close()
  finally:
    ray.shutdown()


@contextlib.contextmanager
def _own_signals() -> Iterator[None]:
  """Keeps the signal handlers, which Ray would replace."""
  numbers = (signal.SIGINT, signal.SIGTERM)
  before = {number: signal.getsignal(number) for number in numbers}
  yield
  if threading.current_thread() is threading.main_thread():
    for number, handler in before.items():
      signal.signal(number, handler)


class _WorkersDiedError(Exception):
  """Worker after worker died while it answered one question."""


def _no_answer(error: Exception) -> ConfigError:
  reason = str(error).strip().splitlines()[-1]
  return ConfigError(f"execution.engine: no worker of the cluster answers ({reason})")


class Cluster:
  """The engine: gives tasks to workers in order, and records their outcomes."""

  def __init__(self, settings: Settings, workdir: Workdir, stop: StopRequest):
    """Starts the workers.

    Args:
      settings: of the run.
      workdir: the run's folder, which every machine sees.
      stop: notes signals.
    """
    import ray

    self._ray, self._workdir, self._stop = ray, workdir, stop
    gpus = int(ray.cluster_resources().get("GPU", 0))
    count = settings.execution.workers or gpus or 1
    # With GPUs the next batch is read while one is fitted; CPUs have enough to do with the fit.
    self._slots = 2 if gpus else 1
    actor = ray.remote(RemoteWorker).options(
      num_cpus=1, num_gpus=1 if gpus else 0, max_restarts=-1, max_concurrency=_THREADS
    )
    self._pool = WorkerPool(ray, lambda: actor.remote(settings, workdir), count)
    self._turns = itertools.cycle(self._pool.workers)
    self._found: tuple[dict[str, Any], int] | None = None

  def describe(self) -> dict[str, Any]:
    """Returns the description of a worker's device, and the number of workers."""
    return {**self._describe()[0], "workers": len(self._pool.workers)}

  def auto_batch(self) -> int:
    """Returns how many scenes a worker's device fits together."""
    return self._describe()[1]

  def _describe(self) -> tuple[dict[str, Any], int]:
    if self._found is None:
      try:
        self._found = self._ask("describe")
      except _WorkersDiedError as died:
        raise ConfigError(f"execution.engine: {died}") from None
    assert self._found is not None
    return self._found

  def measure(self, source: Source) -> float:
    """Returns the radius of a scene's hull in input units; raises InputError without one."""
    try:
      found = self._ask("measure", source)
    except _WorkersDiedError as died:
      raise InputError(str(source), "", str(died)) from None
    if isinstance(found, str):
      raise InputError(str(source), "", found)
    return float(found)

  def _ask(self, method: str, *arguments: Any) -> Any:
    """Returns the answer of any worker; several threads may ask.

    Raises:
      ConfigError: a worker cannot be started, or the method raised.
      Stopped: a signal came before the answer.
      _WorkersDiedError: workers kept dying of the question.
    """
    errors, deaths, pause = self._ray.exceptions, 0, FIRST_PAUSE
    while deaths < MOST_DEATHS:
      actor = next(self._turns).actor
      try:
        self._wait(actor.ping.remote())
      except (errors.ActorDiedError, errors.RayTaskError) as error:
        raise _no_answer(error) from None
      except errors.RayError:  # Ray is starting the worker again
        self._pause(pause)
        pause = min(2 * pause, LONGEST_PAUSE)
        continue
      try:
        return self._wait(getattr(actor, method).remote(*arguments))
      except errors.RayTaskError as error:
        raise _no_answer(error) from None
      except errors.RayError:
        deaths += 1
    raise _WorkersDiedError(f"{deaths} workers of the cluster died in `{method}`")

  def _wait(self, reference: Any) -> Any:
    """Returns a result; raises Stopped where a signal comes before it."""
    started = reported = time.monotonic()
    while not self._ray.wait([reference], timeout=_POLL_SECONDS)[0]:
      self._stop.check()
      now = time.monotonic()
      if now - reported >= REPORT_SECONDS:
        reported = now
        logging.warning("a worker of the cluster has not answered for %.0f s", now - started)
    return self._ray.get(reference)

  def _pause(self, seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
      self._stop.check()
      time.sleep(_POLL_SECONDS)

  def run(self, work: RunPlan, events: SceneEvents, progress: Progress) -> None:
    """Does all the work.

    Args:
      work: the scenes and batches.
      events: receives the outcome of every scene, in this thread.
      progress: shows lines to the user.

    Raises:
      Stopped: a signal came; the workers have saved their fits.
    """
    run = _Run(self._pool, self._slots, self._workdir, work, events, progress)
    try:
      run.work(self._stop)
    except Stopped:
      run.save()
      raise

  def close(self) -> None:
    """Ends the workers."""
    self._pool.close()


def _tasks_of(work: RunPlan) -> list[Task]:
  parts = [
    work.fitted[i : i + _RENDERED_AT_ONCE] for i in range(0, len(work.fitted), _RENDERED_AT_ONCE)
  ]
  return [Task(part) for part in parts] + [Task(plan.names, plan) for plan in work.plans]


class _Run:
  """The loop of one run: begins tasks, receives replies, reports outcomes."""

  def __init__(
    self,
    pool: WorkerPool,
    slots: int,
    workdir: Workdir,
    work: RunPlan,
    events: SceneEvents,
    progress: Progress,
  ):
    self._pool, self._workdir, self._work = pool, workdir, work
    self._events, self._progress = events, progress
    self._table = TaskTable(_tasks_of(work), slots)

  def work(self, stop: StopRequest) -> None:
    """Returns when every task is finished; raises Stopped where a signal comes before."""
    while self._table.tasks:
      stop.check()
      self._table.choose_crops(self._choose_crops)
      self._begin_tasks()
      self._show()
      for reply in self._pool.poll(_POLL_SECONDS):
        self._receive(reply)

  def _choose_crops(self, plan: BatchPlan, needed: CropShapes) -> BatchPlan:
    shape = batches.choose_shape(self._workdir, *needed, self._work.one_batch)
    return dataclasses.replace(plan, shape=shape)

  def _begin_tasks(self) -> None:
    """Gives every worker all that it can begin, one task in turn."""
    workers = self._pool.up
    while workers:
      workers = [worker for worker in workers if self._begin_task(worker)]

  def _begin_task(self, worker: WorkerHandle) -> bool:
    task = self._table.next_for(worker, time.monotonic())
    if task is None:
      return False
    task.worker = worker
    scenes = self._scenes(task)
    if task.plan is None:
      task.state = TaskState.COMPUTING
      self._pool.call(worker, task, "render", task.names, scenes)
    elif task.state is TaskState.READ:
      task.state = TaskState.COMPUTING
      self._pool.call(worker, task, "fit", task.plan, scenes)
    else:
      task.state = TaskState.READING
      self._pool.call(worker, task, "prepare", task.plan, scenes)
    return True

  def _scenes(self, task: Task) -> Scenes:
    sources = {name: self._work.sources[name] for name in task.names}
    recordings = {source.recording for source in sources.values()}
    scales = {key: value for key, value in self._work.scales.items() if key in recordings}
    return sources, scales

  def _show(self) -> None:
    begun = sum(task.worker is not None for task in self._table.tasks)
    self._progress.stage(f"{begun} batches on {len(self._pool.up)} workers")
    if line := self._pool.report_outage():
      self._progress.line(line)

  def _receive(self, reply: Reply) -> None:
    task = reply.task
    if task is None:
      self._table.release_read(reply.worker)
    elif reply.lost and not reply.begun:
      self._table.release(task)
    elif reply.lost:
      self._lose(task)
    elif reply.error:
      self._fail(task, reply.error)
    elif task.state is TaskState.READING:
      task.state, task.was_read, task.needed = TaskState.READ, True, reply.value
    else:
      self._table.finish(task)
      self._report(reply.value)

  def _report(self, outcomes: Sequence[Outcome]) -> None:
    for outcome in outcomes:
      if outcome.record is not None:
        self._events.written(outcome.name, outcome.record)
      elif outcome.unreadable:
        self._events.failed(outcome.name, InputError("", "", outcome.reason))
      else:
        self._events.failed(outcome.name, FitError(outcome.reason))

  def _lose(self, task: Task) -> None:
    """Does a task again whose worker died; splits it or gives it up where this keeps happening."""
    names = ", ".join(task.names)
    if self._table.blame(task, time.monotonic()):
      if task.plan is not None:
        batches.remove_plan(task.plan)  # the next run tries the scene from its start
      self._fail(task, f"{task.deaths} workers died while they worked on this scene alone")
    elif self._table.should_split(task):
      self._progress.line(f"{task.deaths} workers died with {names}; the batch is halved.")
      self._table.replace(task, self._halve(task))
    else:
      self._progress.line(f"A worker died with {names}; another one does the work again.")

  def _halve(self, task: Task) -> list[Task]:
    """Splits a task; crops that are chosen stay."""
    half = (len(task.names) + 1) // 2
    if task.plan is None:
      return [Task(task.names[:half]), Task(task.names[half:])]
    # A later run would take up the checkpoint, which is of all scenes, beside those of the halves.
    batches.remove_plan(task.plan)
    shape, starts = task.plan.shape, task.plan.starts
    return [
      Task(
        plan.names,
        dataclasses.replace(
          plan, shape=shape, starts={n: s for n, s in starts.items() if n in plan.names}
        ),
      )
      for plan in batches.new_plans(self._workdir, task.names, half)
    ]

  def _fail(self, task: Task, reason: str) -> None:
    self._table.finish(task)
    for name in task.names:
      self._events.failed(name, FitError(reason))

  def save(self) -> None:
    """Has every worker save its fit, and reports what was finished meanwhile."""
    workers = self._pool.up
    for worker in workers:
      worker.actor.stop.remote()
    deadline = time.monotonic() + _STOP_SECONDS
    while self._is_computing() and time.monotonic() < deadline:
      for reply in self._pool.poll(_POLL_SECONDS):
        task = reply.task
        if task is None:
          continue
        self._table.finish(task)
        if task.state is TaskState.COMPUTING and not (reply.lost or reply.error):
          self._report(reply.value)

  def _is_computing(self) -> bool:
    return any(task.state is TaskState.COMPUTING for task in self._table.tasks)
