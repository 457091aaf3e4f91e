"""Scores without held-out views: each answers to the fault that it is named after."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from jaxsplat_mouse.cameras import generate_camera_poses
from jaxsplat_mouse.dataset import scene_records
from jaxsplat_mouse.procedural_mouse.mouse import make_mouse, render_truth
from jaxsplat_mouse.procedural_mouse.mouse_scenes import input_cameras
from jaxsplat_mouse.run import job
from jaxsplat_mouse.run.quality_scores import SCORES, quality_scores
from jaxsplat_mouse.scene import scene_from_rgba
from tests.run_fixtures import tiny_config

_ORBIT = generate_camera_poses(4, image_size=96)


def test_a_run_puts_them_into_the_manifest(mice, tmp_path):
  config = tiny_config(str(mice / "mouse_0"))
  config.report.quality = True
  assert job.run(config, tmp_path) == 0
  metrics = scene_records.latest_records(tmp_path / "dataset")["mouse_0"].metrics
  assert {"quality_coverage", "quality_floaters", "quality_holes"} <= set(metrics)


@pytest.fixture(scope="module")
def perfect():
  """A scene and the renders of a fit without any error."""
  rig = input_cameras(image_size=96)
  mouse = make_mouse(0)
  own, new = render_truth(mouse, rig), render_truth(mouse, _ORBIT)
  inputs = {"alpha": own.alphas, "depth": own.depth}
  orbit = {"rgb": new.images * new.alphas[..., None], "alpha": new.alphas, "depth": new.depth}
  return scene_from_rgba(rig, own.rgba), inputs, orbit


@pytest.fixture(scope="module")
def scores(perfect):
  return quality_scores(*perfect, _ORBIT)


def test_a_perfect_fit_has_good_scores(scores):
  assert set(scores) == set(SCORES)
  assert scores["quality_floaters"] < 0.002
  assert scores["quality_holes"] < 0.12  # the hull is wider than the animal
  assert scores["quality_agreement"] > 18
  assert 0.5 < scores["quality_coverage"] <= 1


def test_specks_beside_the_animal_are_floaters(perfect, scores):
  scene, inputs, orbit = perfect
  specks = orbit["alpha"].copy()
  specks[:, 4:12, 4:12] = 1.0
  worse = quality_scores(scene, inputs, {**orbit, "alpha": specks}, _ORBIT)
  assert worse["quality_floaters"] > scores["quality_floaters"] + 0.01
  assert worse["quality_holes"] == scores["quality_holes"]


def test_transparency_is_a_hole(perfect, scores):
  scene, inputs, orbit = perfect
  thin = {"rgb": 0.6 * orbit["rgb"], "alpha": 0.6 * orbit["alpha"], "depth": orbit["depth"]}
  worse = quality_scores(scene, inputs, thin, _ORBIT)
  assert worse["quality_holes"] > scores["quality_holes"] + 0.2
  assert worse["quality_floaters"] == pytest.approx(scores["quality_floaters"], abs=1e-3)


def test_wrong_colours_do_not_agree_with_the_photographs(perfect, scores):
  scene, inputs, orbit = perfect
  rng = np.random.default_rng(0)
  noise = rng.normal(0, 0.2, orbit["rgb"].shape) * orbit["alpha"][..., None]
  worse = quality_scores(scene, inputs, {**orbit, "rgb": orbit["rgb"] + noise}, _ORBIT)
  assert worse["quality_agreement"] < scores["quality_agreement"] - 5


def test_a_missing_camera_lowers_the_coverage(perfect, scores):
  scene, inputs, orbit = perfect
  kept = np.array([True, True, True, False, False, False])
  fewer = dataclasses.replace(scene, view_mask=kept)
  three = {name: maps[kept] for name, maps in inputs.items()}
  assert quality_scores(fewer, three, orbit, _ORBIT)["quality_coverage"] < (
    scores["quality_coverage"] - 0.02
  )
