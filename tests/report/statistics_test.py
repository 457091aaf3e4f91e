"""Statistics of a run: order, distributions, throughput without pauses, failures by kind."""

from __future__ import annotations

import datetime
import math

import numpy as np
import pytest

from jaxsplat_mouse.dataset.scene_records import SceneRecord
from jaxsplat_mouse.report import charts, statistics

START = datetime.datetime(2026, 1, 5, tzinfo=datetime.UTC)


def at(minutes: float) -> str:
  return (START + datetime.timedelta(minutes=minutes)).isoformat()


def done(name: str, finished: float = 0.0, **metrics: float | None) -> SceneRecord:
  return SceneRecord(scene=name, status="done", metrics=metrics, extra={"finished": at(finished)})


def test_metrics_are_found_headlines_first() -> None:
  records = {
    "a": done("a", input_iou=0.9, novel_lpips=0.1, input_psnr=30.0, never=math.nan),
    "b": done("b", novel_fg_psnr=25.0, absent=None),
  }
  names = ["novel_fg_psnr", "input_iou", "novel_lpips", "input_psnr"]
  assert statistics.metric_names(records) == names
  assert statistics.distribution(records, "input_iou").values.tolist() == [0.9]


@pytest.mark.parametrize(
  ("metric", "order"), [("iou", ["low", "high", "lost"]), ("lpips", ["high", "low", "lost"])]
)
def test_the_worst_come_first_and_failed_ones_last(metric: str, order: list[str]) -> None:
  records = {
    "high": done("high", **{metric: 0.9}),
    "lost": SceneRecord(scene="lost", status="failed"),
    "low": done("low", **{metric: 0.1}),
  }
  assert statistics.worst_first(records, metric) == order


def test_reasons_that_differ_in_places_and_numbers_are_one_kind() -> None:
  reasons = {
    "a": "/d/a/images/cam_001.png: frames[1].file_path: broken image",
    "b": "/d/b/images/cam_004.png: frames[4].file_path: broken image",
    "c": "the loss became nan by iteration 50",
  }
  records = {n: SceneRecord(scene=n, status="failed", error=r) for n, r in reasons.items()}
  records["d"] = SceneRecord(scene="d", status="rejected", error="input_iou 0.91 is below 0.95")
  records["e"] = done("e")
  groups = statistics.group_failures(records)
  assert [(g.status, list(g.scenes)) for g in groups] == [
    ("failed", ["a", "b"]),
    ("failed", ["c"]),
    ("rejected", ["d"]),
  ]
  assert statistics.count_statuses(records) == {"done": 1, "rejected": 1, "failed": 3}


def test_throughput_leaves_out_the_night_between_two_starts() -> None:
  ends = [1, 2, 3, 4, 5, 601, 602, 603, 604, 605]
  records = {str(m): done(str(m), m) for m in ends}
  throughput = statistics.measure_throughput(records, [{"started": at(0)}, {"started": at(600)}])
  assert throughput is not None
  assert throughput.edges[-1] == pytest.approx(10) and throughput.restarts == [pytest.approx(5)]
  assert throughput.per_minute == pytest.approx(1.0)
  assert np.sum(throughput.rates * np.diff(throughput.edges)) == pytest.approx(len(ends))


def test_no_throughput_without_times() -> None:
  records = {str(i): SceneRecord(scene=str(i), status="done") for i in range(20)}
  assert statistics.measure_throughput(records, [{"started": at(0)}]) is None
  assert statistics.measure_throughput({"a": done("a")}, [{"started": at(0)}]) is None
  assert statistics.measure_throughput({str(i): done(str(i), 1) for i in range(20)}, []) is None


def test_mean_seconds_are_in_the_order_of_the_stages() -> None:
  records = {
    "a": SceneRecord(scene="a", status="done", seconds={"output": 2.0, "fit": 1.0}),
    "b": SceneRecord(scene="b", status="done", seconds={"output": 4.0, "prepare": 1.0}),
    "c": SceneRecord(scene="c", status="failed", seconds={"output": 400.0}),
  }
  assert list(statistics.mean_seconds(records).items()) == [
    ("prepare", 1.0),
    ("fit", 1.0),
    ("output", 3.0),
  ]


@pytest.mark.parametrize("values", [[0.5], [0.5, 0.5], list(np.linspace(20, 30, 1000))])
def test_a_histogram_counts_every_scene(values: list[float]) -> None:
  found = statistics.Distribution(name="x", values=np.array(values))
  text = charts.histogram_svg(found, 3)
  counts = [int(part.split(": ")[1].split("<")[0]) for part in text.split("<title>")[1:]]
  assert sum(counts) == len(values)
  assert f"{found.quantile(0.5):.3f}</text>" in text
