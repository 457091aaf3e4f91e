"""What a person sees while a run works: bars on a terminal, a few plain lines elsewhere."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.progress import Progress as Bars
from rich.table import Table

_PLAIN_SECONDS = 30.0  # between two lines about one fit where there is no terminal
_PLAIN_WIDTH = 120
_ROWS = 40  # more scenes than this and the closing table shows the worst


class Progress:
  """Scenes, iteration, loss and time left; prints nothing but lines where there is no terminal."""

  def __init__(self, total: int, done: int = 0, console: Console | None = None):
    """Starts counting.

    Args:
      total: scenes of the run.
      done: those that were finished before.
      console: where to print; by default standard output.
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
    self._scenes = self._bars.add_task("scenes", total=total, completed=done, note="")
    self._fit = self._bars.add_task("", total=1, visible=False, note="")
    self._label, self._total, self._started, self._told = "", 1, 0.0, 0.0
    self._first = 0

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
    """Takes the bars away."""
    self._bars.stop()

  def line(self, text: str) -> None:
    """Prints one line, above the bars where there are any."""
    self.console.print(text, markup=False, highlight=False, soft_wrap=True)

  def stage(self, text: str) -> None:
    """What is being done now, on a terminal only."""
    self._bars.update(self._scenes, note=text)

  def start_fit(self, names: Sequence[str], iteration: int, total: int) -> None:
    """A batch of scenes begins, or goes on, at an iteration."""
    more = f" +{len(names) - 1}" if len(names) > 1 else ""
    self._label, self._total, self._first = f"{names[0]}{more}", total, iteration
    self._started = self._told = time.monotonic()
    self.stage("fitting")
    self._bars.reset(
      self._fit, total=total, completed=iteration, description=self._label, visible=True, note=""
    )
    if iteration and not self.console.is_terminal:
      self.line(f"{self._label}: goes on at iteration {iteration} of {total}")

  def update_fit(self, iteration: int, loss: float) -> None:
    """The batch has come to an iteration with a mean loss."""
    self._bars.update(self._fit, completed=iteration, note=f"loss {loss:.4f}", refresh=True)
    now = time.monotonic()
    if self.console.is_terminal or now - self._told < _PLAIN_SECONDS:
      return
    self._told = now
    left = (now - self._started) / max(iteration - self._first, 1) * (self._total - iteration)
    self.line(
      f"{self._label}: iteration {iteration} of {self._total}, loss {loss:.4f}, "
      f"{format_seconds(left)} left"
    )

  def end_fit(self) -> None:
    """The batch is fitted, or has failed."""
    self._bars.update(self._fit, visible=False)
    self.stage("")

  def scene_ended(self) -> None:
    """One more scene is done or has failed."""
    self._bars.advance(self._scenes)


def format_seconds(seconds: float) -> str:
  """`45 s`, `3:07 min` or `2:05 h`."""
  whole = round(seconds)
  if whole < 100:
    return f"{whole} s"
  if whole < 6000:
    return f"{whole // 60}:{whole % 60:02d} min"
  return f"{whole // 3600}:{whole % 3600 // 60:02d} h"


def format_bytes(size: float) -> str:
  """`12.3 MB`, powers of 1000."""
  for unit in ("B", "kB", "MB", "GB"):
    if size < 1000:
      return f"{size:.3g} {unit}"
    size /= 1000
  return f"{size:.3g} TB"


def closing_table(rows: Sequence[Mapping[str, Any]], metric_names: Sequence[str]) -> Table:
  """Scenes with their metrics and times, the worst first where there are many.

  Args:
    rows: dicts with `scene`, `status`, `metrics`, `seconds` (total) and `fit_seconds`.
    metric_names: which metrics to show, the first decides what is worst.
  """
  shown = list(rows)
  if len(shown) > _ROWS:
    shown = sorted(shown, key=lambda row: _badness(row, metric_names))[:_ROWS]
  table = Table(title=None if len(shown) == len(rows) else f"the worst {_ROWS} of {len(rows)}")
  table.add_column("scene", overflow="fold")
  table.add_column("status")
  for name in metric_names:
    table.add_column(metric_title(name), justify="right")
  table.add_column("fit s", justify="right")
  table.add_column("total s", justify="right")
  for row in shown:
    table.add_row(*_cells(row, metric_names))
  if len(rows) > 1:
    table.add_section()
    table.add_row(*_cells(_mean_row(rows, metric_names), metric_names))
  return table


def metric_title(name: str) -> str:
  """`novel fg PSNR` for `novel_fg_psnr`."""
  spelled = {"psnr": "PSNR", "iou": "IoU", "ssim": "SSIM", "lpips": "LPIPS", "mse": "MSE"}
  return " ".join(spelled.get(word, word) for word in name.split("_"))


def _cells(row: Mapping[str, Any], names: Sequence[str]) -> list[str]:
  values = [format_metric(name, row["metrics"].get(name)) for name in names]
  times = [row["fit_seconds"], row["seconds"]]
  return [row["scene"], row["status"], *values, *(f"{t:.1f}" if t else "–" for t in times)]


def format_metric(name: str, value: float | None) -> str:
  """dB with one decimal, fractions with three, a dash where there is no value."""
  if value is None or not math.isfinite(value):
    return "–"
  return f"{value:.{metric_digits(name)}f}"


def metric_digits(name: str) -> int:
  """Decimals of a metric that say something."""
  return 1 if "psnr" in name else 3


def _badness(row: Mapping[str, Any], names: Sequence[str]) -> tuple[bool, float]:
  value = row["metrics"].get(names[0]) if names else None
  good = value is not None and math.isfinite(value)
  return row["status"] != "failed", value if good and value is not None else -math.inf


def _mean_row(rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> dict[str, Any]:
  def mean(values: Sequence[float | None]) -> float | None:
    kept = [v for v in values if v is not None and math.isfinite(v)]
    return sum(kept) / len(kept) if kept else None

  return {
    "scene": "mean",
    "status": f"{sum(row['status'] != 'failed' for row in rows)} of {len(rows)}",
    "metrics": {n: mean([row["metrics"].get(n) for row in rows]) for n in names},
    "seconds": mean([row["seconds"] or None for row in rows]),
    "fit_seconds": mean([row["fit_seconds"] or None for row in rows]),
  }
