"""Takes a training from any step to the last, on the devices of one host.

Steps are launched one after the other and only looked at every `saving.every` steps, so that the
devices never wait for the host. Where splats found no room in the tile lists, the steps since were
not taken; they are counted, and the next ones have half as much room more.
"""

from __future__ import annotations

import dataclasses
import math
import time
from collections.abc import Callable, Mapping, Sequence

import jax
import numpy as np
from jax.sharding import Mesh

from jaxsplat_mouse.learn.gslrm.reconstruction import count_splats, usual_capacity
from jaxsplat_mouse.learn.training.train_step import (
  TrainingState,
  replicate,
  split_slots,
  take_step,
)
from jaxsplat_mouse.learn.training.training_data import Mixture
from jaxsplat_mouse.learn.training.training_recipe import SavingRecipe, TrainingRecipe

_GROWTH = 1.5


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

  def __init__(self, recipe: TrainingRecipe, mixture: Mixture, mesh: Mesh):
    """Copies the data to every device.

    Args:
      recipe: of the training.
      mixture: what is learnt from.
      mesh: of `train_step.local_mesh`.
    """
    self._recipe, self._mesh = recipe, mesh
    # What a step does not depend on would compile it again.
    data = dataclasses.replace(recipe.data, held_out="")
    self._of_step = dataclasses.replace(recipe, weights="", data=data, saving=SavingRecipe())
    self._shares = tuple(mixture.weights)
    self._scenes = replicate(tuple(mixture.scenes), mesh)
    self._slots = split_slots(recipe.optimizer.batch, mesh)

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
      means = summarize(jax.device_get(records))
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


def summarize(records: Sequence[Mapping[str, np.ndarray]]) -> dict[str, float]:
  """Returns means of records by name; of `overflow` the largest, of `skipped` the sum.

  Numbers that are not finite, of steps that were not taken, do not count; NaN where none is.
  """
  summary: dict[str, float] = {}
  for name in records[0]:
    values = np.array([record[name] for record in records], np.float64)
    finite = values[np.isfinite(values)]
    mean = finite.mean() if finite.size else np.nan
    chosen = {"overflow": values.max(), "skipped": values.sum()}
    summary[name] = float(chosen.get(name, mean))
  return summary
