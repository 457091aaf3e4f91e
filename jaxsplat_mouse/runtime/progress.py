"""Progress of a job of many items: bars on a terminal, a few plain lines elsewhere.

A job has a number of items and at any time at most one running task, such as an optimization over
several items, which counts iterations.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bars

_PLAIN_SECONDS = 30.0  # between two lines about one task where there is no terminal
_PLAIN_WIDTH = 120


class Progress:
  """Shows finished items, the running task and the time left; use it as a context manager.

  Where there is no terminal, it prints plain lines only.
  """

  def __init__(self, items: str, total: int, done: int = 0, console: Console | None = None):
    """Creates the bars without showing them.

    Args:
      items: label of the job's bar, a plural such as "scenes".
      total: number of items of the job.
      done: number of items that were finished before.
      console: where to print; standard output by default.
    """
    self.console = console or Console()
    if console is None and not self.console.is_terminal:
      self.console = Console(width=_PLAIN_WIDTH)
    self._bars = Bars(
      TextColumn("{task.description}", markup=False),
      BarColumn(bar_width=24),
      TextColumn("{task.completed:.0f}/{task.total:.0f}"),
      TextColumn("{task.fields[note]}", markup=False),
      TimeElapsedColumn(),
      TextColumn("left"),
      TimeRemainingColumn(),
      console=self.console,
      transient=True,
      disable=not self.console.is_terminal,
    )
    self._items = self._bars.add_task(items, total=total, completed=done, note="")
    self._task = self._bars.add_task("", total=1, visible=False, note="")
    self._label, self._total, self._first = "", 1, 0
    self._started = self._printed = 0.0

  def __enter__(self) -> Progress:
    """Shows the bars."""
    self._bars.start()
    return self

  def __exit__(
    self,
    kind: type[BaseException] | None,
    error: BaseException | None,
    trace: TracebackType | None,
  ) -> None:
    """Removes the bars."""
    self._bars.stop()

  def line(self, text: str) -> None:
    """Prints one line, above the bars where there are any."""
    self.console.print(text, markup=False, highlight=False, soft_wrap=True)

  def stage(self, text: str) -> None:
    """Shows what the job is doing now, on a terminal only."""
    self._bars.update(self._items, note=text)

  def start_task(self, names: Sequence[str], iteration: int, total: int) -> None:
    """Shows the bar of a task.

    Args:
      names: the items that the task works on, at least one.
      iteration: where the task begins; not 0 where it resumes.
      total: number of iterations.
    """
    more = f" +{len(names) - 1}" if len(names) > 1 else ""
    self._label, self._total, self._first = f"{names[0]}{more}", total, iteration
    self._started = self._printed = time.monotonic()
    self._bars.reset(
      self._task, total=total, completed=iteration, description=self._label, visible=True, note=""
    )
    if iteration and not self.console.is_terminal:
      self.line(f"{self._label}: goes on at iteration {iteration} of {total}")

  def update_task(self, iteration: int, note: str) -> None:
    """Shows the iteration that the task has reached, with a short note such as its loss."""
    self._bars.update(self._task, completed=iteration, note=note, refresh=True)
    now = time.monotonic()
    if self.console.is_terminal or now - self._printed < _PLAIN_SECONDS:
      return
    self._printed = now
    left = (now - self._started) / max(iteration - self._first, 1) * (self._total - iteration)
    self.line(
      f"{self._label}: iteration {iteration} of {self._total}, {note}, {format_seconds(left)} left"
    )

  def end_task(self) -> None:
    """Removes the bar of the task, whether it succeeded or failed."""
    self._bars.update(self._task, visible=False)
    self.stage("")

  def item_ended(self) -> None:
    """Counts one more item, whether it succeeded or failed."""
    self._bars.advance(self._items)


def format_seconds(seconds: float) -> str:
  """Returns `45 s`, `3:07 min` or `2:05 h`."""
  whole = round(seconds)
  if whole < 100:
    return f"{whole} s"
  if whole < 6000:
    return f"{whole // 60}:{whole % 60:02d} min"
  return f"{whole // 3600}:{whole % 3600 // 60:02d} h"
