"""Wall time of a thread by stage: one line of a JSON lines file for each round of its work."""

from __future__ import annotations

import contextlib
import json
import pathlib
import time
from collections.abc import Callable, Iterator

from absl import logging

WAITING = "waiting"  # time that no stage counts


class Timing:
  """Adds up wall seconds by stage and appends them to a file, round by round."""

  def __init__(self, path: pathlib.Path, clock: Callable[[], float] = time.monotonic):
    """Starts the first round.

    Args:
      path: the file, one JSON object a line; it is made with the first round's end.
      clock: returns seconds.
    """
    self._path, self._clock = path, clock
    self._seconds: dict[str, float] = {}
    self._began = clock()

  @contextlib.contextmanager
  def stage(self, name: str) -> Iterator[None]:
    """Counts the time of a block; blocks do not nest."""
    began = self._clock()
    try:
      yield
    finally:
      self._seconds[name] = self._seconds.get(name, 0.0) + self._clock() - began

  def end_round(self, **counts: int) -> None:
    """Appends the seconds of this round by stage and starts the next round.

    A file that cannot be written is logged as a warning.

    Args:
      **counts: what the round has done, such as `scenes=8`; written beside the seconds.
    """
    now = self._clock()
    rest = now - self._began - sum(self._seconds.values())
    seconds = {name: round(value, 4) for name, value in {WAITING: rest, **self._seconds}.items()}
    self._seconds, self._began = {}, now
    try:
      with open(self._path, "a", encoding="utf-8") as file:
        file.write(json.dumps({**counts, "seconds": seconds}) + "\n")
    except OSError as error:
      logging.warning("%s: not written (%s)", self._path, error.strerror)
