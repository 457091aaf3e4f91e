"""Soft silhouettes: straight RGBA of a fit on fur has neither a white nor a black rim."""

from __future__ import annotations

import numpy as np
import pytest

from jaxsplat_mouse import cameras, scene
from jaxsplat_mouse.dataset.writer import to_rgba8
from jaxsplat_mouse.fit.config import FitConfig
from jaxsplat_mouse.fit.driver import fit_scene
from jaxsplat_mouse.procedural_mouse.mouse import make_mouse, render_truth
from jaxsplat_mouse.procedural_mouse.mouse_scenes import input_cameras
from jaxsplat_mouse.rendering import render_views

_CONFIG = FitConfig(
  num_gaussians=400, iterations=60, relocate_every=20, resolutions=(1,), stages=()
)


@pytest.mark.slow
@pytest.mark.parametrize("coat", ["black", "white"])
def test_fur_has_no_rim(coat):
  mouse = make_mouse(1, pose="stand", coat=coat)
  see = lambda rig: render_truth(mouse, rig, samples=1, fur=0.03)
  rig = input_cameras(image_size=72)
  one = scene.crop_views(scene.scene_from_rgba(rig, see(rig).rgba), (64, 64))
  fitted = fit_scene(one, _CONFIG)
  new = cameras.generate_camera_poses(3, image_size=64)
  output = render_views(fitted.gaussians, new, geometry=False, filter_width=fitted.filter_width)
  rgba = to_rgba8(np.asarray(output.rgb), np.asarray(output.alpha)) / 255.0
  soft = (rgba[..., 3] > 0.1) & (rgba[..., 3] < 0.8)
  inside = rgba[..., 3] > 0.95
  assert soft.sum() > 100
  # Straight colour at the edge is that of the animal, whatever was behind it in training.
  gap = rgba[soft][:, :3].mean() - rgba[inside][:, :3].mean()
  assert abs(gap) < 0.12
  # Composited on the other extreme it is still the animal's.
  truth = see(new)
  edge = (truth.alphas > 0.1) & (truth.alphas < 0.8) & soft
  off = rgba[edge][:, :3].mean() - truth.images[edge].mean()
  assert abs(off) < 0.12
