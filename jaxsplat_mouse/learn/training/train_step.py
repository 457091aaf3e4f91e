"""One step of a training, on all devices of a host.

Every device draws its own slots of the step's batch and renders them; gradients are averaged, and
every device makes the same update. The step is one `shard_map` and is never left to the compiler's
own partitioning, which cannot split Pallas' kernels.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxsplat_mouse.learn.gslrm.reconstruction import init_parameters
from jaxsplat_mouse.learn.gslrm.supervision import LossWeights, supervised_loss
from jaxsplat_mouse.learn.gslrm.tokens import PosedImages
from jaxsplat_mouse.learn.training.sampler import TrainingBatch, ViewCounts, draw_batch
from jaxsplat_mouse.learn.training.scenes import TrainingScenes
from jaxsplat_mouse.learn.training.training_recipe import OptimizerRecipe, TrainingRecipe

_AXIS = "data"
_WORST = ("overflow",)  # of the record, what is the largest of all devices and not their mean
_COUNTED = ("dropped_tokens", "dropped_splats")  # what is their sum


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainingState:
  """All that changes during a training.

  Attributes:
    step: () int32, steps done, those that were not taken included.
    parameters: of the network.
    moments: Adam's.
    average: running mean of the parameters: the result.
    skipped: () int32, steps whose gradient was not finite or too long.
    overflowed: () int32, steps whose images had no room for all splats; they were not taken either.
  """

  step: jax.Array
  parameters: Any
  moments: Any
  average: Any
  skipped: jax.Array
  overflowed: jax.Array


def first_state(recipe: TrainingRecipe, parameters: Any = None) -> TrainingState:
  """Returns the state before the first step.

  Args:
    recipe: its seed draws the parameters where none are given.
    parameters: to start from.
  """
  if parameters is None:
    parameters = init_parameters(recipe.architecture, jax.random.key(recipe.seed))
  parameters = jax.tree.map(jnp.asarray, parameters)
  zero = lambda: jnp.zeros((), jnp.int32)
  return TrainingState(  # every leaf with a buffer of its own: steps give them away
    step=zero(),
    parameters=parameters,
    moments=_transformation(recipe.optimizer).init(parameters),
    average=jax.tree.map(jnp.copy, parameters),
    skipped=zero(),
    overflowed=zero(),
  )


def learning_rate(recipe: OptimizerRecipe, step: jax.Array) -> jax.Array:
  """Returns the rate () of a step: up in a line, then down in half a cosine."""
  schedule = optax.warmup_cosine_decay_schedule(
    0.0,
    recipe.rate,
    min(recipe.warmup, max(recipe.steps - 1, 1)),
    recipe.steps,
    recipe.final_rate * recipe.rate,
  )
  return schedule(step + 1)


def _transformation(recipe: OptimizerRecipe) -> optax.GradientTransformation:
  """AdamW without the rate, which follows the state's own step."""
  return optax.chain(
    optax.clip_by_global_norm(recipe.clip),
    optax.scale_by_adam(b1=0.9, b2=0.95),
    optax.add_decayed_weights(recipe.decay, mask=_matrices),
  )


def _matrices(parameters: Any) -> Any:
  """Which parameters decay. Norms do not, though stacked blocks give theirs two axes."""
  return jax.tree_util.tree_map_with_path(lambda path, _: path[-1].key == "kernel", parameters)


def local_mesh(devices: Sequence[Any], batch: int) -> Mesh:
  """Returns the devices as the axis over which a batch is split.

  Args:
    devices: of this host.
    batch: samples of a step.

  Raises:
    ValueError: they cannot share the batch evenly.
  """
  if batch % len(devices):
    problem = f"optimizer.batch: {batch}, expected a multiple of the {len(devices)} devices"
    raise ValueError(problem)
  return Mesh(np.array(devices), (_AXIS,))


def replicate(tree: Any, mesh: Mesh) -> Any:
  """Puts a tree of arrays on every device."""
  return jax.device_put(tree, NamedSharding(mesh, PartitionSpec()))


def split_slots(batch: int, mesh: Mesh) -> jax.Array:
  """Returns the numbers (batch,) of a step's samples, each device's own on it."""
  split = NamedSharding(mesh, PartitionSpec(_AXIS))
  return jax.device_put(jnp.arange(batch, dtype=jnp.int32), split)


@functools.partial(
  jax.jit, static_argnames=("recipe", "shares", "mesh", "weights", "capacity"), donate_argnums=0
)
def take_step(
  state: TrainingState,
  mixture: tuple[TrainingScenes, ...],
  slots: jax.Array,
  *,
  recipe: TrainingRecipe,
  shares: tuple[float, ...],
  mesh: Mesh,
  weights: LossWeights,
  capacity: int,
) -> tuple[TrainingState, dict[str, jax.Array]]:
  """Takes a step of a training.

  Args:
    state: on every device; it is given away.
    mixture: datasets, on every device.
    slots: of `split_slots`.
    recipe: of the training.
    shares: weights of the datasets.
    mesh: of `local_mesh`.
    weights: of the losses.
    capacity: splat-tile intersections kept per image.

  Returns:
    the next state, and the record () by name.
  """
  inner = functools.partial(
    _step_on_device, recipe=recipe, shares=shares, weights=weights, capacity=capacity
  )
  everywhere = PartitionSpec()
  # check_vma: the rasterizer's loops and kernels do not say over which axis they vary.
  mapped = jax.shard_map(
    inner,
    mesh=mesh,
    in_specs=(everywhere, everywhere, PartitionSpec(_AXIS)),
    out_specs=everywhere,
    check_vma=False,
  )
  return mapped(state, mixture, slots)


def _step_on_device(
  state: TrainingState,
  mixture: Sequence[TrainingScenes],
  slots: jax.Array,
  *,
  recipe: TrainingRecipe,
  shares: tuple[float, ...],
  weights: LossWeights,
  capacity: int,
) -> tuple[TrainingState, dict[str, jax.Array]]:
  """The share of one device; all of them return the same."""
  data = recipe.data
  counts = ViewCounts(inputs=data.inputs, total=data.views)
  seed = jnp.asarray(recipe.seed, jnp.uint32)
  batch = draw_batch(mixture, shares, seed, state.step, slots, counts, augments=data.augments)
  gradient_of = jax.value_and_grad(supervised_loss, has_aux=True)
  (_, record), gradient = gradient_of(
    state.parameters, as_images(batch), data.inputs, recipe.architecture, weights, capacity
  )
  gradient = jax.lax.pmean(gradient, _AXIS)
  record = {name: _gathered(name, value) for name, value in record.items()}
  return _update(state, gradient, record, recipe.optimizer)


def as_images(batch: TrainingBatch) -> PosedImages:
  """Returns the samples as the network takes them."""
  return PosedImages(rgba=batch.rgba, cameras=batch.cameras)


def _gathered(name: str, value: jax.Array) -> jax.Array:
  """A number of the record over all devices."""
  if name in _WORST:
    return jax.lax.pmax(value, _AXIS)
  return jax.lax.psum(value, _AXIS) if name in _COUNTED else jax.lax.pmean(value, _AXIS)


def _update(
  state: TrainingState,
  gradient: Any,
  record: dict[str, jax.Array],
  recipe: OptimizerRecipe,
) -> tuple[TrainingState, dict[str, jax.Array]]:
  """Takes the step, unless its gradient would do harm."""
  norm = jnp.sqrt(sum((leaf**2).sum() for leaf in jax.tree.leaves(gradient)))
  sound = jnp.isfinite(record["loss"]) & (norm <= recipe.skip_above)  # false for NaN
  whole = record["overflow"] == 0
  change, moments = _transformation(recipe).update(gradient, state.moments, state.parameters)
  rate = learning_rate(recipe, state.step)
  parameters = jax.tree.map(lambda p, c: p - rate * c, state.parameters, change)
  # The mean forgets the first parameters as fast as a mean over all steps would.
  keep = jnp.minimum(recipe.averaging, (1.0 + state.step) / (10.0 + state.step))
  average = jax.tree.map(lambda a, p: keep * a + (1.0 - keep) * p, state.average, parameters)
  choose = lambda new, old: jax.tree.map(lambda a, b: jnp.where(sound & whole, a, b), new, old)
  after = TrainingState(
    step=state.step + 1,
    parameters=choose(parameters, state.parameters),
    moments=choose(moments, state.moments),
    average=choose(average, state.average),
    skipped=state.skipped + ~sound,
    overflowed=state.overflowed + (sound & ~whole),
  )
  return after, {**record, "gradient": norm, "rate": rate, "skipped": ~sound}
