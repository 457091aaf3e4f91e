"""The dataset card: counts, cameras, metrics, licence and gate, readable without the run."""

from __future__ import annotations

import pathlib

import pytest
import yaml

from jaxsplat_mouse.dataset import lists, scene_records
from jaxsplat_mouse.dataset.gate import parse_rules
from jaxsplat_mouse.report import dataset_card
from tests.report.report_fixtures import fake_run


def write(tmp_path: pathlib.Path, license: str) -> str:
  run = fake_run(tmp_path / "arena", 60, pictures=False)
  description = dataset_card.DatasetDescription(
    license=license,
    model="2dgs",
    num_gaussians=20_000,
    iterations=1500,
    normalize="scene",
    radius=0.85,
    num_views=32,
    image_size=512,
    fov=50.0,
    elevation=20.0,
    distance=2.7,
    gate=parse_rules({"min_input_iou": 0.5}),
  )
  records = scene_records.latest_records(run.dataset)
  done = {name: r.recording for name, r in records.items() if r.status == "done"}
  train, val = lists.split_scenes(done, val_fraction=0.1)
  dataset_card.write_card(run, description, records, train, val)
  return (run.dataset / "README.md").read_text()


def test_a_card_describes_the_dataset(tmp_path: pathlib.Path) -> None:
  text = write(tmp_path, "CC-BY-4.0")
  head = yaml.safe_load(text.split("---\n")[1])
  assert head["license"] == "cc-by-4.0" and head["size_categories"] == ["n<1K"]
  for part in (
    "| `train.txt` | 51 | 1632 | 11 |",
    "| `val.txt` | 5 | 160 | 1 |",
    "gate rejected 2 scenes",
    "2 scenes failed",
    "286 MB",
    "fx = fy = 548.9938",
    "1.259 units",
    "| novel fg PSNR | 56 |",
    "input_iou ≥ 0.5",
    "python -m jaxsplat_mouse.main --config=configs/2dgs.py --workdir=arena",
    "Licence: CC-BY-4.0",
  ):
    assert part in text, part


def test_a_card_names_a_missing_licence(tmp_path: pathlib.Path) -> None:
  text = write(tmp_path, "")
  assert "license" not in yaml.safe_load(text.split("---\n")[1])
  assert "Licence: not stated" in text


@pytest.mark.parametrize(
  ("scenes", "text"),
  [(0, "n<1K"), (1600, "1K<n<10K"), (10_000, "10K<n<100K"), (10**6, "100K<n<1M")],
)
def test_size_categories(scenes: int, text: str) -> None:
  assert dataset_card._size_category(scenes) == text
