"""The workers of a Ray cluster, which of them are up, and the calls on their way to them.

Ray starts a dead worker again, and refuses calls until the new process is up. A worker gets work
only after it has answered a ping in its present life. Another ping goes before every task: where
that fails, the worker did not die of the task. One call, `watch`, stays with every worker that is
up: it never returns, and fails as soon as the worker dies, at work or idle.
"""

from __future__ import annotations

import contextlib
import dataclasses
import math
import time
from collections.abc import Callable
from typing import Any

from jaxsplat_mouse.runtime.progress import format_seconds

FIRST_PAUSE, LONGEST_PAUSE = 0.5, 10.0  # seconds between pings, doubled from one to the next
REPORT_SECONDS = 60.0  # between two lines about a wait for the cluster


@dataclasses.dataclass(eq=False)
class WorkerHandle:
  """One worker over all its lives.

  Attributes:
    actor: Ray's handle.
    up: it has answered a ping, and has not died since.
    life: how often it has come up.
    process: identifies the process that answered last.
    pause: seconds until the next ping if the present one fails.
    ping_at: when to ping it; infinity while it is up or a ping is on its way.
  """

  actor: Any
  up: bool = False
  life: int = 0
  process: str = ""
  pause: float = FIRST_PAUSE
  ping_at: float = -math.inf


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reply:
  """What became of a call, or of a worker.

  Attributes:
    worker: it.
    task: what the call was for; None where the worker died, whatever it was doing.
    value: what the call returned.
    error: what the call raised, in one line; empty where it raised nothing.
    lost: the worker died before the call returned.
    begun: the worker was alive when the call was sent.
  """

  worker: WorkerHandle
  task: Any = None
  value: Any = None
  error: str = ""
  lost: bool = False
  begun: bool = False


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Call:
  """A call on its way; `following` is what a ping goes before."""

  worker: WorkerHandle
  life: int
  method: str
  task: Any = None
  following: tuple[str, tuple[Any, ...]] | None = None


class WorkerPool:
  """Starts workers, pings those that are down, and collects the replies of all."""

  def __init__(self, ray: Any, start_actor: Callable[[], Any], count: int):
    """Starts the workers.

    Args:
      ray: the module, connected to a cluster.
      start_actor: starts one actor.
      count: number of workers.
    """
    self._ray, self._start_actor = ray, start_actor
    self.workers = [WorkerHandle(start_actor()) for _ in range(count)]
    self._calls: dict[Any, _Call] = {}
    self._problem = "none has started yet"
    self._last_up = self._last_report = math.inf  # until the first look

  @property
  def up(self) -> list[WorkerHandle]:
    """The workers that can be given work."""
    return [worker for worker in self.workers if worker.up]

  def call(self, worker: WorkerHandle, task: Any, method: str, *arguments: Any) -> None:
    """Pings a worker, then calls a method of it; `poll` returns the reply.

    Args:
      worker: one that is up.
      task: returned with the reply.
      method: name of the method.
      arguments: of the method.
    """
    reference = worker.actor.ping.remote()
    self._calls[reference] = _Call(
      worker=worker, life=worker.life, method="ping", task=task, following=(method, arguments)
    )

  def _send(
    self, worker: WorkerHandle, method: str, arguments: tuple[Any, ...] = (), task: Any = None
  ) -> None:
    reference = getattr(worker.actor, method).remote(*arguments)
    self._calls[reference] = _Call(worker=worker, life=worker.life, method=method, task=task)

  def poll(self, timeout: float) -> list[Reply]:
    """Pings workers that are down, and waits for a reply.

    Args:
      timeout: seconds to wait at most.

    Returns:
      the replies that have come, which may be none.
    """
    now = time.monotonic()
    for worker in self.workers:
      if worker.ping_at <= now:
        worker.ping_at = math.inf
        self._send(worker, "ping")
    if not self._calls:
      time.sleep(timeout)
      return []
    ready, _ = self._ray.wait(list(self._calls), timeout=timeout)
    return [reply for reference in ready for reply in self._take(reference)]

  def _take(self, reference: Any) -> list[Reply]:
    call = self._calls.pop(reference)
    worker, errors = call.worker, self._ray.exceptions
    try:
      value = self._ray.get(reference)
    except errors.RayTaskError as error:
      if call.method in ("ping", "watch"):
        return self._lose(call, error)
      reason = str(error.cause or error).splitlines()[0]
      return [Reply(worker=worker, task=call.task, error=reason)]
    except errors.RayError as error:
      return self._lose(call, error)
    if call.following is not None:
      return self._follow(call, value)
    if call.method == "ping":
      self._come_up(worker, value)
    return [] if call.task is None else [Reply(worker=worker, task=call.task, value=value)]

  def _follow(self, call: _Call, process: str) -> list[Reply]:
    """Sends the call that waited for a ping, unless another process answered it."""
    worker, following = call.worker, call.following
    assert following is not None
    if not worker.up or (worker.life, worker.process) != (call.life, process):
      return [Reply(worker=worker, task=call.task, lost=True)]
    self._send(worker, *following, call.task)
    return []

  def _come_up(self, worker: WorkerHandle, process: str) -> None:
    if process == worker.process:
      # It was out of reach, not dead, and may still be at work that others do by now. No two
      # workers may write the same checkpoints.
      self._ray.kill(worker.actor, no_restart=False)
      self._ping_later(worker)
      return
    worker.up, worker.process, worker.pause = True, process, FIRST_PAUSE
    worker.life += 1
    self._send(worker, "watch")

  def _lose(self, call: _Call, error: Exception) -> list[Reply]:
    """Handles a call without an answer; a late one is about an earlier life of its worker."""
    worker, replies = call.worker, []
    self._problem = (str(error).strip() or type(error).__name__).splitlines()[-1]
    if call.method == "ping" and call.task is None:
      if isinstance(error, self._ray.exceptions.ActorDiedError):
        self._replace(worker)
      self._ping_later(worker)
    elif worker.up and worker.life == call.life:
      worker.up = False
      self._last_up = self._last_report = time.monotonic()
      self._ping_later(worker)
      replies.append(Reply(worker=worker, lost=True))
    if call.task is not None:
      begun = call.following is None
      replies.append(Reply(worker=worker, task=call.task, lost=True, begun=begun))
    return replies

  def _ping_later(self, worker: WorkerHandle) -> None:
    worker.ping_at = time.monotonic() + worker.pause
    worker.pause = min(2 * worker.pause, LONGEST_PAUSE)

  def _replace(self, worker: WorkerHandle) -> None:
    """Starts an actor for one that Ray has given up, as it does when a constructor raises."""
    with contextlib.suppress(self._ray.exceptions.RayError, ValueError):
      self._ray.kill(worker.actor)
    worker.actor = self._start_actor()

  def report_outage(self) -> str:
    """Returns a line about a cluster that has had no worker for long, else an empty string."""
    now = time.monotonic()
    if self.up or self._last_up > now:
      self._last_up = self._last_report = now
    if now - self._last_report < REPORT_SECONDS:
      return ""
    self._last_report = now
    waited = format_seconds(now - self._last_up)
    return f"The cluster has had no worker for {waited} ({self._problem}). The run waits for one."

  def close(self) -> None:
    """Ends all workers."""
    for worker in self.workers:
      with contextlib.suppress(self._ray.exceptions.RayError, ValueError):
        self._ray.kill(worker.actor)
