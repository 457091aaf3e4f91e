"""What a fit starts from: Gaussians on the visual hull, and what else the hull tells."""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from jaxsplat_mouse import math as jm
from jaxsplat_mouse.fit.config import FitConfig
from jaxsplat_mouse.fit.hull_views import hull_views
from jaxsplat_mouse.gaussians import MODELS, Gaussians
from jaxsplat_mouse.scene import Scene
from jaxsplat_mouse.visual_hull.build import carve_hull
from jaxsplat_mouse.visual_hull.hull import Hull, HullConfig
from jaxsplat_mouse.visual_hull.initial_gaussians import initial_gaussians


def from_hull(hull: Hull, config: FitConfig, key: jax.Array) -> Gaussians:
  """Gaussians (N,) on a hull as a fit starts from them; NaN means for an empty hull."""
  return initial_gaussians(
    hull, key, config.num_gaussians, model=config.model, sh_degree=config.sh_degree
  )


def random_gaussians(config: FitConfig, key: jax.Array) -> Gaussians:
  """The seed recipe: (N,) uniform in the unit ball, grey, opacity 0.1."""
  keys = jax.random.split(key, 3)
  direction = jm.safe_normalize(jax.random.normal(keys[0], (config.num_gaussians, 3)))
  radius = jax.random.uniform(keys[1], (config.num_gaussians, 1)) ** (1.0 / 3.0)
  axes = 2 if config.model == "2dgs" else 3
  spacing = (4.0 / 3.0 * np.pi / config.num_gaussians) ** (1.0 / 3.0)
  return MODELS[config.model](
    means=direction * radius,
    log_scales=jnp.full((config.num_gaussians, axes), np.log(0.5 * spacing), jnp.float32),
    quats=jax.random.normal(keys[2], (config.num_gaussians, 4)),
    logit_opacities=jnp.full(config.num_gaussians, np.log(0.1 / 0.9), jnp.float32),
    sh=jnp.zeros((config.num_gaussians, (config.sh_degree + 1) ** 2, 3)),
  )


def initialize(scene: Scene, config: FitConfig, key: jax.Array) -> Gaussians:
  """The Gaussians that a fit of one scene starts from; pure, `vmap` takes a stack of scenes."""
  return start_scene(scene, config, key)[1]


def start_scene(
  scene: Scene, config: FitConfig, key: jax.Array, hull_config: HullConfig | None = None
) -> tuple[Scene, Gaussians]:
  """One scene with all that its hull tells a fit, and Gaussians (N,) to start from."""
  if config.initialization == "random":
    return scene, random_gaussians(config, key)
  hull = carve_hull(scene, hull_config or HullConfig(num_points=config.num_gaussians))
  return know_hull(scene, hull, config), from_hull(hull, config, key)


def know_hull(scene: Scene, hull: Hull, config: FitConfig) -> Scene:
  """A scene with what its hull says about pixels in doubt and about other views."""
  return dataclasses.replace(scene, doubted=hull.doubted, hull_views=hull_views(hull, config))


@functools.partial(jax.jit, static_argnames=("config", "hull_config"))
def start_batch(
  scenes: Scene, seeds: jax.Array, config: FitConfig, hull_config: HullConfig | None = None
) -> tuple[Scene, Gaussians]:
  """`start` for a stack of scenes (B, ...) and seeds (B,), one scene after the other."""

  def one(item: tuple[Scene, jax.Array]) -> tuple[tuple, Gaussians]:
    scene, gaussians = start_scene(item[0], config, jax.random.key(item[1]), hull_config)
    return (scene.doubted, scene.hull_views), gaussians

  (doubted, views), gaussians = jax.lax.map(one, (scenes, seeds))
  return dataclasses.replace(scenes, doubted=doubted, hull_views=views), gaussians


def initialize_batch(scenes: Scene, seeds: jax.Array, config: FitConfig) -> Gaussians:
  """`initialize` for a stack of scenes (B, ...) and seeds (B,)."""
  return start_batch(scenes, seeds, config)[1]
