"""Batches spread over a Ray cluster: one worker for each GPU, one place that keeps the books.

The driver cuts the batches, and chooses their crops in the order of the batches, as a local run
does: where the devices are the same, so are the bytes. A worker that dies is started again, and its
batch goes on from its checkpoint, on whichever worker is free. Workers write scenes into the shared
workdir; only the driver writes the manifest, the lists and the report.

Scenes come and go by their paths: every machine must see the input and the workdir at the same one.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from jaxsplat_mouse.dataset.sources import Source
from jaxsplat_mouse.errors import ConfigError, InputError
from jaxsplat_mouse.run import batches
from jaxsplat_mouse.run.batches import Plan
from jaxsplat_mouse.run.fitting import FitError
from jaxsplat_mouse.run.ray_worker import Outcome, RemoteWorker, Scenes, Shapes
from jaxsplat_mouse.run.settings import Settings
from jaxsplat_mouse.run.work import Work
from jaxsplat_mouse.run.workdir import Workdir
from jaxsplat_mouse.run.worker import Events
from jaxsplat_mouse.runtime.progress import Progress
from jaxsplat_mouse.runtime.signals import Stopped, StopRequest

_ATTEMPTS = 4  # at one batch, when its workers die
_POLL_SECONDS = 0.5  # between two looks at signals
_STOP_SECONDS = 120.0  # for workers to save what they are at
_RENDERED_AT_ONCE = 16
_THREADS = 4  # of a worker: one fits, one reads, one is told to stop


@contextlib.contextmanager
def start(settings: Settings, workdir: Workdir, stop: StopRequest) -> Iterator[Cluster]:
  """Connects to the cluster, or starts Ray on this machine where there is none.

  Raises:
    ConfigError: Ray is not installed, or there is no such cluster.
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
      f"execution.address: {address!r}, no cluster to be reached ({str(error).splitlines()[0]})"
    ) from None
  try:
    yield Cluster(settings, workdir, stop)
  finally:
    ray.shutdown()


@contextlib.contextmanager
def _own_signals() -> Iterator[None]:
  """Keeps the handlers of signals, which Ray would replace."""
  numbers = (signal.SIGINT, signal.SIGTERM)
  before = {number: signal.getsignal(number) for number in numbers}
  yield
  if threading.current_thread() is threading.main_thread():
    for number, handler in before.items():
      signal.signal(number, handler)


@dataclasses.dataclass(eq=False)
class _Task:
  """A piece of work on its way over the workers."""

  names: tuple[str, ...]
  plan: Plan | None = None  # None: scenes that are only rendered
  deaths: int = 0


Answer = Callable[[_Task, int, Any], None]


class Cluster:
  """The engine: hands tasks to workers in order, and takes their outcomes as they come."""

  def __init__(self, settings: Settings, workdir: Workdir, stop: StopRequest):
    """Starts the workers."""
    import ray

    self._ray, self._workdir, self._stop = ray, workdir, stop
    gpus = int(ray.cluster_resources().get("GPU", 0))
    count = settings.execution.workers or gpus or 1
    # With GPUs the next batch is read while one is fitted; CPUs have enough to do with the fit.
    self._slots = 2 if gpus else 1
    actor = ray.remote(RemoteWorker).options(
      num_cpus=1, num_gpus=1 if gpus else 0, max_restarts=-1, max_concurrency=_THREADS
    )
    self._workers: list[Any] = [actor.remote(settings, workdir) for _ in range(count)]
    self._found: tuple[dict[str, Any], int] | None = None

  def describe(self) -> dict[str, Any]:
    """The first worker's device, and the number of workers."""
    self._found = self._found or self._wait(self._workers[0].describe.remote())
    assert self._found is not None
    return {**self._found[0], "workers": len(self._workers)}

  def auto_batch(self) -> int:
    """What the first worker's device holds."""
    self.describe()
    assert self._found is not None
    return self._found[1]

  def measure(self, source: Source) -> float:
    """Radius of a scene's hull in input units, as a worker finds it."""
    found = self._wait(self._workers[0].measure.remote(source))
    if isinstance(found, str):
      raise InputError(str(source), "", found)
    return found

  def _wait(self, reference: Any) -> Any:
    """A result, or Stopped where a signal comes before it."""
    while True:
      self._stop.check()
      ready, _ = self._ray.wait([reference], timeout=_POLL_SECONDS)
      if ready:
        break
    try:
      return self._ray.get(reference)
    except self._ray.exceptions.RayError as error:
      reason = str(error).strip().splitlines()[-1]
      raise ConfigError(f"execution.engine: no worker of the cluster answers ({reason})") from None

  def run(self, work: Work, events: Events, progress: Progress) -> None:
    """Does everything and tells every outcome; raises Stopped where a signal came."""
    run = _Run(self, work, events, progress)
    try:
      run.work()
    except Stopped:
      run.save()
      raise


class _Run:
  """The tasks of one run and where they are."""

  def __init__(self, cluster: Cluster, work: Work, events: Events, progress: Progress):
    self._cluster, self._work = cluster, work
    self._events, self._progress = events, progress
    self._ray, self._stop = cluster._ray, cluster._stop
    self._workers = cluster._workers
    parts = [
      work.fitted[i : i + _RENDERED_AT_ONCE] for i in range(0, len(work.fitted), _RENDERED_AT_ONCE)
    ]
    tasks = [_Task(part) for part in parts] + [_Task(p.names, p) for p in work.plans]
    self._waiting = collections.deque(tasks)
    self._unshaped = collections.deque(t for t in tasks if t.plan and t.plan.shape is None)
    self._needed: dict[_Task, tuple[int, Shapes | None]] = {}  # worker and crops
    self._on_its_way: dict[Any, tuple[Answer, _Task, int]] = {}
    self._loads = dict.fromkeys(range(len(self._workers)), 0)
    self._left = len(tasks)

  def work(self) -> None:
    """Until every task is done."""
    while self._left:
      self._stop.check()
      self._hand_out()
      self._progress.stage(f"{sum(self._loads.values())} batches on {len(self._workers)} workers")
      self._take(_POLL_SECONDS)

  def _hand_out(self) -> None:
    """Gives the next tasks, in order, to the workers with the least to do."""
    while self._waiting:
      worker = min(self._loads, key=lambda i: self._loads[i])
      # A task that was begun before goes first and anywhere: others may wait for its crops.
      if self._loads[worker] >= self._cluster._slots and not self._waiting[0].deaths:
        return
      task = self._waiting.popleft()
      self._loads[worker] += 1
      handle, scenes = self._workers[worker], self._scenes(task)
      if task.plan is None:
        self._send(self._done, task, worker, handle.render.remote(task.names, scenes))
      elif task.plan.shape is None:
        self._send(self._prepared, task, worker, handle.prepare.remote(task.plan, scenes))
      else:
        self._send(self._done, task, worker, handle.fit.remote(task.plan, scenes))

  def _send(self, then: Answer, task: _Task, worker: int, reference: Any) -> None:
    self._on_its_way[reference] = (then, task, worker)

  def _take(self, timeout: float) -> None:
    """Takes one answer that has come, if any."""
    if not self._on_its_way:
      time.sleep(timeout)
      return
    ready, _ = self._ray.wait(list(self._on_its_way), timeout=timeout)
    for reference in ready:
      then, task, worker = self._on_its_way.pop(reference)
      try:
        answer = self._ray.get(reference)
      except self._ray.exceptions.RayActorError:
        self._died(task, worker)
      except self._ray.exceptions.RayTaskError as error:
        self._give_up(task, worker, str(error.cause or error).splitlines()[0])
      else:
        then(task, worker, answer)

  def _prepared(self, task: _Task, worker: int, needed: Shapes | None) -> None:
    """A batch is read: crops are chosen in the order of the batches, as far as they are known."""
    self._needed[task] = (worker, needed)
    while self._unshaped and self._unshaped[0] in self._needed:
      first = self._unshaped.popleft()
      worker, needed = self._needed.pop(first)
      assert first.plan is not None
      if needed is not None:
        shape = batches.pick_shape(self._cluster._workdir, *needed, self._work.one_batch)
        first.plan = dataclasses.replace(first.plan, shape=shape)
      reference = self._workers[worker].fit.remote(first.plan, self._scenes(first))
      self._send(self._done, first, worker, reference)

  def _scenes(self, task: _Task) -> Scenes:
    sources = {name: self._work.sources[name] for name in task.names}
    recordings = {source.recording for source in sources.values()}
    scales = {key: value for key, value in self._work.scales.items() if key in recordings}
    return sources, scales

  def _done(self, task: _Task, worker: int, outcomes: list[Outcome]) -> None:
    self._loads[worker] -= 1
    self._left -= 1
    self._tell(outcomes)

  def _tell(self, outcomes: list[Outcome]) -> None:
    for outcome in outcomes:
      if outcome.record is not None:
        self._events.written(outcome.name, outcome.record)
      elif outcome.unreadable:
        self._events.failed(outcome.name, InputError("", "", outcome.reason))
      else:
        self._events.failed(outcome.name, FitError(outcome.reason))

  def _died(self, task: _Task, worker: int) -> None:
    """The worker is gone with all it had read: its batch goes first, wherever there is room."""
    task.deaths += 1
    if task.deaths >= _ATTEMPTS:
      self._give_up(task, worker, f"its worker died {task.deaths} times")
      return
    self._progress.line(f"A worker died with {', '.join(task.names)}; they are done again.")
    self._loads[worker] -= 1
    self._waiting.appendleft(task)

  def _give_up(self, task: _Task, worker: int, reason: str) -> None:
    self._loads[worker] -= 1
    self._left -= 1
    if task in self._unshaped:
      self._unshaped.remove(task)
    for name in task.names:
      self._events.failed(name, FitError(reason))

  def save(self) -> None:
    """Has every worker save what it is at, and takes what was finished meanwhile."""
    for worker in self._workers:
      worker.stop.remote()
    deadline = time.monotonic() + _STOP_SECONDS
    while self._on_its_way and time.monotonic() < deadline:
      ready, _ = self._ray.wait(list(self._on_its_way), timeout=_POLL_SECONDS)
      for reference in ready:
        then, _, _ = self._on_its_way.pop(reference)
        with contextlib.suppress(self._ray.exceptions.RayError):
          if then == self._done:
            self._tell(self._ray.get(reference))
