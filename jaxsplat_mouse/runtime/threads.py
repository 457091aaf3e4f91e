"""Disk work beside device work: the next batch is read and the last scenes are written meanwhile.

One batch is read ahead, and what waits to be written is bounded in bytes, so host memory stays the
same however many scenes there are.
"""

from __future__ import annotations

import collections
import os
import pathlib
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
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


def read_all(
  items: Sequence[Item], read: Callable[[Item], Result], threads: int
) -> Iterator[tuple[Item, Result]]:
  """Yields items with what `read` gives for them, in order, reading several at a time.

  Args:
    items: what to read.
    read: called once for each; decoding images and hashing files let other threads run.
    threads: at most so many at a time; with 1, each item is read when it is asked for.
  """
  if threads <= 1:
    for item in items:
      yield item, read(item)
    return
  with ThreadPoolExecutor(threads, "reader") as readers:
    yield from zip(items, readers.map(read, items), strict=True)


def host_cores() -> int:
  """Cores that this process may use: a batch system may give it a share of the machine's."""
  if hasattr(os, "sched_getaffinity"):
    return len(os.sched_getaffinity(0))
  return os.cpu_count() or 1


def host_memory() -> int:
  """Bytes of memory that this process may use: the machine's, or its container's."""
  total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
  try:
    limit = pathlib.Path("/sys/fs/cgroup/memory.max").read_text().strip()
    return min(total, int(limit))
  except (OSError, ValueError):  # no container, or one without a limit
    return total


class Fetchers:
  """Brings what an accelerator was given to do to the host, in a few threads."""

  def __init__(self, threads: int, most: int):
    """Takes how many threads, and how many results at most the device holds at a time."""
    self._threads = ThreadPoolExecutor(threads, "fetcher")
    self._room = threading.BoundedSemaphore(most)

  def submit(
    self, give: Callable[[], Item], take: Callable[[Item], Result]
  ) -> tuple[Item, Future[Result]]:
    """Runs `give` here, once there is room on the device, and `take` on what it gave in a thread.

    What `give` raises is raised here, what `take` raises is kept in the future.
    """
    self._room.acquire()
    try:
      given = give()
      future = self._threads.submit(take, given)
    except BaseException:
      self._room.release()
      raise
    future.add_done_callback(lambda _: self._room.release())
    return given, future

  def close(self) -> None:
    """Ends the threads, once everything is fetched."""
    self._threads.shutdown()


class Writers(Generic[Result]):
  """Runs jobs in a few threads and hands back what came of them in the order they were given."""

  def __init__(
    self,
    done: Callable[[str, Result | Exception], None],
    threads: int | None = None,
    most_bytes: int | None = None,
  ):
    """Starts the threads.

    Args:
      done: called in the thread of `submit` and `finish` with each job's name and outcome.
      threads: by default as many as there are cores but two, at least 1 and at most 32.
      most_bytes: of all jobs on their way; by default an eighth of the memory, at most 16 GiB.
    """
    count = threads or max(1, min(32, host_cores() - 2))
    self._done, self._least = done, count + 1
    self._most_bytes = most_bytes or min(host_memory() // 8, 16 << 30)
    self._bytes = 0
    self._threads = ThreadPoolExecutor(count, "writer")
    self._waiting: collections.deque[tuple[str, int, Future[Result]]] = collections.deque()

  def submit(self, name: str, job: Callable[[], Result], size: int | None = None) -> None:
    """Gives a job to the threads; waits where too many are on their way.

    Args:
      name: of the job.
      job: what to run.
      size: bytes that it holds until it is done. As many jobs wait as memory has room for, and
        without a size no more than keep the threads busy.
    """
    while self._waiting and self._is_full(size):
      self._take()
    self._waiting.append((name, size or 0, self._threads.submit(job)))
    self._bytes += size or 0
    while self._waiting and self._waiting[0][2].done():
      self._take()

  def _is_full(self, size: int | None) -> bool:
    if size is None:
      return len(self._waiting) >= self._least
    return self._bytes + size > self._most_bytes

  def _take(self) -> None:
    name, size, future = self._waiting.popleft()
    self._bytes -= size
    error = future.exception()
    if isinstance(error, Exception):
      self._done(name, error)
    else:
      self._done(name, future.result())

  def flush(self) -> None:
    """Waits for all jobs."""
    while self._waiting:
      self._take()

  def finish(self) -> None:
    """Waits for all jobs and ends the threads."""
    self.flush()
    self._threads.shutdown()
