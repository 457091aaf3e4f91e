"""What a training step sees: pure functions of seed, step and slot.

A resumed run needs nothing but the step, and any number of devices draws the same global batch:
slot k of a step is the same sample wherever it is drawn.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp

from jaxsplat_mouse.cameras import Cameras
from jaxsplat_mouse.learn.training.scenes import TrainingScenes
from jaxsplat_mouse.math import safe_normalize

_NEAR = math.cos(math.radians(60.0))  # FaceLift's overlap: a target lies near one of the inputs
_MAX_SCALE = 0.1  # of the augmentation, relative
_MAX_GAIN = 0.15  # likewise


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingBatch:
  """B samples of V views: the model's inputs first, then views that it must predict.

  Attributes:
    rgba: (B, V, S, S, 4) float32 in [0, 1], straight colour.
    cameras: (B, V).
  """

  rgba: jax.Array
  cameras: Cameras


@dataclasses.dataclass(frozen=True, kw_only=True)
class ViewCounts:
  """How many views a sample has.

  Attributes:
    inputs: that the model sees.
    total: with those that it only predicts.
  """

  inputs: int = 4
  total: int = 8


def draw_sample(
  scenes: TrainingScenes, key: jax.Array, counts: ViewCounts
) -> tuple[jax.Array, jax.Array]:
  """Draws a scene and its views.

  Args:
    scenes: N scenes.
    key: PRNG key of the sample.
    counts: of views.

  Returns:
    the scene () int32, and its views (counts.total,): inputs without order, then views within 60
    degrees of one of them, as seen from the origin, as long as there are any. A scene with fewer
    views repeats them.
  """
  scene_key, input_key, target_key = jax.random.split(key, 3)
  scene = jax.random.randint(scene_key, (), 0, scenes.counts.shape[0])
  count = scenes.counts[scene]
  places = scenes.world_to_camera.shape[1]
  real = jnp.arange(places) < count
  order = jnp.argsort(jnp.where(real, jax.random.uniform(input_key, (places,)), 2.0))
  inputs = order[jnp.arange(counts.inputs) % count]
  pose = scenes.world_to_camera[scene]
  centers = -(pose[:, :3, :3] * pose[:, :3, 3, None]).sum(1)
  directions = safe_normalize(centers)
  cosines = (directions[:, None] * directions[inputs][None]).sum(-1)
  rank = jax.random.uniform(target_key, (places,)) + jnp.where(cosines.max(1) >= _NEAR, 0.0, 1.0)
  taken = (jnp.arange(places)[:, None] == inputs[None]).any(1)
  # Inputs come after all others, padding after everything.
  rank = jnp.where(real, rank + 2.0 * taken, 9.0)
  targets = jnp.argsort(rank)[jnp.arange(counts.total - counts.inputs) % count]
  return scene, jnp.concatenate([inputs, targets])


def gather(
  scenes: TrainingScenes, scene: jax.Array, views: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """Returns the images (V, S, S, 4) uint8, poses (V, 4, 4) and intrinsics (V, 4) of a sample.

  Args:
    scenes: N scenes.
    scene: ().
    views: (V,) of the scene.
  """
  return (
    jnp.asarray(scenes.rgba)[scene, views],
    jnp.asarray(scenes.world_to_camera)[scene, views],
    jnp.asarray(scenes.intrinsics)[scene, views],
  )


def draw_batch(
  mixture: Sequence[TrainingScenes],
  weights: Sequence[float],
  seed: jax.Array,
  step: jax.Array,
  slots: jax.Array,
  counts: ViewCounts,
  *,
  augments: bool = True,
) -> TrainingBatch:
  """Draws the samples of some slots of a step; a dataset by weight, then a scene, then views.

  Args:
    mixture: datasets of one image size, on the device.
    weights: of the datasets, of any sum.
    seed: () of the training.
    step: ().
    slots: (B,) int32, which of the step's samples.
    counts: of views.
    augments: whether to turn, scale and brighten samples at random.
  """
  keys = jax.vmap(
    lambda slot: jax.random.fold_in(jax.random.fold_in(jax.random.key(seed), step), slot)
  )(slots)
  log_weights = jnp.log(jnp.asarray(weights, jnp.float32))

  def one(key: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    kind_key, sample_key, change_key = jax.random.split(key, 3)
    # Every dataset gathers a sample: cheaper than a branch, which vmap would turn into this anyway.
    drawn = [gather(scenes, *draw_sample(scenes, sample_key, counts)) for scenes in mixture]
    kind = jax.random.categorical(kind_key, log_weights)
    rgba, poses, intrinsics = jax.tree.map(lambda *each: jnp.stack(each)[kind], *drawn)
    rgba = rgba.astype(jnp.float32) / 255.0
    if augments:
      rgba, poses = augment(rgba, poses, change_key)
    return rgba, poses, intrinsics

  rgba, poses, intrinsics = jax.vmap(one)(keys)
  size = rgba.shape[2]
  cameras = Cameras(world_to_camera=poses, intrinsics=intrinsics, width=size, height=size)
  return TrainingBatch(rgba=rgba, cameras=cameras)


def augment(
  rgba: jax.Array, world_to_camera: jax.Array, key: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """Turns the world about Z, scales it and brightens its colours; images and cameras still agree.

  Without the turn a model learns the azimuths of the dataset's orbit.

  Args:
    rgba: (V, S, S, 4) straight colour in [0, 1].
    world_to_camera: (V, 4, 4).
    key: PRNG key.
  """
  turn_key, scale_key, gain_key = jax.random.split(key, 3)
  angle = jax.random.uniform(turn_key, (), maxval=2.0 * math.pi)
  c, s = jnp.cos(angle), jnp.sin(angle)
  zero, one = jnp.zeros(()), jnp.ones(())
  turn = jnp.stack([c, -s, zero, s, c, zero, zero, zero, one]).reshape(3, 3)
  scale = 1.0 + _MAX_SCALE * jax.random.uniform(scale_key, (), minval=-1.0)
  # x' = s Z x: a camera that sees x at s (R x + t) sees it at the same pixel.
  rotation = (world_to_camera[:, :3, :3, None] * turn.T[None, None]).sum(2)
  moved = world_to_camera.at[:, :3, :3].set(rotation).at[:, :3, 3].multiply(scale)
  gain = 1.0 + _MAX_GAIN * jax.random.uniform(gain_key, (3,), minval=-1.0)
  colors = jnp.clip(rgba[..., :3] * gain, 0.0, 1.0)
  return jnp.concatenate([colors, rgba[..., 3:]], -1), moved
