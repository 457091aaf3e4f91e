"""Where the time of the thread goes that drives the device: a line for each batch."""

from __future__ import annotations

import contextlib
import json
import pathlib
import time
from collections.abc import Iterator

from absl import logging

WAITING = "waiting"  # for scenes to be read, and whatever else no stage counts


class Timing:
  """Adds up wall seconds by stage and appends them to a file, batch by batch."""

  def __init__(self, path: pathlib.Path):
    """Takes the file, a JSON object a line, and starts the clock."""
    self._path = path
    self._seconds: dict[str, float] = {}
    self._began = time.monotonic()

  @contextlib.contextmanager
  def stage(self, name: str) -> Iterator[None]:
    """Counts the time of a block; blocks do not nest."""
    began = time.monotonic()
    try:
      yield
    finally:
      self._seconds[name] = self._seconds.get(name, 0.0) + time.monotonic() - began

  def end_batch(self, scenes: int) -> None:
    """Appends seconds by stage since the batch before; the run goes on where that fails."""
    now = time.monotonic()
    rest = now - self._began - sum(self._seconds.values())
    seconds = {name: round(value, 4) for name, value in {WAITING: rest, **self._seconds}.items()}
    self._seconds, self._began = {}, now
    try:
      with open(self._path, "a", encoding="utf-8") as file:
        file.write(json.dumps({"scenes": scenes, "seconds": seconds}) + "\n")
    except OSError as error:
      logging.warning("%s: not written (%s)", self._path, error.strerror)
