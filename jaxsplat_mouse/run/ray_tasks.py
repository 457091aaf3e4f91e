"""The tasks of a run on a cluster: where each one is, what a worker does next, who is to blame.

This module contains the rules only. It calls no worker, so that tests can play every order of
events.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Callable, Sequence
from typing import Any

from jaxsplat_mouse.run.batches import BatchPlan

# A scene fails after this many deaths of workers that worked on it alone. One death is often an
# accident of the machine, and two can be; a scene that exhausts the memory dies every time.
MOST_DEATHS = 3
# A batch is halved after this many deaths. The first one is taken for an accident, because a half
# cannot go on from the checkpoint of the whole.
DEATHS_BEFORE_SPLIT = 2
# A task rests after a death, twice as long after the next: workers that die within moments of one
# another have a common cause, which is no scene.
FIRST_REST = 2.0  # seconds

CropShapes = tuple[tuple[int, int], tuple[int, int]]  # as `batches.needed_shapes` returns them


class TaskState(enum.Enum):
  """Where a task is."""

  WAITING = "waits for a worker"
  READING = "a worker reads its scenes"
  READ = "a worker holds its scenes"
  COMPUTING = "a worker fits or renders it"


@dataclasses.dataclass(eq=False)
class Task:
  """A batch to fit, or scenes to render from their fits.

  Attributes:
    names: the scenes.
    plan: the batch; None for scenes that are only rendered.
    state: where the task is.
    worker: who reads, holds or computes it; None while it waits.
    deaths: workers that died while they worked on it.
    suspect: it may have killed a worker, or is a part of a task that may have.
    rests_until: when it may begin again, on the clock of the run.
    was_read: a worker has read its scenes, in whatever life.
    needed: the crops that its scenes need; None where none of them can be read.
  """

  names: tuple[str, ...]
  plan: BatchPlan | None = None
  state: TaskState = TaskState.WAITING
  worker: Any = None
  deaths: int = 0
  suspect: bool = False
  rests_until: float = 0.0
  was_read: bool = False
  needed: CropShapes | None = None

  @property
  def at_work(self) -> bool:
    """Whether a worker is busy with it, and could die of it."""
    return self.state in (TaskState.READING, TaskState.COMPUTING)

  @property
  def waits_for(self) -> set[str]:
    """The scenes whose fits it starts from."""
    return set(self.plan.starts.values()) if self.plan is not None else set()

  @property
  def has_crops(self) -> bool:
    """Whether its crops are chosen, or not needed because there is nothing to fit."""
    if self.plan is None or self.plan.shape is not None:
      return True
    return self.was_read and self.needed is None


class TaskTable:
  """The tasks that are not finished, in the order of the batches."""

  def __init__(self, tasks: Sequence[Task], slots: int):
    """Takes the tasks.

    Args:
      tasks: in the order of the batches.
      slots: tasks that a worker holds at a time; with two, one is read while one is computed.
    """
    self.tasks, self._slots = list(tasks), slots

  def next_for(self, worker: Any, now: float) -> Task | None:
    """Returns the task that a worker begins now, None where it begins nothing.

    A suspect goes first. It has the worker to itself, so that the next death has one cause, but it
    needs no free slot: all slots may be held by tasks that wait for its crops.

    Args:
      worker: one that is up.
      now: time in seconds, of any clock that runs on.
    """
    held = [task for task in self.tasks if task.worker is worker]
    busy = [task for task in held if task.at_work]
    suspects = [task for task in self.tasks if task.suspect and self._can_begin(task, worker, now)]
    if suspects or any(task.suspect for task in busy):
      return None if busy else suspects[0]
    computing = any(task.state is TaskState.COMPUTING for task in held)
    for task in self.tasks:
      if not self._can_begin(task, worker, now):
        continue
      # A task that waits for fits takes no slot from those that these fits come from.
      counted = held if self._waits(task) else [one for one in held if not self._waits(one)]
      if task.state is TaskState.WAITING and len(counted) >= self._slots:
        continue
      if computing and (task.state is TaskState.READ or task.plan is None):
        continue
      return task
    return None

  def _can_begin(self, task: Task, worker: Any, now: float) -> bool:
    if task.state is TaskState.READ:
      return task.worker is worker and task.has_crops and not self._waits(task)
    return task.state is TaskState.WAITING and task.rests_until <= now

  def _waits(self, task: Task) -> bool:
    """Whether scenes that a task starts from are not fitted yet."""
    wanted = task.waits_for
    return bool(wanted) and any(not wanted.isdisjoint(other.names) for other in self.tasks)

  def choose_crops(self, choose: Callable[[BatchPlan, CropShapes], BatchPlan]) -> None:
    """Chooses crops in the order of the batches, up to the first batch that was never read.

    Args:
      choose: returns a plan with its crops, from the plan and what its scenes need.
    """
    for task in self.tasks:
      if task.has_crops:
        continue
      if not task.was_read:
        return
      assert task.plan is not None and task.needed is not None
      task.plan = choose(task.plan, task.needed)

  def finish(self, task: Task) -> None:
    """Removes a task that is done or has failed."""
    self.tasks.remove(task)

  def release(self, task: Task) -> None:
    """Takes a task from its worker, without blame."""
    task.state, task.worker = TaskState.WAITING, None

  def release_read(self, worker: Any) -> None:
    """Takes from a dead worker what it only held: it cannot have died of these tasks."""
    for task in self.tasks:
      if task.worker is worker and task.state is TaskState.READ:
        self.release(task)

  def blame(self, task: Task, now: float) -> bool:
    """Counts the death of a task's worker; returns whether the task has failed by it."""
    self.release(task)
    task.rests_until = now + FIRST_REST * 2**task.deaths
    task.deaths += 1
    task.suspect = True
    return len(task.names) == 1 and task.deaths >= MOST_DEATHS

  def should_split(self, task: Task) -> bool:
    """Whether a task of several scenes keeps killing workers."""
    return len(task.names) > 1 and task.deaths >= DEATHS_BEFORE_SPLIT

  def replace(self, task: Task, parts: Sequence[Task]) -> None:
    """Puts the parts of a suspect in its place, where the order of the crops needs them."""
    place = self.tasks.index(task)
    self.tasks[place : place + 1] = [dataclasses.replace(part, suspect=True) for part in parts]
