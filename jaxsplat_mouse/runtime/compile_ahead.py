"""Programs that are compiled in threads, beside the work that comes before them.

A first scene waits for XLA more than for anything else, and XLA compiles several programs at once.
So whoever knows the shapes of a later program has it compiled here; a call waits for that or, where
it has not begun, does it itself.
"""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

from absl import logging

from jaxsplat_mouse.runtime.programs import Program

_THREADS = 4


class Ahead:
  """The threads that compile."""

  def __init__(self, threads: int = _THREADS):
    """Starts no thread before there is something to compile."""
    self._threads = ThreadPoolExecutor(threads, "compiler")

  def start(self, program: Program, *args: Any) -> None:
    """Has a program compiled for a call with such arguments; see `Program.compile`."""
    self._threads.submit(_compile, program, args)

  def close(self) -> None:
    """Begins nothing more; what is being compiled ends by itself."""
    self._threads.shutdown(wait=False, cancel_futures=True)


def _compile(program: Program, args: tuple[Any, ...]) -> None:
  try:
    program.compile(*args)
  except Exception as error:  # The call compiles again and raises it where it belongs.
    logging.debug("not compiled ahead: %s", error)
