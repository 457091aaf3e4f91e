"""What is printed: bars on a terminal only, few lines elsewhere, a table that stays readable."""

from __future__ import annotations

import io
import math

import pytest
from rich.console import Console

from jaxsplat_mouse.runtime import progress
from jaxsplat_mouse.runtime.progress import Progress, closing_table, format_seconds, metric_title


def drive(console: Console) -> str:
  with Progress(3, 1, console) as bars:
    bars.stage("reading a")
    bars.start_fit(["a", "b"], 100, 400)
    for iteration in range(150, 401, 50):
      bars.update_fit(iteration, 0.25)
    bars.end_fit()
    bars.line("a: done [1/2]")
    bars.scene_ended()
  assert isinstance(console.file, io.StringIO)
  return console.file.getvalue()


def test_quiet_where_there_is_no_terminal() -> None:
  text = drive(Console(file=io.StringIO(), width=100))
  assert text == "a +1: goes on at iteration 100 of 400\na: done [1/2]\n"


def test_a_line_now_and_then_where_a_fit_takes_long(monkeypatch: pytest.MonkeyPatch) -> None:
  monkeypatch.setattr(progress, "_PLAIN_SECONDS", -1.0)
  text = drive(Console(file=io.StringIO(), width=100))
  assert "a +1: iteration 150 of 400, loss 0.2500, " in text
  assert text.count("iteration 400 of 400") == 1


def test_bars_on_a_terminal() -> None:
  text = drive(Console(file=io.StringIO(), width=100, force_terminal=True, color_system=None))
  for part in ("scenes", "a +1", "/400", "loss 0.2500", "left", "a: done [1/2]"):
    assert part in text


def make_rows(count: int) -> list[dict]:
  return [
    {
      "scene": f"s{i:03d}",
      "status": "failed" if i == 7 else "done",
      "metrics": {} if i == 7 else {"novel_fg_psnr": 20.0 + i, "novel_iou": 0.9},
      "seconds": 3.0,
      "fit_seconds": 2.0,
    }
    for i in range(count)
  ]


def render(rows: list[dict]) -> str:
  console = Console(file=io.StringIO(), width=120)
  console.print(closing_table(rows, ["novel_fg_psnr", "novel_iou"]))
  assert isinstance(console.file, io.StringIO)
  return console.file.getvalue()


def test_the_closing_table() -> None:
  text = render(make_rows(10))
  assert "novel fg PSNR" in text and "novel IoU" in text
  assert "9 of 10" in text
  assert f"{sum(20.0 + i for i in range(10) if i != 7) / 9:.1f}" in text
  assert "–" in next(line for line in text.splitlines() if "s007" in line)


def test_many_scenes_show_the_failed_and_the_worst() -> None:
  text = render(make_rows(100))
  assert "the worst 40 of 100" in text
  assert "s007" in text and "s000" in text and "s099" not in text


def test_formats() -> None:
  assert [format_seconds(s) for s in (0.4, 99, 187, 7500)] == ["0 s", "99 s", "3:07 min", "2:05 h"]
  assert progress.format_metric("input_iou", 0.98765) == "0.988"
  assert progress.format_metric("fg_psnr", math.nan) == "–"
  assert metric_title("novel_fg_psnr") == "novel fg PSNR"


@pytest.mark.parametrize(
  ("size", "text"), [(0, "0 B"), (999, "999 B"), (1.5e6, "1.5 MB"), (7.96e9, "7.96 GB")]
)
def test_sizes_for_people(size: float, text: str) -> None:
  assert progress.format_bytes(size) == text
