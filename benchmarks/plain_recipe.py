"""The baseline of every comparison: the plain recipe, in a loop of its own.

    python -m benchmarks.quality --config=plain_2dgs,plain_3dgs

Expected of walk_black, on an H100: plain_2dgs 11.7 dB / .44, plain_3dgs 9.9 / .41.

Random initialisation in the unit ball, L1 + SSIM, one fixed learning rate per field: no hull, no
silhouette loss, no regularisers (2dgs: distortion and normals), no relocation, white background,
full resolution throughout.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from jaxsplat_mouse import optimizer
from jaxsplat_mouse.fit.config import FitConfig
from jaxsplat_mouse.fit.objective import loss, problem_at
from jaxsplat_mouse.gaussians import MODELS, Gaussians
from jaxsplat_mouse.math import safe_normalize
from jaxsplat_mouse.scene import Scene

_MORE_ROOM = 1.5
# By model: steps, weights of distortion and normals, filter in squared pixels.
_MODELS = {"2dgs": (1500, 0.1, 0.05, 0.5), "3dgs": (1000, 0.0, 0.0, 0.3)}


def plain_config(model: str) -> FitConfig:
  """Returns the plain recipe of a model: the settings that the objective and optimiser read."""
  iterations, depth_weight, normal_weight, low_pass = _MODELS[model]
  return FitConfig(
    model=model,
    iterations=iterations,
    sh_degree=0,
    lr_position=0.001,
    lr_position_final=1.0,
    lr_feature=0.01,
    lr_bands=0.05,
    lr_opacity=0.05,
    lr_scaling=0.005,
    lr_rotation=0.001,
    ssim_weight=0.2,
    mask_weight=0.0,
    depth_weight=depth_weight,
    normal_weight=normal_weight,
    novel_weight=0.0,
    opacity_weight=0.0,
    scale_weight=0.0,
    low_pass=low_pass,
    resolutions=(1,),
    stages=(),
    geometry_from=0.0,
  )


def random_gaussians(config: FitConfig, key: jax.Array) -> Gaussians:
  """Returns Gaussians (N,), uniform in the unit ball, grey, of opacity 0.1."""
  keys = jax.random.split(key, 3)
  direction = safe_normalize(jax.random.normal(keys[0], (config.num_gaussians, 3)))
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


@functools.partial(jax.jit, static_argnames="config")
def _fit(scenes: Scene, seeds: jax.Array, config: FitConfig) -> tuple[Gaussians, jax.Array]:
  """Returns Gaussians (B, N, ...) after all steps, and () the largest number of dropped entries."""

  def one(scene: Scene, seed: jax.Array) -> tuple[Gaussians, jax.Array]:
    problem = problem_at(scene, 1, config)
    alive = jnp.ones(config.num_gaussians, bool)
    white = jnp.ones((scene.view_mask.shape[0], 3))
    geometry = config.shapes_surface

    def objective(gaussians: Gaussians) -> tuple[jax.Array, jax.Array]:
      total, parts = loss(gaussians, alive, problem.views, white, problem, config, geometry)
      return total, parts["overflow"]

    def step(carry: tuple, number: jax.Array) -> tuple[tuple, jax.Array]:
      gaussians, moments = carry
      gradient, overflow = jax.grad(objective, has_aux=True)(gaussians)
      rates = config.rates
      carry = optimizer.update(gaussians, gradient, moments, rates, number, config.iterations)
      return carry, overflow

    start = random_gaussians(config, jax.random.key(seed))
    steps = jnp.arange(config.iterations)
    (gaussians, _), overflow = jax.lax.scan(step, (start, optimizer.init(start)), steps)
    return gaussians, overflow.max()

  gaussians, overflow = jax.vmap(one)(scenes, seeds)
  return gaussians, overflow.max()


def fit_plain(scenes: Scene, seeds: Sequence[int], config: FitConfig) -> Gaussians:
  """Fits a batch of scenes by the plain recipe.

  Args:
    scenes: (B, V, ...), cropped, in their canonical frames.
    seeds: one for each scene.
    config: from `plain_config`; a fit that drops tile entries is repeated with more of them.

  Returns:
    Gaussians (B, N, ...) as NumPy.
  """
  batch, numbers = jax.tree.map(jnp.asarray, scenes), jnp.asarray(seeds, jnp.uint32)
  while True:
    gaussians, overflow = _fit(batch, numbers, config)
    if int(overflow) == 0:
      return jax.tree.map(np.asarray, gaussians)
    config = dataclasses.replace(config, tile_entries=config.tile_entries * _MORE_ROOM)
