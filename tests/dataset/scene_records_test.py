"""The manifest: one record a line, the last one counts, cut lines are dropped."""

from __future__ import annotations

import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from jaxsplat_mouse.dataset import scene_records
from jaxsplat_mouse.errors import InputError
from tests.dataset.dataset_fixtures import record

ROOT = pathlib.Path(__file__).resolve().parents[2]


def test_records_round_trip(tmp_path: pathlib.Path):
  full = record(
    "a",
    recording="day 1",
    metrics={"fg_psnr": 27.5},
    transform={"scale": 2.0, "rotation": np.eye(3).tolist(), "translation": [0.0, 1.0, 2.0]},
    seconds={"fit": 1.5},
    hashes={"images/cam_000.png": "00ff"},
    extra={"source": "in/a"},
  )
  scene_records.append_record(tmp_path, full)
  scene_records.append_record(tmp_path, record("b", status="failed", error="NaN"))
  assert scene_records.read_manifest(tmp_path) == [full, record("b", status="failed", error="NaN")]
  for line in (tmp_path / "manifest.jsonl").read_text().splitlines():
    assert json.loads(line)["scene"] in "ab"


def test_the_last_record_counts(tmp_path: pathlib.Path):
  for status in ("failed", "done"):
    scene_records.append_record(tmp_path, record("a", status=status))
    scene_records.append_record(tmp_path, record("b"))
  latest = scene_records.latest_records(tmp_path)
  assert [(name, r.status) for name, r in latest.items()] == [("a", "done"), ("b", "done")]


def test_numbers_that_json_lacks_become_null(tmp_path: pathlib.Path):
  metrics = {"psnr": float("nan"), "iou": np.float32(0.5), "worst": np.inf}
  scene_records.append_record(tmp_path, record("a", metrics=metrics))
  text = (tmp_path / "manifest.jsonl").read_text()
  assert "NaN" not in text
  assert scene_records.read_manifest(tmp_path)[0].metrics == {
    "psnr": None,
    "iou": 0.5,
    "worst": None,
  }


def test_no_manifest_is_an_empty_one(tmp_path: pathlib.Path):
  assert scene_records.read_manifest(tmp_path) == []


def test_a_cut_last_line_is_dropped_wherever_it_is_cut(tmp_path: pathlib.Path):
  path = tmp_path / "manifest.jsonl"
  scene_records.append_record(tmp_path, record("a"))
  whole = path.stat().st_size
  scene_records.append_record(tmp_path, record("b", extra={"text": "é" * 10}))
  data = path.read_bytes()
  for cut in range(whole, len(data)):
    path.write_bytes(data[:cut])
    assert [r.scene for r in scene_records.read_manifest(tmp_path)] == ["a"]
    scene_records.append_record(tmp_path, record("c"))
    assert [r.scene for r in scene_records.read_manifest(tmp_path)] == ["a", "c"]


def test_a_long_cut_line_is_dropped(tmp_path: pathlib.Path):
  path = tmp_path / "manifest.jsonl"
  scene_records.append_record(tmp_path, record("a"))
  with open(path, "ab") as file:
    file.write(b"\0" * 200_000)
  scene_records.append_record(tmp_path, record("b"))
  assert [r.scene for r in scene_records.read_manifest(tmp_path)] == ["a", "b"]
  path.write_bytes(b"x" * 200_000)
  scene_records.append_record(tmp_path, record("c"))
  assert [r.scene for r in scene_records.read_manifest(tmp_path)] == ["c"]


def test_a_broken_line_in_the_middle_is_an_error(tmp_path: pathlib.Path):
  for broken in ("{", "[]", '"a"', '{"scene": "a"}', '{"scene": "a", "status": "maybe"}'):
    (tmp_path / "manifest.jsonl").write_text(broken + "\n")
    scene_records.append_record(tmp_path, record("b"))
    with pytest.raises(InputError, match=r"manifest\.jsonl: line 1"):
      scene_records.read_manifest(tmp_path)


def test_writers_do_not_mix_their_lines(tmp_path: pathlib.Path):
  code = (
    "import sys; from jaxsplat_mouse.dataset import scene_records as s\n"
    "for i in range(25): s.append_record(sys.argv[1], s.SceneRecord("
    "scene=sys.argv[2], status='done', extra={'i': i, 'pad': 'x' * 5000}))"
  )
  writers = [
    subprocess.Popen([sys.executable, "-c", code, tmp_path, name], cwd=ROOT) for name in "ab"
  ]
  assert [writer.wait() for writer in writers] == [0, 0]
  records = scene_records.read_manifest(tmp_path)
  for name in "ab":
    assert [r.extra["i"] for r in records if r.scene == name] == list(range(25))
