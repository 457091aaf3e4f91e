"""A stand-in for Ray with a clock of its own: tests script how long calls take and who dies.

It behaves as Ray 2.60 does with actors that are restarted for ever: calls to an actor that starts
for the first time wait for it, calls to one that is being restarted fail after a moment, and calls
on their way fail when the process dies.
"""

from __future__ import annotations

import dataclasses
import heapq
import itertools
import types
from collections.abc import Callable, Sequence
from typing import Any

from jaxsplat_mouse.dataset.scene_records import SceneRecord
from jaxsplat_mouse.run.ray_worker import Outcome

REFUSED_SECONDS = 2.0  # until Ray refuses a call to an actor that is being restarted
PING_SECONDS = 0.01
CROPS = ((32, 32), (64, 64))


class RayError(Exception):
  """As in Ray."""


class RayTaskError(RayError):
  """The method raised."""

  cause: Exception | None = None


class RayActorError(RayError):
  """The actor cannot be reached."""


class ActorUnavailableError(RayActorError):
  """The actor is being restarted."""


class ActorDiedError(RayActorError):
  """The actor is not restarted."""


@dataclasses.dataclass(frozen=True)
class Attempt:
  """A call that a worker executes."""

  method: str
  names: tuple[str, ...]
  shape: tuple[int, int] | None
  worker: int
  process: int


@dataclasses.dataclass
class Script:
  """What happens in a test.

  Attributes:
    seconds: how long `prepare`, `fit` and `render` take.
    start_seconds: until the first process of a worker is up.
    restart_seconds: until a replacement is up.
    kills: whether a call kills its worker half way; `watch` before the next call can come.
    raises: whether a call raises.
    starts: whether a process's constructor succeeds, by worker and number of the process.
  """

  seconds: dict[str, float] = dataclasses.field(
    default_factory=lambda: {"prepare": 1.0, "fit": 10.0, "render": 4.0}
  )
  start_seconds: float = 5.0
  restart_seconds: float = 5.0
  kills: Callable[[Attempt], bool] = lambda attempt: False
  raises: Callable[[Attempt], bool] = lambda attempt: False
  starts: Callable[[int, int], bool] = lambda worker, process: True


@dataclasses.dataclass(eq=False)
class Reference:
  """A call's result, once it is there."""

  done: bool = False
  value: Any = None
  error: Exception | None = None


@dataclasses.dataclass(eq=False)
class Actor:
  """A worker over all its processes; any attribute is a method to call."""

  ray: FakeRay
  number: int
  process: int = 0
  is_up: bool = False
  was_up: bool = False
  is_dead: bool = False
  is_reachable: bool = True
  calls: dict[Reference, Attempt | None] = dataclasses.field(default_factory=dict)
  queue: list[tuple[Reference, str, tuple[Any, ...]]] = dataclasses.field(default_factory=list)

  def __getattr__(self, method: str) -> Any:
    """Gives the method, whose `remote` calls it."""
    if method.startswith("_"):
      raise AttributeError(method)
    return types.SimpleNamespace(remote=lambda *given: self.ray.submit(self, method, given))


class FakeRay:
  """The module `ray`, the module `time`, and a record of all that happened."""

  def __init__(self, script: Script):
    """Starts at time 0."""
    self.script, self.now = script, 0.0
    self.actors: list[Actor] = []
    self.attempts: list[Attempt] = []
    self.deaths: list[tuple[Attempt, ...]] = []  # the calls that each dead process was executing
    self.gpus = 0
    self.exceptions = types.SimpleNamespace(
      RayError=RayError,
      RayTaskError=RayTaskError,
      RayActorError=RayActorError,
      ActorDiedError=ActorDiedError,
    )
    self._events: list[tuple[float, int, Callable[[], None]]] = []
    self._order = itertools.count()

  def remote(self, kind: type) -> Any:
    """Gives an object whose `options(...).remote(...)` starts an actor."""
    return types.SimpleNamespace(options=lambda **_: types.SimpleNamespace(remote=self._start))

  def cluster_resources(self) -> dict[str, float]:
    """The GPUs of the cluster."""
    return {"GPU": self.gpus}

  def _start(self, *_: Any) -> Actor:
    actor = Actor(self, len(self.actors))
    self.actors.append(actor)
    self.at(self.now + self.script.start_seconds, lambda: self._come_up(actor, 1))
    return actor

  def _come_up(self, actor: Actor, process: int) -> None:
    if actor.is_dead or actor.process >= process:
      return
    if not self.script.starts(actor.number, process):
      actor.is_dead = True
      for reference, _, _ in actor.queue:
        self._end(actor, reference, error=ActorDiedError("the constructor raised"))
      return
    actor.process, actor.is_up, actor.was_up = process, True, True
    queue, actor.queue = actor.queue, []
    for reference, method, given in queue:
      self._execute(actor, reference, method, given)

  def at(self, time: float, event: Callable[[], None]) -> None:
    """Has something happen at a time."""
    heapq.heappush(self._events, (time, next(self._order), event))

  def submit(self, actor: Actor, method: str, given: tuple[Any, ...]) -> Reference:
    """Calls a method of an actor."""
    reference = Reference()
    if actor.is_dead:
      self._end(actor, reference, error=ActorDiedError("the actor is dead"))
    elif actor.is_up and actor.is_reachable:
      self._execute(actor, reference, method, given)
    elif actor.was_up:
      error = ActorUnavailableError("the actor is being restarted")
      self.at(self.now + REFUSED_SECONDS, lambda: self._end(actor, reference, error=error))
    else:
      actor.queue.append((reference, method, given))
    return reference

  def _execute(
    self, actor: Actor, reference: Reference, method: str, given: tuple[Any, ...]
  ) -> None:
    actor.calls[reference] = None
    if method == "ping":
      value = f"process {actor.number}.{actor.process}"
      self.at(self.now + PING_SECONDS, lambda: self._end(actor, reference, value=value))
    elif method == "describe":
      self._end(actor, reference, value=({"platform": "fake"}, 4))
    elif method == "stop":
      for other, attempt in list(actor.calls.items()):
        if attempt is not None:
          self._end(actor, other, value=[])
    elif method == "watch":
      process = actor.process
      if self.script.kills(Attempt("watch", (), None, actor.number, process)):
        self.at(self.now + PING_SECONDS / 2, lambda: self.die(actor, process))
    else:
      self._attempt(actor, reference, method, given)

  def _attempt(
    self, actor: Actor, reference: Reference, method: str, given: tuple[Any, ...]
  ) -> None:
    plan = None if method in ("render", "measure") else given[0]
    names = (str(given[0]),) if method == "measure" else plan.names if plan else given[0]
    shape = plan.shape if plan else None
    attempt = Attempt(method, names, shape, actor.number, actor.process)
    computing = [a for a in actor.calls.values() if a and a.method != "prepare"]
    assert method == "prepare" or not computing, f"{attempt} waits behind {computing}"
    self.attempts.append(attempt)
    actor.calls[reference] = attempt
    seconds, process = self.script.seconds.get(method, 1.0), actor.process
    if self.script.kills(attempt):
      self.at(self.now + seconds / 2, lambda: self.die(actor, process))
      return
    error = RayTaskError("the method raised") if self.script.raises(attempt) else None
    value: Any = CROPS
    if method != "prepare":
      value = [Outcome(name=n, record=SceneRecord(scene=n, status="done")) for n in names]
    self.at(self.now + seconds, lambda: self._end(actor, reference, value=value, error=error))

  def _end(
    self, actor: Actor, reference: Reference, *, value: Any = None, error: Exception | None = None
  ) -> None:
    actor.calls.pop(reference, None)
    if not reference.done:
      reference.done, reference.value, reference.error = True, value, error

  def die(self, actor: Actor, process: int | None = None) -> None:
    """Kills the process of an actor: the present one, or none if the given one is gone."""
    if not actor.is_up or process not in (None, actor.process):
      return
    actor.is_up, actor.is_reachable = False, True
    self.deaths.append(tuple(a for a in actor.calls.values() if a))
    for reference in list(actor.calls):
      self._end(actor, reference, error=ActorUnavailableError("socket closed"))
    following = actor.process + 1
    self.at(self.now + self.script.restart_seconds, lambda: self._come_up(actor, following))

  def lose_connection(self, actor: Actor, seconds: float) -> None:
    """Fails all calls to an actor that works on, for a while."""
    actor.is_reachable = False
    for reference, attempt in list(actor.calls.items()):
      reference.done, reference.error = True, ActorUnavailableError("connection lost")
      if attempt is None:
        actor.calls.pop(reference)
    self.at(self.now + seconds, lambda: setattr(actor, "is_reachable", True))

  def kill(self, actor: Actor, *, no_restart: bool = True) -> None:
    """As `ray.kill`."""
    self.die(actor)
    actor.is_dead = actor.is_dead or no_restart

  def wait(
    self, references: Sequence[Reference], timeout: float
  ) -> tuple[list[Reference], list[Reference]]:
    """Lets time pass until one reference is done, or to the end of the time-out."""
    end = self.now + timeout
    while not any(r.done for r in references) and self._events and self._events[0][0] <= end:
      self._step()
    done = [r for r in references if r.done][:1]
    if not done:
      self.now = end
    return done, [r for r in references if r not in done]

  def _step(self) -> None:
    self.now, _, event = heapq.heappop(self._events)
    event()

  def get(self, reference: Reference) -> Any:
    """The value of a reference that is done; raises its error."""
    assert reference.done
    if reference.error is not None:
      raise reference.error
    return reference.value

  def monotonic(self) -> float:
    """As `time.monotonic`."""
    return self.now

  def sleep(self, seconds: float) -> None:
    """As `time.sleep`."""
    end = self.now + seconds
    while self._events and self._events[0][0] <= end:
      self._step()
    self.now = end
