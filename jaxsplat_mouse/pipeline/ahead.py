"""Programs that are compiled in threads, beside the work that comes before them.

A first scene waits for XLA more than for anything else, and XLA compiles several programs at once.
So whoever knows the shapes of a later program has it compiled here, and waits for it just before
the call, which then finds it.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable
from concurrent.futures import Future, ThreadPoolExecutor

from absl import logging

_THREADS = 4


class Ahead:
  """What is being compiled, by a key that tells programs apart."""

  def __init__(self, threads: int = _THREADS):
    """Starts no thread before there is something to compile."""
    self._threads = ThreadPoolExecutor(threads, "compiler")
    self._jobs: dict[Hashable, Future[None]] = {}

  def start(self, key: Hashable, build: Callable[[], object]) -> None:
    """Has `build` run in a thread, once for each key: `function.lower(...).compile()`."""
    if key not in self._jobs:
      self._jobs[key] = self._threads.submit(_run, build)

  def wait(self, key: Hashable) -> None:
    """Waits for what was started under a key, if anything; where it failed the call will tell."""
    if key in self._jobs:
      self._jobs[key].result()

  def close(self) -> None:
    """Begins nothing more; what is being compiled ends by itself."""
    self._threads.shutdown(wait=False, cancel_futures=True)


def _run(build: Callable[[], object]) -> None:
  try:
    build()
  except Exception as error:  # The call compiles again and raises it where it belongs.
    logging.debug("not compiled ahead: %s", error)
