"""Inexact scenes in a batch: their cameras move and splats fade; exact ones beside them stay."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np
import pytest

from jaxsplat_mouse import cameras, scene
from jaxsplat_mouse.fit import inexact_fits
from jaxsplat_mouse.fit.config import FitConfig
from jaxsplat_mouse.fit.driver import FitCallbacks, FitDriver, Snapshot, initial_batch
from jaxsplat_mouse.fit.recipes import fit_recipe
from jaxsplat_mouse.fit.start import start_on_hull
from jaxsplat_mouse.gaussians import opacities
from jaxsplat_mouse.procedural_mouse.mouse_scenes import make_scene
from jaxsplat_mouse.visual_hull.hull import HullConfig

_CONFIG = FitConfig(
  num_gaussians=200, iterations=20, relocate_every=10, resolutions=(1,), stages=(), geometry_from=1
)


class _InterruptedError(Exception):
  pass


class _StopAt(FitCallbacks):
  """Keeps the snapshot of an iteration and ends the fit there."""

  def __init__(self, iteration: int):
    self.iteration = iteration
    self.snapshot: Snapshot | None = None

  def chunk_done(self, iteration, metrics, snapshot) -> None:
    if iteration == self.iteration:
      self.snapshot = snapshot()
      raise _InterruptedError


def _flag(one: scene.Scene) -> scene.Scene:
  return dataclasses.replace(one, inexact=np.ones(len(one.view_mask), bool))


@pytest.fixture(scope="module")
def started():
  ring = cameras.generate_camera_poses(4, image_size=48)
  hull = HullConfig(resolution=32, num_points=200)
  return [start_on_hull(make_scene(seed, ring), _CONFIG, hull, seed) for seed in range(2)]


def _batch(started, inexact: int | None, config: FitConfig = _CONFIG):
  scenes = [_flag(one) if i == inexact else one for i, (one, _) in enumerate(started)]
  return initial_batch(scenes, [gaussians for _, gaussians in started], [0, 1], config)


@pytest.fixture(scope="module")
def mixed(started):
  return FitDriver(_CONFIG, chunk_steps=10).fit(*_batch(started, 1)).state


@pytest.fixture(scope="module")
def exact(started):
  return FitDriver(_CONFIG, chunk_steps=10).fit(*_batch(started, None)).state


def test_an_exact_scene_keeps_its_cameras_and_its_fit_beside_an_inexact_one(mixed, exact) -> None:
  assert exact.poses is None
  np.testing.assert_array_equal(mixed.poses.twists[0], 0.0)
  assert np.abs(mixed.poses.twists[1]).max() > 1e-5
  one, same = (jax.tree.map(lambda leaf: leaf[0], state.gaussians) for state in (mixed, exact))
  for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(same), strict=True):
    assert np.median(np.abs(a - b)) < 1e-4


def test_splats_of_an_inexact_scene_fade(mixed, exact) -> None:
  mean = lambda state, i: np.asarray(opacities(state.gaussians))[i].mean()
  assert mean(mixed, 1) < mean(exact, 1) - 1e-3
  assert abs(mean(mixed, 0) - mean(exact, 0)) < 1e-4


def test_a_mixed_batch_goes_on_from_a_snapshot_bitwise(started, mixed) -> None:
  scenes, state = _batch(started, 1)
  driver, stop = FitDriver(_CONFIG, chunk_steps=10), _StopAt(10)
  with pytest.raises(_InterruptedError):
    driver.fit(scenes, state, stop)
  assert stop.snapshot is not None
  again = driver.fit(scenes, stop.snapshot).state
  jax.tree.map(np.testing.assert_array_equal, again, mixed)


def test_a_batch_of_exact_scenes_has_no_flag(started) -> None:
  scenes, state = _batch(started, None)
  assert scenes.inexact is None and state.poses is None
  assert inexact_fits.config_for(scenes, _CONFIG) is _CONFIG
  flagged, _ = _batch(started, 0)
  assert flagged.inexact.tolist() == [[True] * 4, [False] * 4]


def test_a_recipe_that_moves_poses_holds_for_all_scenes(started) -> None:
  config = dataclasses.replace(_CONFIG, pose_rate=1e-4)
  scenes, state = _batch(started, 1, config)
  assert scenes.inexact is None and state.poses is not None
  assert inexact_fits.config_for(scenes, config) is config


def test_inexact_scenes_have_the_settings_of_photographs() -> None:
  wanted = fit_recipe("2dgs", "photographs")
  flag = jax.numpy.array(True)
  assert float(inexact_fits.opacity_weight(flag, _CONFIG)) == pytest.approx(wanted.opacity_weight)
  assert inexact_fits.opacity_weight(None, _CONFIG) == _CONFIG.opacity_weight
  assert wanted.pose_rate == inexact_fits.POSE_RATE
