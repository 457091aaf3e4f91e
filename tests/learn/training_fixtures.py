"""The smallest training that renders an animal."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import numpy as np

from jaxsplat_mouse.cameras import generate_camera_poses
from jaxsplat_mouse.learn.gslrm.architecture import SIZES
from jaxsplat_mouse.learn.gslrm.supervision import LossWeights
from jaxsplat_mouse.learn.training import built_in_scenes
from jaxsplat_mouse.learn.training.scenes import TrainingScenes
from jaxsplat_mouse.learn.training.train_step import (
  first_state,
  local_mesh,
  replicate,
  split_slots,
  take_step,
)
from jaxsplat_mouse.learn.training.training_recipe import (
  DataRecipe,
  OptimizerRecipe,
  SavingRecipe,
  TrainingRecipe,
)

SMALL = TrainingRecipe(
  architecture=dataclasses.replace(
    SIZES["tiny"], image_size=32, width=32, depth=1, registers=2, max_tokens=32
  ),
  data=DataRecipe(datasets="mice:1", held_out="", inputs=2, views=3),
  optimizer=OptimizerRecipe(steps=6, batch=2, rate=1e-3, warmup=2, averaging=0.5, ssim_weight=0.0),
  saving=SavingRecipe(every=3, seconds=0.0),
)

trace = functools.cache(built_in_scenes.make_scenes)


def mouse_scenes() -> TrainingScenes:
  return trace("mice", range(1), SMALL.architecture.image_size)


def white_scenes(size: int = 32, views: int = 3) -> TrainingScenes:
  """A scene without an animal."""
  orbit = generate_camera_poses(views, image_size=size)
  return TrainingScenes(
    rgba=np.zeros((1, views, size, size, 4), np.uint8),
    world_to_camera=np.asarray(orbit.world_to_camera)[None],
    intrinsics=np.asarray(orbit.intrinsics)[None],
    counts=np.full(1, views, np.int32),
  )


def train_steps(
  recipe: TrainingRecipe, scenes: TrainingScenes, devices: int, steps: int = 3
) -> Any:
  """Parameters after a few steps on some devices."""
  mesh = local_mesh(jax.local_devices()[:devices], recipe.optimizer.batch)
  state = replicate(first_state(recipe), mesh)
  for _ in range(steps):
    state, _ = take_step(
      state,
      replicate((scenes,), mesh),
      split_slots(recipe.optimizer.batch, mesh),
      recipe=recipe,
      shares=(1.0,),
      mesh=mesh,
      weights=LossWeights(),
      capacity=4096,
    )
  return jax.device_get(state.parameters)
