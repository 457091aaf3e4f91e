"""Progress: bars on a terminal only, few lines elsewhere."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from jaxsplat_mouse.runtime import progress
from jaxsplat_mouse.runtime.progress import Progress, format_seconds


def drive(console: Console) -> str:
  with Progress("scenes", 3, 1, console) as bars:
    bars.stage("reading a")
    bars.start_task(["a", "b"], 100, 400)
    for iteration in range(150, 401, 50):
      bars.update_task(iteration, "loss 0.2500")
    bars.end_task()
    bars.line("a: done [1/2]")
    bars.item_ended()
  assert isinstance(console.file, io.StringIO)
  return console.file.getvalue()


def test_without_a_terminal_lines_only(monkeypatch: pytest.MonkeyPatch) -> None:
  monkeypatch.setattr(progress, "_PLAIN_SECONDS", float("inf"))
  text = drive(Console(file=io.StringIO(), width=100))
  assert text == "a +1: goes on at iteration 100 of 400\na: done [1/2]\n"


def test_a_long_task_prints_a_line_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
  monkeypatch.setattr(progress, "_PLAIN_SECONDS", -1.0)
  text = drive(Console(file=io.StringIO(), width=100))
  assert "a +1: iteration 150 of 400, loss 0.2500, " in text
  assert text.count("iteration 400 of 400") == 1


def test_bars_on_a_terminal() -> None:
  text = drive(Console(file=io.StringIO(), width=100, force_terminal=True, color_system=None))
  for part in ("scenes", "a +1", "/400", "loss 0.2500", "left", "a: done [1/2]"):
    assert part in text


def test_seconds() -> None:
  assert [format_seconds(s) for s in (0.4, 99, 187, 7500)] == ["0 s", "99 s", "3:07 min", "2:05 h"]
