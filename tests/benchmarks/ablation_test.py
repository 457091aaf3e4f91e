"""The ablation: every change is one, none is lost between parts, gains are those of equal seeds."""

from __future__ import annotations

import json

import pytest

from benchmarks import ablation, quality


@pytest.mark.parametrize("model", ["2dgs", "3dgs"])
def test_every_change_changes_the_recipe(model):
  changes = ablation.changes_of(model)
  recipes = {name: quality.make_recipe("", model, one) for name, one in changes.items()}
  default = recipes.pop(ablation.BASE)
  assert len(recipes) > 25
  for name, recipe in recipes.items():
    assert recipe != default, name


def test_parts_are_the_whole_and_each_has_the_unchanged_recipe():
  names = list(ablation.changes_of("2dgs"))
  parts = [ablation.choose(names, f"{i}/4") for i in range(4)]
  assert all(part[0] == ablation.BASE for part in parts)
  rest = [name for part in parts for name in part[1:]]
  assert sorted([ablation.BASE, *rest]) == sorted(names)


def test_gains_are_means_of_equal_seeds():
  scores = {
    (ablation.BASE, "a"): (20.0, 22.0),
    (ablation.BASE, "b"): (30.0, 30.0),
    ("other", "a"): (21.0, 23.5),
    ("other", "b"): (30.0, 30.5),
  }
  rows = [
    {"recipe": name, "scene": scene, "seed": seed, "fg_psnr": value}
    for (name, scene), values in scores.items()
    for seed, value in enumerate(values)
  ]
  table = ablation.make_table(rows).splitlines()
  assert table[0] == "| change | a | b | mean gain |"
  assert table[2] == "| default | 21.00 ± 1.00 | 30.00 ± 0.00 |  |"
  assert table[3] == "| other | 22.25 ± 1.25 | 30.25 ± 0.25 | +0.75 ± 0.25 |"


@pytest.mark.slow
def test_it_runs_small(monkeypatch, tmp_path, capsys):
  monkeypatch.setenv("OUT", str(tmp_path))
  flags = ["--size=tiny", "--seeds=0", "--scenes=walk_black", "--only=no dropout"]
  monkeypatch.setattr("sys.argv", ["ablation", *flags])
  ablation.main()
  rows = json.loads((tmp_path / "ablation_2dgs_0.json").read_text())["rows"]
  assert [row["recipe"] for row in rows] == [ablation.BASE, "no dropout"]
  monkeypatch.setattr("sys.argv", ["ablation", f"--table={tmp_path}/ablation_2dgs_0.json"])
  capsys.readouterr()
  ablation.main()
  assert capsys.readouterr().out.startswith("| change | walk_black | mean gain |")
