"""Takes a training from any step to the last, on the devices of one host.

Steps are launched one after the other and only looked at every `saving.every` steps, so that the
devices never wait for the host. Where splats found no room in the tile lists, the steps since were
not taken; they are counted, and the next ones have half as much room more.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jaxsplat_mouse.learn.gslrm.reconstruction import (
  count_splats,
  predict,
  render_samples,
  usual_capacity,
)
from jaxsplat_mouse.learn.gslrm.supervision import LossWeights, color_on_white, supervised_loss
from jaxsplat_mouse.learn.gslrm.tokens import PosedImages
from jaxsplat_mouse.learn.training.sampler import ViewCounts, draw_batch
from jaxsplat_mouse.learn.training.scenes import TrainingScenes
from jaxsplat_mouse.learn.training.train_step import (
  TrainingState,
  as_images,
  replicate,
  split_slots,
  take_step,
)
from jaxsplat_mouse.learn.training.training_recipe import SavingRecipe, TrainingRecipe

_GROWTH = 1.5
_HELD_OUT_SEED = 0x7E57  # draws the views of held-out scenes, the same ones every time
_HELD_OUT_BATCHES, _HELD_OUT_SAMPLES = 8, 4


@dataclasses.dataclass(frozen=True, kw_only=True)
class Mixture:
  """Datasets and the weights with which they are drawn."""

  scenes: Sequence[TrainingScenes]
  weights: Sequence[float]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Interval:
  """What `saving.every` steps, or fewer at the end, came to.

  Attributes:
    step: steps done.
    record: means over the interval by name; of `overflow`, the largest; `skipped` is how many
      steps of it had a gradient that was not finite or too long.
    steps: of the interval.
    samples_per_second: wall time, without looks at held-out scenes.
    capacity: splat-tile intersections that an image has room for from here on.
  """

  step: int
  steps: int
  record: dict[str, float]
  samples_per_second: float
  capacity: int


class Trainer:
  """A training with its data on the devices."""

  def __init__(
    self, recipe: TrainingRecipe, mixture: Mixture, held_out: Mixture | None, mesh: Mesh
  ):
    """Copies the data to every device.

    Args:
      recipe: of the training.
      mixture: what is learnt from.
      held_out: what is only scored.
      mesh: of `train_step.local_mesh`.
    """
    self._recipe, self._mesh = recipe, mesh
    # What a step does not depend on would compile it again.
    self._of_step = dataclasses.replace(recipe, weights="", saving=SavingRecipe())
    self._shares = tuple(mixture.weights)
    self._scenes = replicate(tuple(mixture.scenes), mesh)
    self._held_out = held_out
    if held_out:
      on_one = jax.device_put(tuple(held_out.scenes), mesh.devices.flat[0])
      self._held_out = dataclasses.replace(held_out, scenes=on_one)
    self._slots = split_slots(recipe.optimizer.batch, mesh)
    self._scores = jax.jit(self._score_batch, static_argnums=3)
    self._pictures = jax.jit(self._render_batch, static_argnums=2)

  def usual_capacity(self) -> int:
    """Returns the splat-tile intersections per image that a training begins with."""
    count = count_splats(self._recipe.architecture, self._recipe.data.inputs)
    return usual_capacity(count)

  def run(
    self,
    state: TrainingState,
    capacity: int,
    interval_done: Callable[[Interval, TrainingState], None],
  ) -> TrainingState:
    """Takes all steps that are left.

    Args:
      state: to go on from; it is given away.
      capacity: splat-tile intersections per image, of `usual_capacity` or of an `Interval`.
      interval_done: called with every interval and the state after it; what it raises ends the
        training.

    Returns:
      the state after the last step.
    """
    state = replicate(state, self._mesh)
    first = int(state.step)
    every, steps = self._recipe.saving.every, self._recipe.optimizer.steps
    records: list[dict[str, jax.Array]] = []
    started = time.monotonic()
    for step in range(first, steps):
      state, record = take_step(
        state,
        self._scenes,
        self._slots,
        recipe=self._of_step,
        shares=self._shares,
        mesh=self._mesh,
        weights=self._recipe.optimizer.loss_weights(step),
        capacity=capacity,
      )
      records.append(record)
      if (step + 1) % every and step + 1 < steps:
        continue
      means = _summary(jax.device_get(records))
      seconds = time.monotonic() - started
      if means["overflow"] > 0:
        capacity = math.ceil(_GROWTH * capacity)
      rate = len(records) * self._recipe.optimizer.batch / seconds
      interval_done(
        Interval(
          step=step + 1,
          steps=len(records),
          record=means,
          samples_per_second=rate,
          capacity=capacity,
        ),
        state,
      )
      records, started = [], time.monotonic()
    return state

  def score(self, parameters: Any, capacity: int) -> dict[str, float]:
    """Returns the record of held-out scenes by name, empty where there are none.

    Args:
      parameters: of the network.
      capacity: splat-tile intersections per image.
    """
    if self._held_out is None:
      return {}
    parameters = jax.device_put(parameters, self._mesh.devices.flat[0])
    records = [
      self._scores(parameters, self._held_out.scenes, jnp.asarray(i, jnp.int32), capacity)
      for i in range(_HELD_OUT_BATCHES)
    ]
    return _summary(jax.device_get(records))

  def _score_batch(
    self,
    parameters: Any,
    scenes: Sequence[TrainingScenes],
    index: jax.Array,
    capacity: int,
  ) -> dict[str, jax.Array]:
    """The record of one batch of held-out samples, as they are."""
    images = self._held_out_batch(scenes, index)
    inputs, shape = self._recipe.data.inputs, self._recipe.architecture
    _, record = supervised_loss(parameters, images, inputs, shape, LossWeights(), capacity)
    return record

  def _held_out_batch(self, scenes: Sequence[TrainingScenes], index: jax.Array) -> PosedImages:
    """Samples of held-out scenes as they are; `index` () draws them."""
    data = self._recipe.data
    counts = ViewCounts(inputs=data.inputs, total=data.views)
    weights = self._held_out.weights if self._held_out else ()
    seed, slots = jnp.asarray(_HELD_OUT_SEED, jnp.uint32), jnp.arange(_HELD_OUT_SAMPLES)
    return as_images(draw_batch(scenes, weights, seed, index, slots, counts, augments=False))

  def pictures(self, parameters: Any, capacity: int) -> np.ndarray | None:
    """Returns held-out samples, truth above model and inputs before other views.

    Args:
      parameters: of the network.
      capacity: splat-tile intersections per image.

    Returns:
      one image (H, W, 3) uint8, two rows a sample; None without held-out scenes.
    """
    if self._held_out is None:
      return None
    parameters = jax.device_put(parameters, self._mesh.devices.flat[0])
    truth, model = jax.device_get(self._pictures(parameters, self._held_out.scenes, capacity))
    rows = [np.concatenate(list(row), 1) for pair in zip(truth, model, strict=True) for row in pair]
    return np.round(255 * np.concatenate(rows).clip(0, 1)).astype(np.uint8)

  def _render_batch(
    self, parameters: Any, scenes: Sequence[TrainingScenes], capacity: int
  ) -> tuple[jax.Array, jax.Array]:
    """Truth and model (B, V, S, S, 3) of the first held-out samples, on white."""
    images, inputs = (
      self._held_out_batch(scenes, jnp.zeros((), jnp.int32)),
      self._recipe.data.inputs,
    )
    seen = PosedImages(rgba=images.rgba[:, :inputs], cameras=images.cameras[:, :inputs])
    gaussians = predict(parameters, seen, self._recipe.architecture).gaussians
    output = render_samples(gaussians, images.cameras, capacity)
    return color_on_white(images.rgba), output.rgb


def _summary(records: Sequence[dict[str, np.ndarray]]) -> dict[str, float]:
  """Means of records by name; of `overflow` the largest, of `skipped` the sum."""
  summary: dict[str, float] = {}
  for name in records[0]:
    values = np.array([record[name] for record in records], np.float64)
    chosen = {"overflow": values.max(), "skipped": values.sum()}
    summary[name] = float(chosen.get(name, values.mean()))
  return summary
