"""Corrections of the cameras' poses, fitted together with the Gaussians.

A motion that all views share belongs to the world's frame and not to a view; it is taken out after
every step (`fix_gauge`), so that the scene neither drifts, turns nor grows.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import optax

from jaxsplat_mouse.cameras import Cameras
from jaxsplat_mouse.fit.config import FitConfig
from jaxsplat_mouse.math import quaternion_to_matrix, safe_divide


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class PoseState:
  """Pose corrections of V views and the moments of their optimiser; part of a `FitState`.

  Attributes:
    twists: (V, 6) rotation vector (radians) and shift (world units) of the world as a view sees it;
      zeros change nothing.
    opt_state: Adam's moments.
  """

  twists: jax.Array
  opt_state: optax.OptState


def init_poses(num_views: int, config: FitConfig) -> PoseState | None:
  """Returns the state before the first step; None, which costs nothing, where poses are trusted."""
  if not config.adjusts_poses:
    return None
  twists = jnp.zeros((num_views, 6))
  return PoseState(twists=twists, opt_state=_transformation().init(twists))


def _transformation() -> optax.GradientTransformation:
  """Adam; a view that a step did not draw has no gradient, so both moments remember for long."""
  return optax.scale_by_adam(b1=0.95, b2=0.999, eps=1e-15)


def move_cameras(cameras: Cameras, twists: jax.Array | None) -> Cameras:
  """Returns the cameras (V,) as their corrections (V, 6) place them; None changes nothing."""
  if twists is None:
    return cameras
  matrices = jnp.asarray(cameras.world_to_camera) @ _motions(twists)
  return dataclasses.replace(cameras, world_to_camera=matrices)


def _motions(twists: jax.Array) -> jax.Array:
  """Rigid matrices (V, 4, 4) of small twists (V, 6).

  The quaternion (1, omega / 2) stands for the exponential: equal to second order, smooth at zero.
  """
  half = jnp.concatenate([jnp.ones_like(twists[:, :1]), 0.5 * twists[:, :3]], -1)
  top = jnp.concatenate([quaternion_to_matrix(half), twists[:, 3:, None]], -1)
  last = jnp.broadcast_to(jnp.array([0.0, 0.0, 0.0, 1.0]), (len(twists), 1, 4))
  return jnp.concatenate([top, last], 1)


def update_poses(
  state: PoseState,
  gradient: jax.Array,
  cameras: Cameras,
  real: jax.Array,
  step: jax.Array,
  config: FitConfig,
) -> PoseState:
  """Takes one Adam step, after which the views share no correction.

  Args:
    state: of one scene.
    gradient: (V, 6) of the loss with respect to the twists.
    cameras: (V,) as calibrated.
    real: (V,) 1 for views, 0 for padding.
    step: () steps done; the rate falls as that of the means does.
    config: the rates.

  Returns:
    the state after the step.
  """
  gradient = jnp.where(jnp.isfinite(gradient), gradient, 0.0)
  direction, opt_state = _transformation().update(gradient, state.opt_state)
  decay = jnp.float32(config.lr_position_final) ** (step / config.iterations)
  twists = state.twists - decay * config.pose_rate * direction
  return PoseState(twists=fix_gauge(twists, cameras, real), opt_state=opt_state)


def fix_gauge(twists: jax.Array, cameras: Cameras, real: jax.Array) -> jax.Array:
  """Removes what all views share from their twists (V, 6): a motion of the world and its growth.

  Args:
    twists: (V, 6).
    cameras: (V,) as calibrated.
    real: (V,) 1 for views, 0 for padding.
  """
  centred = _centred(twists, real)
  # Growing the world by s looks the same as moving every camera toward it by s times its centre.
  centers = _centred(jnp.asarray(cameras.centers), real)
  shift = centred[:, 3:]
  growth = safe_divide((shift * centers).sum(), jnp.square(centers).sum())
  return jnp.concatenate([centred[:, :3], shift - growth * centers], -1)


def _centred(rows: jax.Array, real: jax.Array) -> jax.Array:
  """`rows` (V, n) less their mean over the real views; 0 for padding."""
  weight = real[:, None]
  mean = (rows * weight).sum(0) / jnp.maximum(real.sum(), 1.0)
  return (rows - mean) * weight
