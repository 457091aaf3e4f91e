"""Fit states and how they advance: `init`, `step`, chunks of steps, batches of scenes."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxsplat_mouse import density, optimizer
from jaxsplat_mouse.fit.config import FitConfig, Stage, chunks
from jaxsplat_mouse.fit.hull_views import hull_loss
from jaxsplat_mouse.fit.novel_normals import novel_loss
from jaxsplat_mouse.fit.objective import (
  Problem,
  adjusted,
  draw_views,
  filter_width,
  loss,
  problem_at,
  regularizer,
)
from jaxsplat_mouse.fit.poses import Adjustments, AdjustmentState, init, penalty, rate_decay, update
from jaxsplat_mouse.fit.start import start_batch
from jaxsplat_mouse.gaussians import Gaussians, mask
from jaxsplat_mouse.scene import Scene, crop_shape, crop_views, stack_scenes

_LONGEST_CHUNK = 250  # steps that `fit_scenes` does again where splats found no room


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class FitState:
  """All that changes during a fit; a pytree of one scene, or of a batch with a leading axis.

  Attributes:
    step: () int32, steps done.
    seed: () uint32; every random number is a function of it and of the step.
    gaussians: (N,).
    alive: (N,) bool, False for unused slots.
    opt_state: Adam's moments.
    overflow: () int32, most intersections that ever found no room in one view.
    adjustments: what the views differ in from their calibration; None where that is not fitted.
    average: (N,) mean of the Gaussians over the last steps (Polyak and Juditsky 1992), themselves
      before these; None where nothing is averaged.
  """

  step: jax.Array
  seed: jax.Array
  gaussians: Gaussians
  alive: jax.Array
  opt_state: Any
  overflow: jax.Array
  adjustments: AdjustmentState | None = None
  average: Gaussians | None = None

  @property
  def result(self) -> Gaussians:
    """(N,) what the fit gives: steadier than where its last, random step happened to end."""
    return self.gaussians if self.average is None else self.average


def init_state(
  gaussians: Gaussians,
  seed: int | jax.Array = 0,
  num_views: int = 0,
  config: FitConfig | None = None,
) -> FitState:
  """The state before the first step, of one scene.

  Args:
    gaussians: (N,) to start from.
    seed: of every random number.
    num_views: V, padding included; with `config`, for what is fitted of the views themselves.
    config: how to fit; needed where it adjusts views or averages.
  """
  return FitState(
    step=jnp.zeros((), jnp.int32),
    seed=jnp.asarray(seed, jnp.uint32),
    gaussians=gaussians,
    alive=jnp.ones(gaussians.means.shape[0], bool),
    opt_state=optimizer.init(gaussians),
    overflow=jnp.zeros((), jnp.int32),
    adjustments=init(num_views, config) if config else None,
    average=gaussians if config and config.average_from < 1 else None,
  )


def step(
  state: FitState, problem: Problem, config: FitConfig, geometry: bool
) -> tuple[FitState, dict[str, jax.Array]]:
  """One optimisation step of one scene; `geometry` as in `Stage`."""
  key = jax.random.fold_in(jax.random.key(state.seed), state.step)
  view_key, background_key, noise_key, drop_key = jax.random.split(key, 4)
  hull_key, novel_key = (jax.random.fold_in(key, i) for i in (4, 5))
  shown = state.alive & (jax.random.uniform(drop_key, state.alive.shape) >= config.dropout)

  def objective(
    gaussians: Gaussians, values: Adjustments | None
  ) -> tuple[jax.Array, dict[str, jax.Array]]:
    views = draw_views(adjusted(problem.views, values), view_key, config.views_per_step)
    backgrounds = jnp.ones((views.alphas.shape[0], 3))
    if config.random_background:
      backgrounds = jax.random.uniform(background_key, backgrounds.shape)
    total, parts = loss(gaussians, shown, views, backgrounds, problem, config, geometry)
    total += hull_loss(gaussians, shown, problem.hull_views, hull_key, config)
    if geometry:
      novel, overflow = novel_loss(gaussians, shown, problem.filter_width, novel_key, config)
      total += novel
      parts["overflow"] = jnp.maximum(parts["overflow"], overflow)
    return total, {**parts, "loss": total}

  values = state.adjustments.values if state.adjustments else None
  (gradient, by_view), metrics = jax.grad(objective, (0, 1), has_aux=True)(state.gaussians, values)
  matters = jnp.abs(gradient.logit_opacities) > config.spare
  pressure = _press(state.gaussians, state.alive, matters, config)
  gradient = jax.tree.map(jnp.add, gradient, pressure)
  gaussians, opt_state = optimizer.update(
    state.gaussians, gradient, state.opt_state, config.rates, state.step, config.iterations
  )
  if config.opacity_decay < 1.0:
    gaussians = density.decay_opacity(gaussians, config.opacity_decay)
  if config.noise > 0:
    rate = optimizer.position_rate(config.rates, state.step, config.iterations)
    gaussians = density.explore(gaussians, noise_key, config.noise * rate)
  gaussians = density.limit_shape(
    gaussians, config.min_scale * problem.footprint, config.max_scale, config.max_anisotropy
  )
  state = dataclasses.replace(
    state,
    step=state.step + 1,
    gaussians=gaussians,
    opt_state=opt_state,
    overflow=jnp.maximum(state.overflow, metrics["overflow"]),
    adjustments=_adjust(state, problem, by_view, config),
    average=_average(state, gaussians, config),
  )
  return state, metrics


def _average(state: FitState, gaussians: Gaussians, config: FitConfig) -> Gaussians | None:
  """The mean over the last steps with one more, given the state before it."""
  if state.average is None:
    return None
  count = state.step + 1 - int(config.average_from * config.iterations)
  weight = 1.0 / jnp.maximum(count, 1).astype(jnp.float32)
  mix = lambda mean, now: jnp.where(count <= 1, now, mean + weight * (now - mean))
  return jax.tree.map(mix, state.average, gaussians)


def _press(
  gaussians: Gaussians, alive: jax.Array, pressed: jax.Array, config: FitConfig
) -> Gaussians:
  """Gradient of the regulariser, where pressed (N,); the weights are those for all alive (N,)."""
  gradient = jax.grad(regularizer)(gaussians, alive, config)
  if config.spare <= 0:
    return gradient
  row = lambda leaf: pressed.reshape(pressed.shape + (1,) * (leaf.ndim - 1))
  return jax.tree.map(lambda leaf: jnp.where(row(leaf), leaf, 0.0), gradient)


def _adjust(
  state: FitState, problem: Problem, gradient: Adjustments | None, config: FitConfig
) -> AdjustmentState | None:
  """One step of what is fitted of the views, given the state before the step."""
  if state.adjustments is None:
    return None
  real = (problem.views.observed.max((1, 2)) > 0).astype(jnp.float32)
  pull = jax.grad(penalty)(state.adjustments.values, real, config.exposure_weight)
  gradient = jax.tree.map(jnp.add, gradient, pull)
  decay = rate_decay(config, state.step)
  cameras = problem.views.cameras
  return update(state.adjustments, gradient, cameras, real, decay, config)


def _relocate(state: FitState, config: FitConfig) -> FitState:
  """Relocates dead Gaussians, until `relocate_until`."""
  key = jax.random.fold_in(jax.random.key(state.seed ^ jnp.uint32(0x5EED)), state.step)
  moved, rows = density.relocate(state.gaussians, state.alive, key, config.min_opacity)
  changed = (moved, optimizer.reset_rows(state.opt_state, rows))
  kept = (state.gaussians, state.opt_state)
  due = state.step <= config.relocate_until * config.iterations
  gaussians, opt_state = jax.tree.map(lambda a, b: jnp.where(due, a, b), changed, kept)
  return dataclasses.replace(state, gaussians=gaussians, opt_state=opt_state)


def _scene_chunk(
  state: FitState, scene: Scene, config: FitConfig, resolution: int, num_steps: int, geometry: bool
) -> tuple[FitState, dict[str, jax.Array]]:
  """`num_steps` steps of one scene, with a relocation after every whole period."""
  problem = problem_at(scene, resolution, config)

  def one(state: FitState, _: None) -> tuple[FitState, dict[str, jax.Array]]:
    return step(state, problem, config, geometry)

  def period(state: FitState, _: None) -> tuple[FitState, dict[str, jax.Array]]:
    state, metrics = jax.lax.scan(one, state, None, config.relocate_every)
    return _relocate(state, config), metrics

  if config.relocate_every <= 0:
    return jax.lax.scan(one, state, None, num_steps)
  whole, rest = divmod(num_steps, config.relocate_every)
  state, metrics = jax.lax.scan(period, state, None, whole)
  metrics = jax.tree.map(lambda m: m.reshape(-1), metrics)
  if rest:
    state, tail = jax.lax.scan(one, state, None, rest)
    metrics = jax.tree.map(lambda a, b: jnp.concatenate([a, b]), metrics, tail)
  return state, metrics


@functools.partial(jax.jit, static_argnums=(2, 3, 4, 5))
def run_chunk(
  state: FitState,
  scenes: Scene,
  config: FitConfig,
  resolution: int,
  num_steps: int,
  geometry: bool,
) -> tuple[FitState, dict[str, jax.Array]]:
  """Steps a batch of scenes together.

  Args:
    state: batch (B, ...), all at the same step.
    scenes: batch (B, V, ...) of one image shape.
    config: how to fit.
    resolution: downsampling of the views, that of the stage.
    num_steps: steps to take; a chunk that starts and ends on whole relocation periods does
      the same as several chunks in a row.
    geometry: whether depth and normals have losses, that of the stage.

  Returns:
    the state, and metrics (B, num_steps) by name.
  """

  def run(state: FitState, scene: Scene) -> tuple[FitState, dict[str, jax.Array]]:
    return _scene_chunk(state, scene, config, resolution, num_steps, geometry)

  return jax.vmap(run)(state, scenes)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Fit:
  """What came of one scene.

  Attributes:
    gaussians: (N,) in the scene's frame, numpy.
    losses: (iterations,) total loss by step.
    filter_width: with which `render` shows the Gaussians as the fit saw them.
  """

  gaussians: Gaussians
  losses: np.ndarray
  filter_width: float


def fit_scenes(scenes: list[Scene], config: FitConfig, seed: int = 0) -> list[Fit]:
  """Fits several scenes as one batch, cropped to one shape.

  Args:
    scenes: in their canonical frames; view counts may differ.
    config: how.
    seed: scene i draws its random numbers from seed + i.

  Raises:
    ValueError: a scene's silhouettes admit no common solid; the message says which scene.
  """
  shape = crop_shape(scenes)
  batch = jax.tree.map(jnp.asarray, stack_scenes([crop_views(scene, shape) for scene in scenes]))
  seeds = jnp.arange(seed, seed + len(scenes), dtype=jnp.uint32)
  batch, gaussians = start_batch(batch, seeds, config)
  for index in range(len(scenes)):
    if not all(bool(np.isfinite(leaf[index]).all()) for leaf in jax.tree.leaves(gaussians)):
      raise ValueError(f"scene {index}: no solid fits its silhouettes; check its cameras and masks")
  start = functools.partial(init_state, num_views=batch.view_mask.shape[1], config=config)
  state = jax.vmap(start)(gaussians, seeds)
  records = []
  for part in chunks(config, _LONGEST_CHUNK):
    state, metrics, config = _advance(state, batch, config, part)
    records.append(np.asarray(metrics["loss"]))
  record = np.concatenate(records, -1)
  shown = jax.tree.map(np.asarray, jax.vmap(mask)(state.result, state.alive))
  widths = [float(filter_width(scene, config)) for scene in scenes]
  return [
    Fit(gaussians=unstack(shown, i), losses=record[i], filter_width=widths[i])
    for i in range(len(scenes))
  ]


def _advance(
  state: FitState, scenes: Scene, config: FitConfig, part: Stage
) -> tuple[FitState, dict[str, jax.Array], FitConfig]:
  """One chunk, again with more room for as long as splats do not find any."""
  while True:
    after, metrics = run_chunk(state, scenes, config, *part.program)
    if int(after.overflow.max()) == 0:
      return after, metrics, config
    config = dataclasses.replace(config, tile_entries=1.5 * config.tile_entries)


def fit_scene(scene: Scene, config: FitConfig, seed: int = 0) -> Fit:
  """Fits one scene; see `fit_scenes`."""
  return fit_scenes([scene], config, seed)[0]


def unstack(batch: Any, index: int) -> Any:
  """One scene out of a batch, as numpy."""
  return jax.tree.map(lambda leaf: np.asarray(leaf[index]), batch)
