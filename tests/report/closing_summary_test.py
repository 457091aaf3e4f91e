"""What a run prints when it ends: metrics and means of few scenes, the worst of many, paths."""

from __future__ import annotations

import io
import pathlib
from collections.abc import Mapping

from rich.console import Console

from jaxsplat_mouse.dataset.scene_records import SceneRecord
from jaxsplat_mouse.report.closing_summary import closing_table, print_closing_summary
from jaxsplat_mouse.report.reported_run import ReportedRun


def make_records(count: int) -> dict[str, SceneRecord]:
  records = {}
  for i in range(count):
    name, metrics = f"s{i:03d}", {"novel_fg_psnr": 20.0 + i, "novel_iou": 0.9}
    seconds = {"fit": 2.0, "output": 1.0}
    records[name] = SceneRecord(scene=name, status="done", metrics=metrics, seconds=seconds)
  records["s007"] = SceneRecord(scene="s007", status="failed", error="broken")
  return records


def show(records: Mapping[str, SceneRecord]) -> str:
  console = Console(file=io.StringIO(), width=120, record=True)
  console.print(closing_table(records, ["novel_fg_psnr", "novel_iou"]))
  return console.export_text()


def test_scenes_and_their_mean() -> None:
  text = show(make_records(10))
  assert "novel fg PSNR" in text and "novel IoU" in text
  mean = next(line for line in text.splitlines() if "9 of 10" in line)
  assert f"{sum(20.0 + i for i in range(10) if i != 7) / 9:.1f}" in mean
  assert "2.0" in mean and "3.0" in mean
  assert "–" in next(line for line in text.splitlines() if "s007" in line)


def test_many_scenes_show_the_failed_and_the_worst() -> None:
  text = show(make_records(100))
  assert "the worst 40 of 100" in text
  assert "s007" in text and "s000" in text and "s099" not in text


def test_failures_and_paths_follow_the_table() -> None:
  root = pathlib.Path("/r")
  run = ReportedRun(name="r", dataset=root / "dataset", report=root / "report")
  console = Console(file=io.StringIO(), width=120, record=True)
  print_closing_summary(console, run, make_records(8), {"s007": "[broken]"})
  lines = console.export_text().splitlines()
  assert lines[-4:] == [
    "failed: s007: [broken]",
    "dataset  /r/dataset",
    "report   /r/report/index.html",
    "check    python -m jaxsplat_mouse.validate /r/dataset",
  ]
