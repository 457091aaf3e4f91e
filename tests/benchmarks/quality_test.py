"""The quality benchmark: its set is varied, its recipes are those of configs/, it runs small."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks import mice, quality
from jaxsplat_mouse.fit.recipes import fit_recipe


def test_the_set_covers_what_it_promises():
  cases = mice.CASES.values()
  assert len(cases) >= 12
  assert {case.rig for case in cases} == {"ring", "uneven", "dannce"}
  assert len({case.pose for case in cases}) >= 5
  assert len({case.coat for case in cases}) >= 5
  for field in ("fur", "exposure", "grow", "holes", "shake"):
    assert any(getattr(case, field) for case in cases), field


@pytest.mark.parametrize("name", ["stand_black_dannce", "walk_agouti_uneven", "stand_black"])
def test_every_rig_sees_the_whole_animal(name):
  scene, truth = mice.make_case(name, 63, 2)
  border = np.ones(scene.alphas.shape[1:], bool)
  border[1:-1, 1:-1] = False
  assert (scene.alphas.max((1, 2)) > 0.9).all()
  assert scene.alphas[:, border].max() < 0.5
  assert truth.shape == (2, 63, 63, 4)


def test_what_was_rendered_is_kept(tmp_path):
  first = mice.make_case("stand_agouti", 48, 1, tmp_path)
  kept = mice.make_case("stand_agouti", 48, 1, tmp_path)
  np.testing.assert_array_equal(first[1], kept[1])
  np.testing.assert_array_equal(first[0].images, kept[0].images)


def test_variants_change_the_recipe_and_nothing_unknown():
  name, changes = quality.parse_variant("sh fit.sh_degree=2 hull.min_views=3 fit.stages=(.2,)")
  recipe = quality.make_recipe(name, "2dgs", changes)
  assert (recipe.name, recipe.fit.sh_degree, recipe.hull.min_views) == ("sh", 2, 3)
  assert recipe.fit.stages == (0.2,)
  assert quality.make_recipe("", "3dgs:photographs", {}).fit == fit_recipe("3dgs", "photographs")
  with pytest.raises(ValueError, match="no such key"):
    quality.make_recipe("x", "2dgs", {"fit.nonsense": 1})


@pytest.mark.slow
def test_it_runs_small():
  size, views, shrink = quality.SIZES["tiny"]
  trials = [quality.built_in_trial(n, size, views, None) for n in ("walk_black", "stand_agouti")]
  recipes = [quality.make_recipe(n, n, shrink) for n in ("2dgs", "plain_2dgs")]
  rows = list(quality.run(trials, recipes, [0, 1], batch=4))
  assert len(rows) == 8
  assert all(np.isfinite(row["fg_psnr"]) for row in rows)
  mean = lambda name: np.mean([row["iou"] for row in rows if row["recipe"] == name])
  assert mean("2dgs") > mean("plain_2dgs") + 0.1
  table = quality.make_table(rows)
  assert table.count("\n") == 4
  assert "walk_black" in table
