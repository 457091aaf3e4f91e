"""Bounded thread pools: input is read ahead, device results are fetched and files written behind.

Each pool is a context manager that ends its threads at the end of its block. Entered into one
`contextlib.ExitStack`, pools end in reverse order: enter first what later pools wait for.
"""

from __future__ import annotations

import collections
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from threading import BoundedSemaphore
from types import TracebackType
from typing import Generic, Self, TypeVar

from jaxsplat_mouse.runtime.host import host_cores, host_memory

Item = TypeVar("Item")
Result = TypeVar("Result")

_MOST_WRITERS = 32
_MOST_WAITING_BYTES = 16 << 30


def side_by_side(function: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
  """Calls a function for all items at once, each in a thread of its own.

  To keep several devices busy, for instance: a device's queue holds few kernels, so a call returns
  only when nearly all of its kernels have been launched, and from one thread the devices would work
  one after the other.

  Args:
    function: called once for each item; a single item is passed in the calling thread.
    items: one for each thread.

  Returns:
    the results in the order of the items.
  """
  if len(items) <= 1:
    return [function(item) for item in items]
  with ThreadPoolExecutor(len(items), "side") as threads:
    return list(threads.map(function, items))


def ordered_map(
  function: Callable[[Item], Result], items: Sequence[Item], threads: int
) -> Iterator[tuple[Item, Result]]:
  """Yields items with their results, in order, while several threads compute.

  Args:
    function: called once for each item; worth several threads where it releases the interpreter's
      lock, as the decoding of images and the hashing of files do.
    items: all of them are submitted at once.
    threads: their largest number; with 1, each result is computed when it is asked for.

  Yields:
    pairs of an item and its result.
  """
  if threads <= 1:
    for item in items:
      yield item, function(item)
    return
  with ThreadPoolExecutor(threads, "reader") as pool:
    yield from zip(items, pool.map(function, items), strict=True)


def read_ahead(
  items: Iterable[Item], read: Callable[[Item], Result], ahead: bool
) -> Iterator[tuple[Item, Result]]:
  """Yields items with what `read` returns for them, reading the next item while one is in use.

  Args:
    items: what to read.
    read: called once for each item, in order, in one thread.
    ahead: whether to read ahead at all; if not, each item is read when it is asked for.

  Yields:
    pairs of an item and what was read.
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


class ClosingPool:
  """A thread pool that a `with` block closes."""

  def __init__(self, threads: int, name: str):
    """Starts no thread before the first job.

    Args:
      threads: how many jobs run at a time.
      name: of the threads.
    """
    self._threads = ThreadPoolExecutor(threads, name)

  def __enter__(self) -> Self:
    """Returns itself."""
    return self

  def __exit__(
    self,
    kind: type[BaseException] | None,
    error: BaseException | None,
    trace: TracebackType | None,
  ) -> None:
    """Closes the pool."""
    self.close()

  def close(self) -> None:
    """Waits for all jobs and ends the threads."""
    self._threads.shutdown()


class FetchPool(ClosingPool):
  """Fetches results from a device in threads; the device holds a bounded number of them."""

  def __init__(self, threads: int, most: int):
    """Creates the pool.

    Args:
      threads: how many results are fetched at a time.
      most: how many results the device holds at a time.
    """
    super().__init__(threads, "fetcher")
    self._room = BoundedSemaphore(most)

  def submit(
    self, launch: Callable[[], Item], fetch: Callable[[Item], Result]
  ) -> tuple[Item, Future[Result]]:
    """Launches work on the device once there is room, and fetches its result in a thread.

    Args:
      launch: called in this thread; its errors are raised here.
      fetch: called in a thread of the pool with what `launch` returned.

    Returns:
      what `launch` returned, and the future of what `fetch` returns or raises.
    """
    self._room.acquire()
    try:
      launched = launch()
      future = self._threads.submit(fetch, launched)
    except BaseException:
      self._room.release()
      raise
    future.add_done_callback(lambda _: self._room.release())
    return launched, future


class WriteQueue(ClosingPool, Generic[Result]):
  """Runs jobs in threads and reports their outcomes in order; bounds the bytes that wait.

  So host memory stays the same however many jobs there are.
  """

  def __init__(
    self,
    done: Callable[[str, Result | Exception], None],
    threads: int | None = None,
    most_bytes: int | None = None,
  ):
    """Creates the queue.

    Args:
      done: called with each job's name and its result or error, in the order of submission, in the
        thread that calls `submit`, `flush` or `close`.
      threads: by default the number of cores less two, at least 1 and at most 32.
      most_bytes: of all unfinished jobs; by default an eighth of the memory, at most 16 GiB.
    """
    count = threads or max(1, min(_MOST_WRITERS, host_cores() - 2))
    super().__init__(count, "writer")
    self._done, self._most_unsized = done, count + 1
    self._most_bytes = most_bytes or min(host_memory() // 8, _MOST_WAITING_BYTES)
    self._bytes = 0
    self._waiting: collections.deque[tuple[str, int, Future[Result]]] = collections.deque()

  def submit(self, name: str, job: Callable[[], Result], size: int | None = None) -> None:
    """Submits a job; waits while the queue is full.

    Args:
      name: of the job.
      job: what to run.
      size: bytes that the job holds until it is done. Jobs with a size wait as long as memory has
        room for them; without a size, one more than there are threads.
    """
    while self._waiting and self._is_full(size):
      self._report_oldest()
    self._waiting.append((name, size or 0, self._threads.submit(job)))
    self._bytes += size or 0
    while self._waiting and self._waiting[0][2].done():
      self._report_oldest()

  def _is_full(self, size: int | None) -> bool:
    if size is None:
      return len(self._waiting) >= self._most_unsized
    return self._bytes + size > self._most_bytes

  def _report_oldest(self) -> None:
    name, size, future = self._waiting.popleft()
    self._bytes -= size
    error = future.exception()
    if isinstance(error, Exception):
      self._done(name, error)
    else:
      self._done(name, future.result())

  def flush(self) -> None:
    """Waits for all jobs and reports their outcomes."""
    while self._waiting:
      self._report_oldest()

  def close(self) -> None:
    """Waits for all jobs, reports their outcomes and ends the threads."""
    try:
      self.flush()
    finally:
      super().close()
