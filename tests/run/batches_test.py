"""Batches: taken up as they were begun, and few shapes to compile."""

from __future__ import annotations

import dataclasses
import pathlib

import numpy as np
import pytest

from jaxsplat_mouse.cameras import generate_camera_poses
from jaxsplat_mouse.dataset.sources import Source
from jaxsplat_mouse.fit.config import FitConfig
from jaxsplat_mouse.gaussians import Gaussians3D
from jaxsplat_mouse.run import batches
from jaxsplat_mouse.run.scene_input import SceneInput
from jaxsplat_mouse.run.workdir import Workdir
from jaxsplat_mouse.scene import Scene, Similarity


@pytest.fixture
def workdir(tmp_path: pathlib.Path) -> Workdir:
  place = Workdir(tmp_path / "w")
  place.make()
  return place


def prepared(name: str, height: int, width: int, views: int = 3) -> SceneInput:
  """A scene whose silhouettes are rectangles."""
  alphas = np.zeros((views, 512, 512), np.float32)
  top, left = 256 - height // 2, 256 - width // 2
  alphas[:, top : top + height, left : left + width] = 1
  scene = Scene(
    cameras=generate_camera_poses(views),
    images=np.zeros((views, 512, 512, 3), np.float32),
    alphas=alphas,
    frames=np.tile(np.array([0, 0, 512, 512], np.float32), (views, 1)),
    view_mask=np.ones(views, bool),
  )
  zeros = lambda *shape: np.zeros(shape, np.float32)
  return SceneInput(
    source=Source(name=name, recording="r"),
    digest=f"digest of {name}",
    scene=scene,
    similarity=Similarity(),
    gaussians=Gaussians3D(
      means=zeros(5, 3),
      log_scales=zeros(5, 3),
      quats=zeros(5, 4),
      logit_opacities=zeros(5),
      sh=zeros(5, 1, 3),
    ),
    seed=len(name),
    warnings=(),
    seconds=0.0,
  )


def test_scenes_are_cut_into_batches_in_their_order(workdir: Workdir) -> None:
  plans = batches.new_plans(workdir, list("abcde"), 2)
  assert [plan.names for plan in plans] == [("a", "b"), ("c", "d"), ("e",)]
  assert len({plan.folder for plan in plans}) == 3


def test_a_batch_is_taken_up_as_it_was_begun(workdir: Workdir) -> None:
  (plan,) = batches.new_plans(workdir, ["a", "b"], 2)
  members = [prepared("a", 100, 100), prepared("b", 100, 100)]
  batches.record_plan(plan, members, (160, 128))
  (found,) = batches.unfinished_plans(workdir, ["a", "b", "c"])
  assert (found.names, found.shape, found.folder) == (("a", "b"), (160, 128), plan.folder)
  assert batches.is_unchanged(found, members)
  assert not batches.is_unchanged(found, members[:1])
  changed = dataclasses.replace(members[1], digest="another")
  assert not batches.is_unchanged(found, [members[0], changed])
  batches.remove_plan(found)
  assert batches.unfinished_plans(workdir, ["a", "b", "c"]) == []


def test_what_cannot_be_taken_up_is_deleted(workdir: Workdir) -> None:
  (plan,) = batches.new_plans(workdir, ["a", "gone"], 2)
  batches.record_plan(plan, [prepared("a", 99, 99), prepared("gone", 99, 99)], (128, 128))
  broken = workdir.checkpoints / "broken"
  broken.mkdir()
  (broken / "batch.json").write_text("{")
  assert batches.unfinished_plans(workdir, ["a"]) == []
  assert not plan.folder.exists() and not broken.exists()


def test_shapes_are_used_again_where_they_will_do(workdir: Workdir) -> None:
  choose = lambda height, width: batches.choose_shape(
    workdir, *batches.needed_shapes([prepared("a", height, width).scene]), only_batch=False
  )
  first = choose(150, 200)
  assert first == (192, 256)
  assert choose(140, 180) == first
  assert choose(150, 220) == first
  assert choose(40, 40) == (64, 64)  # the first would be mostly empty
  assert choose(200, 200) == (256, 256)  # too high for the first
  assert choose(150, 200) == first


def test_a_single_batch_is_cropped_tightly(workdir: Workdir) -> None:
  choose = lambda place, scene: batches.choose_shape(
    place, *batches.needed_shapes([scene]), only_batch=True
  )
  assert choose(workdir, prepared("a", 150, 200).scene) == (192, 256)
  other = Workdir(workdir.path.parent / "other")
  other.make()
  assert choose(other, prepared("a", 110, 130).scene) == (128, 160)


def test_stacked_scenes_have_one_shape(workdir: Workdir) -> None:
  members = [prepared("a", 50, 60), prepared("bc", 40, 90, views=4)]
  scenes, state = batches.stack_batch(members, FitConfig(model="3dgs"), (96, 128))
  assert scenes.alphas.shape == (2, 4, 96, 128)
  assert np.asarray(scenes.view_mask).sum(1).tolist() == [3, 4]
  assert state.seed.tolist() == [1, 2] and state.gaussians.means.shape == (2, 5, 3)
