"""Relocation inside a fixed count, exploration noise, shape limits."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsplat_mouse import cameras, density, optimizer
from jaxsplat_mouse import gaussians as gs
from jaxsplat_mouse.rendering import render
from tests.splat_fixtures import random_gaussians

pytestmark = pytest.mark.unoptimized


@pytest.mark.parametrize("copies", [1, 2, 5])
def test_split_keeps_the_integral_of_a_ray(copies):
  """n splats of the new opacity and size, composited, integrate to the one they replace."""
  opacity = 0.7
  shared, size = density.split_opacity(jnp.array([opacity]), jnp.array([copies]))
  x = np.linspace(-8, 8, 4001)
  one = opacity * np.exp(-0.5 * x**2)
  part = float(shared[0]) * np.exp(-0.5 * (x / float(size[0])) ** 2)
  together = 1.0 - (1.0 - part) ** copies
  assert float(1 - (1 - shared[0]) ** copies) == pytest.approx(opacity, rel=1e-5)
  assert together.sum() == pytest.approx(one.sum(), rel=1e-4)


@pytest.mark.parametrize("flat", [False, True])
def test_relocation_leaves_the_image_nearly_as_it_was(flat):
  # 12 of 60 are dead; each moves onto one that lives.
  gaussians = random_gaussians(flat, 60, size=0.1, sh_coefficients=1)
  dead = jnp.arange(60) % 5 == 0
  gaussians = dataclasses.replace(
    gaussians, logit_opacities=jnp.where(dead, -9.0, gaussians.logit_opacities)
  )
  moved, changed = density.relocate(
    gaussians, jnp.ones(60, bool), jax.random.key(0), min_opacity=0.005
  )
  assert bool(changed[dead].all())
  assert bool((gs.opacities(moved) > 0.005).all())
  camera = jax.tree.map(jnp.asarray, cameras.generate_camera_poses(1, image_size=32)[0])
  before = render(gaussians, camera, implementation="reference", geometry=False)
  after = render(moved, camera, implementation="reference", geometry=False)
  assert float(jnp.abs(before.alpha - after.alpha).mean()) < 0.01
  assert float(jnp.abs(before.alpha).mean()) > 0.1


def test_unused_slots_are_never_sources_nor_moved():
  gaussians = random_gaussians(False, 20)
  gaussians = dataclasses.replace(
    gaussians, logit_opacities=jnp.where(jnp.arange(20) < 5, -9.0, 1.0)
  )
  alive = jnp.arange(20) % 2 == 0
  moved, changed = density.relocate(gaussians, alive, jax.random.key(1), min_opacity=0.005)
  np.testing.assert_array_equal(
    np.asarray(moved.means)[~np.asarray(alive)], np.asarray(gaussians.means)[~np.asarray(alive)]
  )
  assert not bool(changed[~alive].any())
  sources = {tuple(m) for m in np.asarray(gaussians.means)[np.asarray(alive)]}
  assert all(tuple(m) in sources for m in np.asarray(moved.means)[np.asarray(alive)])


def test_all_dead_stays_put():
  gaussians = dataclasses.replace(random_gaussians(True, 8), logit_opacities=jnp.full(8, -9.0))
  moved, changed = density.relocate(gaussians, jnp.ones(8, bool), jax.random.key(0), 0.005)
  assert not bool(changed.any())
  np.testing.assert_array_equal(moved.means, gaussians.means)


def test_noise_moves_faint_discs_inside_their_plane_only():
  gaussians = dataclasses.replace(
    random_gaussians(True, 40), logit_opacities=jnp.where(jnp.arange(40) < 20, -9.0, 2.0)
  )
  moved = density.explore(gaussians, jax.random.key(0), jnp.float32(100.0))
  step = np.asarray(moved.means - gaussians.means)
  assert np.abs(step[20:]).max() < 1e-6
  assert np.linalg.norm(step[:20], axis=-1).min() > 1e-4
  across = (step * np.asarray(gs.normals(gaussians))).sum(-1)
  np.testing.assert_allclose(across, 0.0, atol=1e-5)


def test_decay_and_limits():
  gaussians = random_gaussians(False, 30)
  np.testing.assert_allclose(
    gs.opacities(density.decay_opacity(gaussians, 0.9)), 0.9 * gs.opacities(gaussians), rtol=1e-4
  )
  limited = np.sort(np.exp(density.limit_shape(gaussians, 0.05, 0.07, 2.0).log_scales), -1)
  assert limited.max() <= 0.07 + 1e-6
  assert limited[:, 1].min() >= 0.05 - 1e-6 > limited[:, 0].min()
  assert (limited[:, 2] / limited[:, 1]).max() <= 2.0 + 1e-5


def test_rates_are_per_field_and_reset_clears_rows():
  gaussians = random_gaussians(False, 4)
  rates = optimizer.Rates(
    position=0.1,
    position_final=0.01,
    feature=0.2,
    bands=0.25,
    opacity=0.3,
    scaling=0.4,
    rotation=0.5,
  )
  ones = jax.tree.map(jnp.ones_like, gaussians)
  bad = dataclasses.replace(ones, means=ones.means.at[2].set(jnp.nan))
  new, state = optimizer.update(gaussians, bad, optimizer.init(gaussians), rates, jnp.int32(0), 100)
  moved = jax.tree.map(lambda a, b: np.asarray(a - b), gaussians, new)
  np.testing.assert_allclose(moved.means[[0, 1, 3]], 0.1, rtol=1e-4)
  np.testing.assert_array_equal(moved.means[2], 0.0)
  np.testing.assert_allclose(moved.log_scales, 0.4, rtol=1e-4)
  np.testing.assert_allclose(moved.sh[:, 0], 0.2, rtol=1e-4)
  np.testing.assert_allclose(moved.sh[:, 1:], 0.05, rtol=1e-4)
  assert float(optimizer.position_rate(rates, jnp.int32(100), 100)) == pytest.approx(1e-3)
  cleared = optimizer.reset_rows(state, jnp.arange(4) == 1)
  assert not np.asarray(cleared.mu.quats)[1].any() and np.asarray(cleared.mu.quats)[0].all()
