"""Pose corrections: moved cameras move back, shared motions are removed, off costs nothing."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsplat_mouse import cameras, scene
from jaxsplat_mouse.fit.config import FitConfig
from jaxsplat_mouse.fit.loop import init_state, run_chunk
from jaxsplat_mouse.fit.objective import views_at
from jaxsplat_mouse.fit.poses import fix_gauge, move_cameras
from jaxsplat_mouse.procedural_mouse.mouse_scenes import make_scene
from tests.fit_fixtures import hull_batch

_RING = cameras.generate_camera_poses(4, image_size=48)
_REAL = jnp.array([1.0, 1.0, 1.0, 1.0])
_BASE = FitConfig(
  model="3dgs",
  novel_weight=0.0,
  num_gaussians=300,
  iterations=60,
  relocate_every=20,
  resolutions=(1,),
  stages=(),
  random_background=False,
)
# Only the views move: what they end with is how they differ from the scene that was fitted before.
_FROZEN = dataclasses.replace(
  _BASE,
  lr_position=0.0,
  lr_feature=0.0,
  lr_opacity=0.0,
  lr_scaling=0.0,
  lr_rotation=0.0,
  relocate_every=0,
  noise=0.0,
  dropout=0.0,
  lr_position_final=0.1,
)


def _random(seed: int = 0) -> jax.Array:
  return 0.1 * jax.random.normal(jax.random.key(seed), (4, 6))


def _stack(one: scene.Scene) -> scene.Scene:
  return jax.tree.map(jnp.asarray, scene.stack_scenes([one]))


def _run(state, batch, config):
  return run_chunk(state, batch, config, 1, config.iterations, False)[0]


@pytest.fixture(scope="module")
def mouse():
  return make_scene(3, _RING)


@pytest.fixture(scope="module")
def fitted(mouse):
  batch, start = hull_batch([mouse], [0], _BASE)
  return _run(start, batch, _BASE).gaussians


def _fit_views(fitted, changed, config):
  start = jax.vmap(lambda g: init_state(g, 0, 4, config))(fitted)
  return jax.tree.map(lambda a: np.asarray(a[0]), _run(start, _stack(changed), config))


def test_moved_cameras_move_back(mouse, fitted):
  twist = jax.random.normal(jax.random.key(1), (4, 6)) * jnp.array([0.06] * 3 + [0.04] * 3)
  true = fix_gauge(twist, mouse.cameras, _REAL)
  moved = dataclasses.replace(mouse, cameras=move_cameras(mouse.cameras, true))
  config = dataclasses.replace(_FROZEN, pose_rate=0.003, views_per_step=0)
  twists = _fit_views(fitted, moved, config).poses.twists
  corrected = move_cameras(moved.cameras, twists)
  error = lambda c: float(jnp.abs(_pixels(c) - _pixels(mouse.cameras)).mean())
  assert error(corrected) < 0.5 * error(moved.cameras)


def _pixels(rig: cameras.Cameras) -> jax.Array:
  """Where every camera sees the corners of a cube, pixels from its principal point."""
  corners = jnp.array([[x, y, z] for x in (-0.4, 0.4) for y in (-0.4, 0.4) for z in (-0.4, 0.4)])
  matrices = jnp.asarray(rig.world_to_camera)
  x = jnp.einsum("vij,nj->vni", matrices[:, :3, :3], corners) + matrices[:, None, :3, 3]
  return x[..., :2] / x[..., 2:] * jnp.asarray(rig.intrinsics)[:, None, :2]


def test_the_gauge_removes_motion_and_growth_of_all_views():
  twists = fix_gauge(_random(), _RING, _REAL)
  np.testing.assert_allclose(twists.mean(0), 0.0, atol=1e-6)
  centers = _RING.centers - _RING.centers.mean(0)
  assert abs(float((twists[:, 3:] * centers).sum())) < 1e-5
  np.testing.assert_allclose(fix_gauge(twists, _RING, _REAL), twists, atol=1e-6)


def test_padding_views_do_not_count_in_the_gauge():
  real = jnp.array([1.0, 1.0, 1.0, 0.0])
  twists = fix_gauge(_random(), _RING, real)
  np.testing.assert_allclose(twists[:3].mean(0), 0.0, atol=1e-6)
  np.testing.assert_array_equal(twists[3], 0.0)


def test_moved_cameras_stay_rigid_and_zero_changes_nothing():
  moved = move_cameras(_RING, _random())
  rotation = np.asarray(moved.world_to_camera)[:, :3, :3]
  np.testing.assert_allclose(
    rotation @ rotation.transpose(0, 2, 1), np.tile(np.eye(3), (4, 1, 1)), atol=1e-5
  )
  same = move_cameras(_RING, jnp.zeros((4, 6)))
  np.testing.assert_allclose(same.world_to_camera, _RING.world_to_camera, atol=1e-7)
  np.testing.assert_array_equal(same.intrinsics, _RING.intrinsics)


def test_trusted_poses_are_no_part_of_the_state(fitted):
  one = jax.tree.map(lambda a: a[0], fitted)
  assert init_state(one, 0, 4, _BASE).poses is None
  adjusting = dataclasses.replace(_BASE, pose_rate=1e-5)
  assert init_state(one, 0, 4, adjusting).poses.twists.shape == (4, 6)


def test_pixels_in_doubt_are_not_observed(mouse):
  doubted = np.zeros(mouse.alphas.shape, bool)
  doubted[1, 20:24, 20:24] = True
  views = views_at(dataclasses.replace(mouse, doubted=doubted), 1)
  np.testing.assert_array_equal(np.asarray(views.observed) == 0, doubted)
