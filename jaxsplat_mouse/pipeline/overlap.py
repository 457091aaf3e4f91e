"""Disk work beside device work: the next batch is read and the last scenes are written meanwhile.

Both queues are short, so host memory stays the same however many scenes there are.
"""

from __future__ import annotations

import collections
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Generic, TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def read_ahead(
  items: Iterable[Item], read: Callable[[Item], Result], ahead: bool
) -> Iterator[tuple[Item, Result]]:
  """Yields items with what `read` gives for them, reading the next one while one is in use.

  Args:
    items: what to read.
    read: called once for each, in order, in one thread.
    ahead: whether to read ahead at all.
  """
  if not ahead:
    for item in items:
      yield item, read(item)
    return
  with ThreadPoolExecutor(1, "reader") as reader:
    waiting: collections.deque[tuple[Item, Future[Result]]] = collections.deque()
    for item in items:
      waiting.append((item, reader.submit(read, item)))
      if len(waiting) > 1:
        first, future = waiting.popleft()
        yield first, future.result()
    for item, future in waiting:
      yield item, future.result()


class Writers(Generic[Result]):
  """Runs jobs in a few threads and hands back what came of them in the order they were given."""

  def __init__(self, done: Callable[[str, Result | Exception], None], threads: int | None = None):
    """Starts the threads.

    Args:
      done: called in the thread of `submit` and `finish` with each job's name and outcome.
      threads: by default half of the machine's, at most 16.
    """
    count = threads or max(1, min(16, (os.cpu_count() or 1) // 2))
    self._done, self._most = done, count + 1
    self._threads = ThreadPoolExecutor(count, "writer")
    self._waiting: collections.deque[tuple[str, Future[Result]]] = collections.deque()

  def submit(self, name: str, job: Callable[[], Result]) -> None:
    """Gives a job to the threads; waits where too many are on their way."""
    while len(self._waiting) >= self._most:
      self._take()
    self._waiting.append((name, self._threads.submit(job)))
    while self._waiting and self._waiting[0][1].done():
      self._take()

  def _take(self) -> None:
    name, future = self._waiting.popleft()
    error = future.exception()
    if isinstance(error, Exception):
      self._done(name, error)
    else:
      self._done(name, future.result())

  def finish(self) -> None:
    """Waits for all jobs."""
    while self._waiting:
      self._take()
    self._threads.shutdown()
