"""The manifest as a table: every scene a row, numbers as numbers, errors in one line."""

from __future__ import annotations

import csv
import pathlib
import subprocess
import sys

import pytest

from jaxsplat_mouse.dataset import manifest_table, scene_records
from jaxsplat_mouse.dataset.scene_records import SceneRecord
from jaxsplat_mouse.errors import InputError

ROOT = pathlib.Path(__file__).resolve().parents[2]
RECORDS = (
  SceneRecord(
    scene="a",
    status="done",
    recording="r",
    metrics={"input_iou": 0.75},
    transform={"scale": 2, "translation": [1.0, 2.0, 3.0]},
    hashes={"x": "y"},
    extra={"num_gaussians": 128, "warnings": []},
  ),
  SceneRecord(scene="b", status="failed", error='x.png: "broken", at once'),
  SceneRecord(scene="c", status="rejected", metrics={"input_iou": None, "novel_iou": 0.5}),
)


@pytest.fixture
def workdir(tmp_path: pathlib.Path) -> pathlib.Path:
  """A run whose scene `b` was tried twice, and which was moved since."""
  root = tmp_path / "w" / "dataset"
  root.mkdir(parents=True)
  scene_records.append_record(root, SceneRecord(scene="b", status="done"))
  for record in RECORDS:
    scene_records.append_record(root, record)
  (root / "train.txt").write_text("/before/the/move/a\n")
  (root / "val.txt").write_text("")
  return tmp_path / "w"


def test_a_row_for_every_scene(workdir: pathlib.Path) -> None:
  rows = manifest_table.write_manifest_table(workdir, workdir / "t.csv")
  assert len(rows) == 3
  with open(workdir / "t.csv", newline="") as file:
    read = {row["scene"]: row for row in csv.DictReader(file)}
  assert sorted(read) == ["a", "b", "c"]
  assert read["a"]["split"] == "train" and read["b"]["split"] == ""
  assert float(read["a"]["metrics.input_iou"]) == 0.75 and read["c"]["metrics.input_iou"] == ""
  assert read["a"]["transform.translation"] == "[1.0, 2.0, 3.0]"
  assert read["b"]["error"] == 'x.png: "broken", at once'
  assert not [name for name in read["a"] if name.startswith("hashes")]


def test_parquet_keeps_types(workdir: pathlib.Path) -> None:
  parquet = pytest.importorskip("pyarrow.parquet", reason="needs the extra `parquet`")
  rows = manifest_table.to_rows(RECORDS, {"a": "val"})
  manifest_table.write_table(workdir / "t.parquet", rows)
  table = parquet.read_table(workdir / "t.parquet")
  assert table.column("num_gaussians").to_pylist() == [128, None, None]
  assert table.column("metrics.input_iou").to_pylist() == [0.75, None, None]
  assert table.column("split").to_pylist() == ["val", "", ""]


def test_parquet_without_its_library_names_the_extra(
  workdir: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
  monkeypatch.setitem(sys.modules, "pyarrow", None)
  with pytest.raises(InputError, match=r"pip install 'jaxsplat-mouse\[parquet\]'"):
    manifest_table.write_table(workdir / "t.parquet", [])
  assert not (workdir / "t.parquet").exists()


def call(*arguments: object) -> subprocess.CompletedProcess[str]:
  return subprocess.run(
    [sys.executable, "-m", "jaxsplat_mouse.manifest", *map(str, arguments)],
    cwd=ROOT,
    capture_output=True,
    text=True,
  )


def test_the_command(workdir: pathlib.Path) -> None:
  found = call(workdir / "dataset", f"--output={workdir / 't.csv'}")
  assert found.returncode == 0, found.stderr
  assert found.stdout.startswith("3 scenes, ")
  assert len((workdir / "t.csv").read_text().splitlines()) == 4


def test_a_missing_argument_is_one_line() -> None:
  found = call()
  assert found.returncode == 1 and found.stderr == "error: WORKDIR: missing; see --help\n"


@pytest.mark.parametrize(
  ("path", "output", "problem"),
  [
    ("", "t.xls", "unknown ending; expected .csv or .parquet"),
    ("nowhere", "t.csv", "no manifest.jsonl; expected the folder of a run"),
    ("", "no/t.csv", r"not written \(No such file or directory\)"),
  ],
)
def test_what_cannot_be_done_is_told(
  path: str, output: str, problem: str, workdir: pathlib.Path
) -> None:
  with pytest.raises(InputError, match=problem):
    manifest_table.write_manifest_table(workdir / path, workdir / output)
