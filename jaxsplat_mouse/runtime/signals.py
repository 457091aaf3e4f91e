"""Ctrl-C and SIGTERM: noted when they come, answered where the work is whole."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_NAMES = {signal.SIGINT: "Ctrl-C", signal.SIGTERM: "SIGTERM"}


class Stopped(BaseException):
  """The run was asked to stop and everything done so far is saved."""

  def __init__(self, number: int):
    """Takes the signal's number."""
    self.number = number
    self.name = _NAMES.get(signal.Signals(number), signal.Signals(number).name)
    super().__init__(self.name)

  @property
  def exit_status(self) -> int:
    """130 for Ctrl-C, 143 for SIGTERM, as a shell reports them."""
    return 128 + self.number


class StopRequest:
  """Holds signals back while a block runs; a second one of a kind kills at once.

  Handlers are set in the main thread only: elsewhere Python allows none.
  """

  def __init__(self) -> None:
    """No signal yet."""
    self.number: int | None = None
    self._before: dict[int, object] = {}

  def __enter__(self) -> StopRequest:
    """Takes over the signals."""
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
    """Gives the signals back."""
    for number, handler in self._before.items():
      signal.signal(number, handler)  # type: ignore[arg-type]

  @property
  def requested(self) -> bool:
    """Whether a signal has come."""
    return self.number is not None

  def check(self) -> None:
    """Raises `Stopped` where a signal has come."""
    if self.number is not None:
      raise Stopped(self.number)
