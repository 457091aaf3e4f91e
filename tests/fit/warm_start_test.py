"""A frame that starts from the one before: as good in a third of the steps."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

from jaxsplat_mouse import cameras, scene
from jaxsplat_mouse.fit.config import FitConfig
from jaxsplat_mouse.fit.driver import FitDriver, initial_batch
from jaxsplat_mouse.fit.start import start_on_hull
from jaxsplat_mouse.fit.warm_start import carry_over, continuation_config
from jaxsplat_mouse.procedural_mouse.mouse import Mouse, make_mouse, render_truth, walking
from jaxsplat_mouse.procedural_mouse.mouse_scenes import input_cameras
from tests.fit_fixtures import one_of
from tests.splat_fixtures import random_gaussians

_CONFIG = FitConfig(
  model="2dgs", num_gaussians=400, iterations=90, relocate_every=10, resolutions=(1,), stages=()
)


def test_the_previous_frame_is_kept_and_scaled():
  previous, fresh = random_gaussians(True, 50, seed=1), random_gaussians(True, 80, seed=2)
  start = carry_over(previous, fresh, ratio=2.0, shift=np.array([1.0, 0.0, 0.0]))
  assert start.means.shape == (80, 3)
  moved = 2.0 * np.asarray(previous.means) + [1.0, 0.0, 0.0]
  np.testing.assert_allclose(start.means[:50], moved, rtol=1e-5)
  np.testing.assert_allclose(start.log_scales[:50], previous.log_scales + np.log(2.0), rtol=1e-5)
  assert np.isin(start.means[50:, 0], np.asarray(fresh.means)[:, 0]).all()


def test_some_splats_are_always_new_and_faint_ones_give_way():
  previous, fresh = random_gaussians(False, 100, seed=1), random_gaussians(False, 100, seed=2)
  start = carry_over(previous, fresh)
  kept = np.isin(np.asarray(previous.means)[:, 0], start.means[:, 0])
  assert kept.sum() == 80
  opacity = np.asarray(previous.logit_opacities)
  assert opacity[kept].min() >= opacity[~kept].max()


def test_a_warm_fit_is_shorter_and_fine_from_the_start():
  config = continuation_config(FitConfig(iterations=1500))
  assert (config.iterations, config.resolutions, config.stages) == (500, (1,), ())
  assert continuation_config(config).iterations == 200  # whole relocation periods


def _ring_scene(mouse: Mouse) -> scene.Scene:
  ring = input_cameras(image_size=64)
  return scene.scene_from_rgba(ring, render_truth(mouse, ring, samples=1, edge_samples=2).rgba)


def _fit(one: scene.Scene, config: FitConfig, previous=None):
  one, gaussians = start_on_hull(scene.crop_views(one, (64, 64)), config)
  if previous is not None:
    gaussians = carry_over(previous, gaussians)
  done = FitDriver(config).fit(*initial_batch([one], [gaussians], [0], config))
  return one_of(done.state.gaussians, 0)


def _error(gaussians, mouse: Mouse) -> float:
  from jaxsplat_mouse.rendering import render_views

  new = cameras.generate_camera_poses(4, image_size=64)
  truth = render_truth(mouse, new, samples=1, edge_samples=2)
  output = render_views(gaussians, new, background=1.0, geometry=False)
  wanted = truth.images * truth.alphas[..., None] + 1.0 - truth.alphas[..., None]
  return float(np.square(np.asarray(output.rgb) - wanted).mean())


@pytest.mark.slow
def test_a_walking_mouse_takes_a_third_of_the_steps():
  mouse = make_mouse(0, pose="walk")
  first, second = walking(mouse, 0.0), walking(mouse, 0.06)
  config = dataclasses.replace(_CONFIG)
  previous = _fit(_ring_scene(first), config)
  now = _ring_scene(second)
  whole = _error(_fit(now, config), second)
  short = continuation_config(config)
  assert short.iterations == config.iterations // 3
  assert _error(_fit(now, short, previous), second) < 1.1 * whole
  assert _error(_fit(now, short), second) > _error(_fit(now, short, previous), second)
