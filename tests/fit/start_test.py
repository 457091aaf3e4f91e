"""The start of a fit: what the recipe takes for known."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from jaxsplat_mouse import cameras
from jaxsplat_mouse.fit.config import FitConfig
from jaxsplat_mouse.fit.start import start_on_hull
from jaxsplat_mouse.procedural_mouse.mouse_scenes import make_scene
from jaxsplat_mouse.scene import silhouette_boxes, widen_frames
from jaxsplat_mouse.visual_hull.build import carve_hull
from jaxsplat_mouse.visual_hull.hull import HullConfig


@pytest.mark.parametrize("whole", [False, True])
def test_hull_and_fit_share_the_frames_that_the_recipe_asks_for(whole: bool) -> None:
  scene = make_scene(0, cameras.generate_camera_poses(4, image_size=48))
  tight = silhouette_boxes(scene).astype(np.float32) + np.float32([-2, -2, 2, 2])
  scene = dataclasses.replace(scene, frames=tight)
  expected = widen_frames(scene).frames if whole else tight
  assert (widen_frames(scene).frames != tight).all()
  carved = []

  def carve(scene, config):
    carved.append(scene.frames)
    return carve_hull(scene, config)

  config = FitConfig(num_gaussians=600, whole_silhouettes=whole)
  started, _ = start_on_hull(scene, config, HullConfig(resolution=64, num_points=600), 0, carve)
  np.testing.assert_array_equal(started.frames, expected)
  np.testing.assert_array_equal(carved[0], expected)
