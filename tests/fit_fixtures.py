"""Small fits that several tests share."""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp

from jaxsplat_mouse import scene as scene_lib
from jaxsplat_mouse.fit.config import FitConfig
from jaxsplat_mouse.fit.driver import initial_batch
from jaxsplat_mouse.fit.loop import FitState
from jaxsplat_mouse.fit.start import start_on_hull
from jaxsplat_mouse.scene import Scene
from tests.splat_fixtures import random_gaussians


def hull_batch(
  scenes: Sequence[Scene], seeds: Sequence[int], config: FitConfig
) -> tuple[Scene, FitState]:
  """Stacks scenes of one image shape; their fits start on their hulls. Both on the device."""
  started = [start_on_hull(one, config, seed=s) for one, s in zip(scenes, seeds, strict=True)]
  batch = initial_batch([s for s, _ in started], [g for _, g in started], seeds, config)
  return jax.tree.map(jnp.asarray, batch)


def random_batch(scenes: Sequence[Scene], config: FitConfig) -> tuple[Scene, FitState]:
  """Stacks scenes of one image shape; their fits start from random splats. Both on the device."""
  seeds = range(len(scenes))
  flat = config.model == "2dgs"
  draw = lambda seed: random_gaussians(
    flat, config.num_gaussians, seed, sh_coefficients=(config.sh_degree + 1) ** 2
  )
  return jax.tree.map(
    jnp.asarray, initial_batch(scenes, [draw(s) for s in seeds], list(seeds), config)
  )


def one_of(batch: object, index: int) -> object:
  """One scene out of a batch of arrays (B, ...)."""
  return jax.tree.map(lambda leaf: leaf[index], batch)


def crops(scenes: Sequence[Scene], side: int) -> list[Scene]:
  """The scenes cut to squares around their silhouettes."""
  return [scene_lib.crop_views(one, (side, side)) for one in scenes]
