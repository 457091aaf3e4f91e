"""Scenes whose views do not agree: found by their silhouettes, treated, and told apart."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import shutil

import jax
import numpy as np
import pytest

from jaxsplat_mouse.capture import pose_refinement
from jaxsplat_mouse.dataset import camera_file
from jaxsplat_mouse.dataset.scene_records import latest_records
from jaxsplat_mouse.dataset.sources import find_sources
from jaxsplat_mouse.io import images
from jaxsplat_mouse.procedural_mouse.mouse_scenes import input_cameras, make_scene
from jaxsplat_mouse.run import inexact_scenes, job
from jaxsplat_mouse.run.batches import stack_batch
from jaxsplat_mouse.run.inexact_scenes import apply_agreement, treat_scene
from jaxsplat_mouse.run.scene_input import check_views, prepare_scene, read_scene_input
from jaxsplat_mouse.run.settings import Settings
from jaxsplat_mouse.scene import Scene
from tests.run_fixtures import results, tiny_config

_SIZE = 128


def turned(scene: Scene, degrees: float = 0.5) -> Scene:
  """The same photographs, with cameras that are turned about their centres by about an angle."""
  turns = np.random.default_rng(1).normal(0, np.radians(degrees), (len(scene.view_mask), 3))
  twists = np.concatenate([turns, np.zeros_like(turns)], 1)
  turn = pose_refinement.turn_poses(np.tile(np.eye(4), (len(twists), 1, 1)), twists)
  poses = turn @ np.asarray(scene.cameras.world_to_camera, np.float64)
  cameras = dataclasses.replace(scene.cameras, world_to_camera=poses.astype(np.float32))
  return dataclasses.replace(scene, cameras=cameras)


def pixels_off(scene: Scene, truth: Scene) -> float:
  """Motion of points near the animal, less what all cameras have in common: it cannot be seen."""
  poses, wanted = (np.asarray(one.cameras.world_to_camera, np.float64) for one in (scene, truth))
  outlines, scale = inexact_scenes.outlines_of(truth)
  center, unit = pose_refinement.animal_place(wanted, outlines)
  moved = pose_refinement.remove_common_motion(poses, wanted, center, unit)
  change = pose_refinement.pose_changes(moved, wanted, np.ones(len(wanted)), outlines)
  return float(change[2].mean() / scale)


@pytest.fixture(scope="module")
def mouse() -> Scene:
  return make_scene(0, input_cameras(image_size=_SIZE))


@pytest.fixture(scope="module")
def treated(mouse: Scene):
  return treat_scene(turned(mouse), 0.02)


def test_an_exact_scene_stays_as_it_is(mouse: Scene) -> None:
  same, found = treat_scene(mouse, 0.02)
  assert same is mouse
  assert found.refused < 0.015 and found.decision == "exact" and not found.inexact


def test_turned_cameras_are_found_and_turned_back(mouse: Scene, treated) -> None:
  scene, found = treated
  assert found.inexact and found.decision == "refined"
  assert found.refused > 0.05 and found.refused_after < 0.3 * found.refused
  assert np.mean(found.gains) > 0 and len(found.turns) == 6
  assert scene.inexact.all() and (scene.frames[:, 0] < 0).all()
  assert pixels_off(scene, mouse) < 0.5 * pixels_off(turned(mouse), mouse)


def test_what_was_found_is_applied_again(mouse: Scene, treated) -> None:
  scene, found = treated
  again = apply_agreement(turned(mouse), json.loads(json.dumps(found.to_json())))
  np.testing.assert_array_equal(again.cameras.world_to_camera, scene.cameras.world_to_camera)
  np.testing.assert_array_equal(again.frames, scene.frames)
  assert apply_agreement(mouse, None) is mouse
  assert "degrees" in inexact_scenes.describe_agreement(found.to_json())


def test_scenes_that_cannot_be_judged_are_left_alone(mouse: Scene) -> None:
  bad = turned(mouse)
  hidden = dataclasses.replace(bad, hidden=np.zeros(bad.alphas.shape, bool))
  small = turned(make_scene(0, input_cameras(image_size=36)))
  for scene, limit in ((bad, 1.0), (hidden, 0.02), (small, 0.02)):
    same, found = treat_scene(scene, limit)
    assert same is scene and found.decision.startswith("not measured")


def test_three_views_cannot_judge_a_fourth(mouse: Scene) -> None:
  bad = turned(mouse)
  few = dataclasses.replace(
    bad,
    cameras=bad.cameras[np.arange(3)],
    images=bad.images[:3],
    alphas=bad.alphas[:3],
    frames=bad.frames[:3],
    view_mask=bad.view_mask[:3],
  )
  scene, found = treat_scene(few, 0.0)
  assert found.inexact and found.decision.startswith("kept: 3 views")
  np.testing.assert_array_equal(scene.cameras.world_to_camera, few.cameras.world_to_camera)


def write_scene(folder: pathlib.Path, scene: Scene) -> None:
  rgba = np.concatenate([scene.images, scene.alphas[..., None]], -1)
  names = [f"images/cam_{i:03d}.png" for i in range(len(rgba))]
  (folder / "images").mkdir(parents=True)
  for name, view in zip(names, rgba, strict=True):
    (folder / name).write_bytes(images.encode_png((view * 255 + 0.5).astype(np.uint8)))
  camera_file.write_scene_cameras(folder, scene.cameras, names)


def test_a_run_treats_one_scene_and_says_so(tmp_path: pathlib.Path, mouse: Scene) -> None:
  """Both are fitted in one batch; a treated scene that is lost is rendered again alike."""
  write_scene(tmp_path / "in" / "exact", mouse)
  write_scene(tmp_path / "in" / "turned", turned(mouse))
  config = tiny_config(str(tmp_path / "in"))
  assert job.run(config, tmp_path / "w") == 0
  made = latest_records(tmp_path / "w" / "dataset")
  exact, inexact = made["exact"].extra, made["turned"].extra
  assert exact["agreement"]["decision"] == "exact" and exact["warnings"] == []
  assert inexact["agreement"]["decision"] == "refined" and len(inexact["warnings"]) == 1
  saved = json.loads((tmp_path / "w" / "fits" / "turned" / "scene.json").read_text())
  assert np.shape(saved["agreement"]["world_to_camera"]) == (6, 4, 4)

  before = results(tmp_path / "w")
  shutil.rmtree(tmp_path / "w" / "dataset" / "turned")
  assert job.run(config, tmp_path / "w") == 0
  assert results(tmp_path / "w") == before
  again = latest_records(tmp_path / "w" / "dataset")["turned"]
  assert again.metrics == made["turned"].metrics
  assert again.extra["agreement"] == inexact["agreement"]


def test_an_exact_scene_begins_its_fit_as_if_nothing_were_measured(
  tmp_path: pathlib.Path, mouse: Scene
) -> None:
  write_scene(tmp_path / "exact", mouse)
  settings = Settings.from_config(tiny_config(str(tmp_path)))
  read = read_scene_input(find_sources(tmp_path)[0])
  measured = check_views(read, settings.fit)
  assert measured.agreement is not None and measured.agreement["decision"] == "exact"
  begun = [stack_batch([prepare_scene(r, settings)], settings.fit) for r in (read, measured)]
  assert jax.tree.structure(begun[0]) == jax.tree.structure(begun[1])
  jax.tree.map(np.testing.assert_array_equal, *begun)
