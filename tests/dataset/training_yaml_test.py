"""The training configuration: it points at the lists and mixes datasets by weight."""

from __future__ import annotations

import pathlib

import yaml

from jaxsplat_mouse.dataset import lists, training_yaml
from tests.dataset.dataset_fixtures import dataset_of

ROOT = pathlib.Path(__file__).resolve().parents[2]


def load(path: pathlib.Path) -> dict:
  return yaml.safe_load(path.read_text())


def test_the_training_config_mixes_and_points_at_the_lists(tmp_path: pathlib.Path):
  dataset_of(tmp_path, "a", "b")
  lists.write_lists(tmp_path, ["a"], ["b"])
  path = training_yaml.write_training_yaml(tmp_path)
  assert path == tmp_path / "mouse_gslrm_synthetic.yaml"
  config = load(path)
  data = config["training"]["dataset"]
  assert data["class_name"] == "MixedDataset"
  assert [(d["name"], d["weight"]) for d in data["datasets"]] == [
    ("objaverse", 0.7),
    ("mouse_synthetic", 0.3),
  ]
  assert (data["num_views"], data["num_input_views"]) == (8, 4)
  assert data["background_color"] == "white"
  assert data["dataset_path"] == data["datasets"][1]["dataset_path"] == str(tmp_path / "train.txt")
  assert config["validation"]["dataset_path"] == str(tmp_path / "val.txt")
  assert config["validation"]["enabled"] is True
  optimizer, losses = config["training"]["optimizer"], config["training"]["losses"]
  assert (optimizer["beta1"], optimizer["beta2"], optimizer["weight_decay"]) == (0.9, 0.95, 0.05)
  assert (losses["l2_loss_weight"], losses["perceptual_loss_weight"]) == (1.0, 0.5)
  assert "RandomViewDataset reads one list only" in path.read_text()


def test_without_held_out_scenes_validation_is_off(tmp_path: pathlib.Path):
  dataset_of(tmp_path, "a")
  lists.write_lists(tmp_path, ["a"], [])
  assert load(training_yaml.write_training_yaml(tmp_path))["validation"]["enabled"] is False


def test_with_objaverse_the_one_list_carries_the_weights(tmp_path: pathlib.Path):
  mice = dataset_of(tmp_path / "mice dir", "a", "b", "c")
  lists.write_lists(mice, ["a", "b", "c"], [])
  objects = [tmp_path / "objaverse" / f"o{i}" for i in range(70)]
  for folder in objects:
    folder.mkdir(parents=True)
  (tmp_path / "objaverse/train.txt").write_text("".join(f"{folder}\n" for folder in objects))
  config = load(
    training_yaml.write_training_yaml(mice, objaverse_list=tmp_path / "objaverse/train.txt")
  )
  mixed = pathlib.Path(config["training"]["dataset"]["dataset_path"])
  lines = mixed.read_text().strip().split("\n")
  counts = {line: lines.count(line) for line in lines}
  assert len(lines) == 100
  assert all(counts[str(folder)] == 1 for folder in objects)
  assert [counts[str(mice / name)] for name in "abc"] == [10, 10, 10]
  assert all(pathlib.Path(line).is_absolute() for line in lines)
  entries = config["training"]["dataset"]["datasets"]
  assert entries[0]["dataset_path"] == str(tmp_path / "objaverse/train.txt")
