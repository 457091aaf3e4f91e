"""Compiles programs in threads while other work goes on.

A first result waits for XLA more than for anything else, and XLA compiles several programs at once.
So code that knows the shapes of a later call submits its program here. The call then waits for that
compilation or, where it has not begun, compiles the program itself.
"""

from __future__ import annotations

from typing import Any

from absl import logging

from jaxsplat_mouse.runtime.programs import Program
from jaxsplat_mouse.runtime.threads import ClosingPool

_THREADS = 4


class BackgroundCompiler(ClosingPool):
  """Compiles submitted programs; closes at the end of a `with` block."""

  def __init__(self, threads: int = _THREADS):
    """Starts no thread before the first program is submitted."""
    super().__init__(threads, "compiler")

  def start(self, program: Program, *args: Any) -> None:
    """Compiles a program in the background for a call with such arguments."""
    self._threads.submit(_compile, program, args)

  def close(self) -> None:
    """Cancels programs that wait; a compilation that runs ends by itself."""
    self._threads.shutdown(wait=False, cancel_futures=True)


def _compile(program: Program, args: tuple[Any, ...]) -> None:
  try:
    program.compile(*args)
  except Exception as error:  # the call compiles again and raises the error where it belongs
    logging.debug("not compiled in the background: %s", error)
