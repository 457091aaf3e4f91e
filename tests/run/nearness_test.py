"""The overlap of two moments' silhouettes: blind to place and size, not to posture."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from jaxsplat_mouse.procedural_mouse.mouse import Mouse, make_mouse, render_truth, walking
from jaxsplat_mouse.procedural_mouse.mouse_scenes import input_cameras
from jaxsplat_mouse.run.nearness import Silhouettes, centred, overlap, read_silhouettes
from tests.run_fixtures import write_mouse


def _silhouettes(mouse: Mouse) -> Silhouettes:
  cameras = input_cameras(image_size=96)
  masks = render_truth(mouse, cameras, samples=1, edge_samples=1).rgba[..., 3] > 0.5
  axes = np.asarray(cameras.world_to_camera)[:, :3, :3]
  return Silhouettes(masks=np.stack([centred(mask) for mask in masks]), axes=axes)


def test_a_shift_and_a_growth_change_nothing():
  disc = np.hypot(*np.mgrid[-40:40, -60:60]) < 12
  same = centred(np.roll(disc, (9, -14), (0, 1)))
  np.testing.assert_array_equal(same, centred(disc))
  grown = centred(np.kron(disc, np.ones((3, 3), bool)))
  assert (grown & same).sum() / (grown | same).sum() > 0.95
  assert not centred(np.zeros((8, 8), bool)).any()


@pytest.fixture(scope="module")
def walker() -> Mouse:
  return walking(make_mouse(0, "walk"), 0.0)


def test_the_next_frame_is_nearer_than_a_turn_or_another_animal(walker: Mouse):
  here = _silhouettes(walker)
  turned = dataclasses.replace(walker, yaw=walker.yaw + np.radians(40))
  step = overlap(here, _silhouettes(walking(walker, 0.1)))
  turn = overlap(here, _silhouettes(turned))
  other = overlap(here, _silhouettes(make_mouse(5, "rear")))
  assert overlap(here, here) == 1.0
  assert step > 0.85 > 0.7 > max(turn, other)


def test_moments_of_other_rigs_and_broken_scenes_are_not_near(walker: Mouse, tmp_path):
  here = _silhouettes(walker)
  flipped = dataclasses.replace(here, axes=here.axes[:, ::-1])
  assert overlap(here, flipped) == 0.0
  assert overlap(here, None) == 0.0
  part = Silhouettes(masks=here.masks[[5, 1, 2]], axes=here.axes[[5, 1, 2]])
  assert overlap(here, part) == 1.0  # a camera may miss a moment
  scene = write_mouse(tmp_path / "scene", 0)
  assert read_silhouettes(scene) is not None
  (scene / "images" / "cam_001.png").write_bytes(b"")
  assert read_silhouettes(scene) is None
