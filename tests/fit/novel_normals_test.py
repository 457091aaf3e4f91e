"""Normal consistency in views that no camera took."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsplat_mouse import cameras, rendering
from jaxsplat_mouse.fit import novel_normals
from jaxsplat_mouse.fit.config import FitConfig
from jaxsplat_mouse.fit.loop import init_state, step
from jaxsplat_mouse.fit.novel_normals import novel_normal_loss
from jaxsplat_mouse.fit.objective import problem_at
from jaxsplat_mouse.fit.start import start_on_hull
from jaxsplat_mouse.procedural_mouse.mouse_scenes import make_scene
from jaxsplat_mouse.visual_hull.hull import HullConfig

_COUNT = 600
_CONFIG = FitConfig(
  model="3dgs",
  num_gaussians=_COUNT,
  tile_entries=32.0,
  iterations=4,
  relocate_every=0,
  resolutions=(1,),
  stages=(),
  geometry_from=0.0,
  depth_weight=0.0,
  normal_weight=0.0,
  novel_weight=0.5,
)
_ALIVE = jnp.ones(_COUNT, bool)
_WIDTH = jnp.float32(0.02)


@pytest.fixture(scope="module")
def started():
  """A scene, and the Gaussians that lie on its hull as its surface does."""
  mouse = make_scene(0, cameras.generate_camera_poses(4, image_size=48))
  hull = HullConfig(resolution=64, num_points=_COUNT)
  return jax.tree.map(jnp.asarray, start_on_hull(mouse, _CONFIG, hull))


@pytest.fixture(autouse=True)
def _small_views(monkeypatch):
  monkeypatch.setattr(novel_normals, "_SIZE", 48)


@jax.jit
def _total(gaussians):
  keys = jax.random.split(jax.random.key(1), 4)
  losses = [novel_normal_loss(gaussians, _ALIVE, _WIDTH, key, _CONFIG)[0] for key in keys]
  return jnp.stack(losses).mean()


def _tumble(gaussians):
  """The same ellipsoids, turned at random: no longer along a surface."""
  quats = jax.random.normal(jax.random.key(2), gaussians.quats.shape)
  return dataclasses.replace(gaussians, quats=quats)


def test_splats_along_a_surface_cost_less_than_tumbled_ones(started):
  assert float(_total(_tumble(started[1]))) > float(_total(started[1])) + 0.03


def test_its_gradient_turns_splats_toward_the_surface(started):
  tumbled = _tumble(started[1])
  gradient = jax.grad(_total)(tumbled)
  assert all(bool(jnp.isfinite(leaf).all()) for leaf in jax.tree.leaves(gradient))
  norm = jnp.sqrt((gradient.quats**2).sum())
  turned = dataclasses.replace(tumbled, quats=tumbled.quats - 0.5 * gradient.quats / norm)
  assert float(_total(turned)) < float(_total(tumbled))


def test_it_is_one_view_of_the_outputs_orbit(started, monkeypatch):
  seen = []

  def watched(shown, camera, **options):
    seen.append((camera, options))
    return rendering.render(shown, camera, **options)

  monkeypatch.setattr(novel_normals, "render", watched)
  novel_normal_loss(started[1], _ALIVE, _WIDTH, jax.random.key(3), _CONFIG)
  ((camera, options),) = seen
  assert (camera.width, camera.height) == (48, 48)
  orbit = cameras.generate_camera_poses(32, image_size=48)
  apart = np.abs(np.asarray(orbit.world_to_camera) - np.asarray(camera.world_to_camera)).max((1, 2))
  assert apart.min() < 1e-6
  assert float(options["filter_width"]) == float(_WIDTH)


def test_intersections_without_room_are_counted(started):
  tight = dataclasses.replace(_CONFIG, tile_entries=0.2)
  key = jax.random.key(4)
  assert int(novel_normal_loss(started[1], _ALIVE, _WIDTH, key, tight)[1]) > 0
  assert int(novel_normal_loss(started[1], _ALIVE, _WIDTH, key, _CONFIG)[1]) == 0


def test_without_a_weight_nothing_is_rendered(started, monkeypatch):
  monkeypatch.delattr(novel_normals, "render")
  plain = dataclasses.replace(_CONFIG, novel_weight=0.0)
  total, overflow = novel_normal_loss(started[1], _ALIVE, _WIDTH, jax.random.key(5), plain)
  assert float(total) == 0.0
  assert int(overflow) == 0


def test_it_is_part_of_a_fits_steps_from_geometry_on(started):
  state = init_state(started[1], 0, 4, _CONFIG)
  problem = problem_at(started[0], 1, _CONFIG)
  plain = dataclasses.replace(_CONFIG, novel_weight=0.0)
  jitted = jax.jit(step, static_argnums=(2, 3))
  lost = lambda config, geometry: float(jitted(state, problem, config, geometry)[1]["loss"])
  assert _CONFIG.shapes_surface
  assert not plain.shapes_surface
  assert lost(_CONFIG, True) > lost(plain, True) + 1e-3
  assert lost(_CONFIG, False) == lost(plain, False)
