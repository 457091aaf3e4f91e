"""Ctrl-C and SIGTERM: noted when they arrive, acted on where everything done so far is saved."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_NAMES = {signal.SIGINT: "Ctrl-C", signal.SIGTERM: "SIGTERM"}


class Stopped(BaseException):
  """A signal asked to stop, and everything done so far is saved.

  Not an `Exception`: code that catches the errors of one item must not catch it.

  Attributes:
    number: of the signal.
    name: "Ctrl-C" or the name of the signal.
  """

  def __init__(self, number: int):
    """Names the signal by its number."""
    self.number = number
    self.name = _NAMES.get(signal.Signals(number), signal.Signals(number).name)
    super().__init__(self.name)

  @property
  def exit_status(self) -> int:
    """Returns 130 for Ctrl-C and 143 for SIGTERM, as a shell reports them."""
    return 128 + self.number


class StopRequest:
  """Notes signals while a `with` block runs; a second signal of the same kind kills at once.

  Python allows handlers in the main thread only; in other threads nothing is noted.
  """

  def __init__(self) -> None:
    """Starts without a signal."""
    self.number: int | None = None
    self._before: dict[int, object] = {}

  def __enter__(self) -> StopRequest:
    """Sets the handlers."""
    if threading.current_thread() is threading.main_thread():
      self._before = {number: signal.signal(number, self._note) for number in _SIGNALS}
    return self

  def _note(self, number: int, frame: FrameType | None) -> None:
    del frame
    if self.number is None:
      self.number = number
    signal.signal(number, signal.SIG_DFL)

  def __exit__(
    self,
    kind: type[BaseException] | None,
    error: BaseException | None,
    trace: TracebackType | None,
  ) -> None:
    """Restores the handlers that were set before."""
    for number, handler in self._before.items():
      signal.signal(number, handler)  # type: ignore[arg-type]

  @property
  def requested(self) -> bool:
    """Whether a signal has arrived."""
    return self.number is not None

  def check(self) -> None:
    """Raises `Stopped` if a signal has arrived."""
    if self.number is not None:
      raise Stopped(self.number)
