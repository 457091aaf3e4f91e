"""The loop of a fit: a state, one step of one scene, and chunks of steps of a batch of scenes."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp

from jaxsplat_mouse import density, optimizer
from jaxsplat_mouse.fit import inexact_fits
from jaxsplat_mouse.fit.config import FitConfig
from jaxsplat_mouse.fit.novel_normals import novel_normal_loss
from jaxsplat_mouse.fit.objective import (
  Problem,
  draw_views,
  loss,
  problem_at,
  real_views,
  regularizer,
)
from jaxsplat_mouse.fit.poses import PoseState, init_poses, move_cameras, update_poses
from jaxsplat_mouse.gaussians import Gaussians
from jaxsplat_mouse.scene import Scene

_MIN_OPACITY = 0.005  # a Gaussian at or below it is dead and is relocated (Kheradmand et al. 2024)
_RELOCATE_UNTIL = 0.85  # fraction of the iterations: the last relocations need steps to settle
_MAX_ANISOTROPY = 10.0  # of the two largest axes: needles flip between views
# Smallest standard deviation of a disc's axes and of an ellipsoid's two larger ones, pixels at the
# scene's origin. The screen-space filter shows a splat however small it is: with a filter as wide
# as the papers', the scale pressure shrinks splats to dots that cover nothing between the views.
_MIN_SCALE = 0.7
_RELOCATION_SEED = 0x5EED  # keeps the numbers of relocations apart from those of steps
_NOVEL_VIEW = 5  # folded into a step's key for the view that no camera took


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
    poses: corrections of the cameras; None where poses are trusted.
    average: (N,) mean of the Gaussians over the last steps (Polyak and Juditsky 1992); before these
      the Gaussians themselves; None where nothing is averaged.
  """

  step: jax.Array
  seed: jax.Array
  gaussians: Gaussians
  alive: jax.Array
  opt_state: Any
  overflow: jax.Array
  poses: PoseState | None = None
  average: Gaussians | None = None

  @property
  def result(self) -> Gaussians:
    """(N,) what the fit returns: steadier than where its last, random step happened to end."""
    return self.gaussians if self.average is None else self.average


def init_state(
  gaussians: Gaussians, seed: int | jax.Array, num_views: int, config: FitConfig
) -> FitState:
  """Returns the state of one scene before its first step.

  Args:
    gaussians: (N,) to start from.
    seed: of every random number, 32 bits.
    num_views: V, padding included.
    config: whether poses are fitted and splats averaged.
  """
  return FitState(
    step=jnp.zeros((), jnp.int32),
    seed=jnp.asarray(seed, jnp.uint32),
    gaussians=gaussians,
    alive=jnp.ones(gaussians.means.shape[0], bool),
    opt_state=optimizer.init(gaussians),
    overflow=jnp.zeros((), jnp.int32),
    poses=init_poses(num_views, config),
    average=gaussians if config.average_from < 1 else None,
  )


def step(
  state: FitState, problem: Problem, config: FitConfig, geometry: bool
) -> tuple[FitState, dict[str, jax.Array]]:
  """Takes one optimisation step of one scene.

  Args:
    state: before the step.
    problem: what the fit minimises at the stage's resolution.
    config: the recipe.
    geometry: whether depth and normals have losses, as in `schedule.Stage`.

  Returns:
    the state after the step, and the losses () by name.
  """
  gradient, by_twist, metrics = _gradient(state, problem, config, geometry)
  gaussians, opt_state = optimizer.update(
    state.gaussians, gradient, state.opt_state, config.rates, state.step, config.iterations
  )
  gaussians = inexact_fits.fade_opacity(gaussians, problem.inexact, config)
  if config.noise > 0:
    rate = optimizer.position_rate(config.rates, state.step, config.iterations)
    gaussians = density.explore(gaussians, _step_keys(state)[2], config.noise * rate)
  gaussians = density.limit_shape(
    gaussians, _MIN_SCALE * problem.footprint, config.max_scale, _MAX_ANISOTROPY
  )
  poses = state.poses
  if poses is not None:
    real = real_views(problem.views)
    poses = update_poses(poses, by_twist, problem.views.cameras, real, state.step, config)
    poses = inexact_fits.hold_exact(poses, problem.inexact)
  state = dataclasses.replace(
    state,
    step=state.step + 1,
    gaussians=gaussians,
    opt_state=opt_state,
    overflow=jnp.maximum(state.overflow, metrics["overflow"]),
    poses=poses,
    average=_average(state, gaussians, config),
  )
  return state, metrics


def _step_keys(state: FitState) -> jax.Array:
  """Keys of a step: of its views, backgrounds, noise and dropout."""
  return jax.random.split(_step_key(state), 4)


def _step_key(state: FitState) -> jax.Array:
  return jax.random.fold_in(jax.random.key(state.seed), state.step)


def _gradient(
  state: FitState, problem: Problem, config: FitConfig, geometry: bool
) -> tuple[Gaussians, jax.Array | None, dict[str, jax.Array]]:
  """Gradients of all losses by the Gaussians and by the twists, and the losses by name."""
  view_key, background_key, _, drop_key = _step_keys(state)
  shown = state.alive & (jax.random.uniform(drop_key, state.alive.shape) >= config.dropout)

  def objective(
    gaussians: Gaussians, twists: jax.Array | None
  ) -> tuple[jax.Array, dict[str, jax.Array]]:
    cameras = move_cameras(problem.views.cameras, twists)
    moved = dataclasses.replace(problem.views, cameras=cameras)
    views = draw_views(moved, view_key, config.views_per_step)
    backgrounds = jnp.ones((views.alphas.shape[0], 3))
    if config.random_background:
      backgrounds = jax.random.uniform(background_key, backgrounds.shape)
    total, parts = loss(gaussians, shown, views, backgrounds, problem, config, geometry)
    if geometry:
      novel_key = jax.random.fold_in(_step_key(state), _NOVEL_VIEW)
      novel, overflow = novel_normal_loss(gaussians, shown, problem.filter_width, novel_key, config)
      total += novel
      parts["overflow"] = jnp.maximum(parts["overflow"], overflow)
    return total, {**parts, "loss": total}

  twists = state.poses.twists if state.poses else None
  (gradient, by_twist), metrics = jax.grad(objective, (0, 1), has_aux=True)(state.gaussians, twists)
  pressure = jax.grad(regularizer)(state.gaussians, state.alive, config, problem.inexact)
  return jax.tree.map(jnp.add, gradient, pressure), by_twist, metrics


def _average(state: FitState, gaussians: Gaussians, config: FitConfig) -> Gaussians | None:
  """The mean over the last steps with one more, given the state before it."""
  if state.average is None:
    return None
  count = state.step + 1 - int(config.average_from * config.iterations)
  weight = 1.0 / jnp.maximum(count, 1).astype(jnp.float32)
  mix = lambda mean, now: jnp.where(count <= 1, now, mean + weight * (now - mean))
  return jax.tree.map(mix, state.average, gaussians)


def _relocate(state: FitState, config: FitConfig) -> FitState:
  """Relocates dead Gaussians during the first `_RELOCATE_UNTIL` of the iterations."""
  key = jax.random.fold_in(jax.random.key(state.seed ^ jnp.uint32(_RELOCATION_SEED)), state.step)
  moved, rows = density.relocate(state.gaussians, state.alive, key, _MIN_OPACITY)
  changed = (moved, optimizer.reset_rows(state.opt_state, rows))
  kept = (state.gaussians, state.opt_state)
  due = state.step <= _RELOCATE_UNTIL * config.iterations
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
    config: the recipe.
    resolution: downsampling of the views, that of the stage.
    num_steps: steps to take; a chunk that starts and ends on whole relocation periods computes
      the same as several chunks in a row.
    geometry: whether depth and normals have losses, that of the stage.

  Returns:
    the state, and the losses (B, num_steps) by name.
  """

  def run(state: FitState, scene: Scene) -> tuple[FitState, dict[str, jax.Array]]:
    return _scene_chunk(state, scene, config, resolution, num_steps, geometry)

  return jax.vmap(run)(state, scenes)
