"""How scenes are fitted whose cameras and masks are not exact, beside exact ones in the same batch.

Where views contradict each other a little, splats beside the animal explain what its surface
cannot. So the cameras move, and splats that no photograph needs vanish sooner. An exact scene of
the same batch has today's pressures, and its cameras stay where they are. A batch without inexact
scenes (`Scene.inexact` is None) runs the program of exact ones. Where the recipe moves poses
anyway, its settings hold for all scenes.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

from jaxsplat_mouse import density
from jaxsplat_mouse.fit.config import FitConfig
from jaxsplat_mouse.fit.poses import PoseState
from jaxsplat_mouse.gaussians import Gaussians
from jaxsplat_mouse.scene import Scene

# Measured on photographs and on rendered animals with turned cameras; see `recipes.photographs`.
OPACITY_WEIGHT, OPACITY_DECAY, POSE_RATE = 0.3, 0.999, 6e-5


def without_flags(scene: Scene, config: FitConfig) -> Scene:
  """Returns a scene or batch that does not say what is inexact, if the recipe moves all poses."""
  return dataclasses.replace(scene, inexact=None) if config.adjusts_poses else scene


def config_for(scenes: Scene, config: FitConfig) -> FitConfig:
  """Returns the recipe that a batch (B, V, ...) is fitted with: poses move if one is inexact."""
  if scenes.inexact is None or config.adjusts_poses:
    return config
  return dataclasses.replace(config, pose_rate=POSE_RATE)


def opacity_weight(inexact: jax.Array | None, config: FitConfig) -> jax.Array | float:
  """Returns the weight of the mean opacity of a scene; `inexact` is () bool or None."""
  if inexact is None:
    return config.opacity_weight
  return jnp.where(inexact, max(OPACITY_WEIGHT, config.opacity_weight), config.opacity_weight)


def fade_opacity(gaussians: Gaussians, inexact: jax.Array | None, config: FitConfig) -> Gaussians:
  """Decays opacities by the recipe's factor and, of an inexact scene, by `OPACITY_DECAY` at least.

  Args:
    gaussians: (N,).
    inexact: () bool or None, whether the scene is inexact.
    config: the recipe.
  """
  usual = gaussians
  if config.opacity_decay < 1.0:
    usual = density.decay_opacity(gaussians, config.opacity_decay)
  if inexact is None:
    return usual
  faster = density.decay_opacity(gaussians, min(OPACITY_DECAY, config.opacity_decay))
  return jax.tree.map(lambda a, b: jnp.where(inexact, a, b), faster, usual)


def hold_exact(poses: PoseState, inexact: jax.Array | None) -> PoseState:
  """Returns the poses with the corrections of an exact scene at zero."""
  if inexact is None:
    return poses
  return dataclasses.replace(poses, twists=jnp.where(inexact, poses.twists, 0.0))
