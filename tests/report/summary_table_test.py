"""The table that closes a run: metrics and means of few scenes, the worst of many."""

from __future__ import annotations

import io

from rich.console import Console

from jaxsplat_mouse.report.summary_table import summary_table


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
  console.print(summary_table(rows, ["novel_fg_psnr", "novel_iou"]))
  assert isinstance(console.file, io.StringIO)
  return console.file.getvalue()


def test_scenes_and_their_mean() -> None:
  text = render(make_rows(10))
  assert "novel fg PSNR" in text and "novel IoU" in text
  assert "9 of 10" in text
  assert f"{sum(20.0 + i for i in range(10) if i != 7) / 9:.1f}" in text
  assert "–" in next(line for line in text.splitlines() if "s007" in line)


def test_many_scenes_show_the_failed_and_the_worst() -> None:
  text = render(make_rows(100))
  assert "the worst 40 of 100" in text
  assert "s007" in text and "s000" in text and "s099" not in text
