"""What each photograph may differ in from its calibration: exposure, pose, focal length.

All of it is a few numbers per view, fitted together with the Gaussians. Corrections that all views
share are no property of a view: they belong to the Gaussians, or to the world's frame, and are
taken out after every step (`fix_gauge`). So the canonical colours are those of the mean camera, and
the scene neither drifts, turns nor grows.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import optax

from jaxsplat_mouse import math as jm
from jaxsplat_mouse.cameras import Cameras
from jaxsplat_mouse.fit.config import FitConfig


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class Adjustments:
  """Deviations of V views from their calibration; zeros change nothing, None is not fitted.

  Attributes:
    exposure: (V, 3, 4) [A - I | b]: a view shows the colour A c + b of what has the colour c.
    twist: (V, 6) rotation vector (radians) and shift (world units) of the world as a view sees it.
    zoom: (V,) logarithm of the factor on both focal lengths.
  """

  exposure: jax.Array | None = None
  twist: jax.Array | None = None
  zoom: jax.Array | None = None


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class AdjustmentState:
  """Adjustments and the moments of their optimiser; part of a `FitState`."""

  values: Adjustments
  opt_state: optax.OptState


def init(num_views: int, config: FitConfig) -> AdjustmentState | None:
  """The state before the first step; None, which costs nothing, where nothing is adjusted."""
  if not config.adjusts_views:
    return None
  values = Adjustments(
    exposure=jnp.zeros((num_views, 3, 4)) if config.exposure else None,
    twist=jnp.zeros((num_views, 6)) if config.pose_rate > 0 else None,
    zoom=jnp.zeros(num_views) if config.focal_rate > 0 else None,
  )
  return AdjustmentState(values=values, opt_state=_transformation().init(values))


def _transformation() -> optax.GradientTransformation:
  """Adam; a view that a step did not draw has no gradient, so both moments remember for long."""
  return optax.scale_by_adam(b1=0.95, b2=0.999, eps=1e-15)


def adjust_cameras(cameras: Cameras, values: Adjustments) -> Cameras:
  """The cameras (V,) as they really stood: world_to_camera [R t; 0 1], focal lengths e^zoom."""
  matrices, intrinsics = jnp.asarray(cameras.world_to_camera), jnp.asarray(cameras.intrinsics)
  if values.twist is not None:
    matrices = matrices @ _motions(values.twist)
  if values.zoom is not None:
    factor = jnp.exp(values.zoom)[:, None]
    intrinsics = intrinsics * jnp.concatenate([factor, factor, *[jnp.ones_like(factor)] * 2], -1)
  return dataclasses.replace(cameras, world_to_camera=matrices, intrinsics=intrinsics)


def _motions(twist: jax.Array) -> jax.Array:
  """Rigid matrices (V, 4, 4) of small twists (V, 6).

  The quaternion (1, omega / 2) stands for the exponential: equal to second order, smooth at zero.
  """
  half = jnp.concatenate([jnp.ones_like(twist[:, :1]), 0.5 * twist[:, :3]], -1)
  top = jnp.concatenate([jm.quaternion_to_matrix(half), twist[:, 3:, None]], -1)
  last = jnp.broadcast_to(jnp.array([0.0, 0.0, 0.0, 1.0]), (len(twist), 1, 4))
  return jnp.concatenate([top, last], 1)


def expose(rgb: jax.Array, alpha: jax.Array, exposure: jax.Array | None) -> jax.Array:
  """Premultiplied colour (H, W, 3) of coverage alpha (H, W) as a view (3, 4) shows it."""
  if exposure is None:
    return rgb
  # A sum over three channels: as a matrix product it would run in low precision on a GPU.
  mixed = sum(rgb[..., i, None] * exposure[:, i] for i in range(3))
  return rgb + mixed + alpha[..., None] * exposure[:, 3]


def penalty(values: Adjustments, real: jax.Array, weight: float) -> jax.Array:
  """Pull of the exposures toward the identity: `weight` times the mean square over real views."""
  if values.exposure is None:
    return jnp.zeros(())
  squared = jnp.square(values.exposure).sum((1, 2))
  return weight * (squared * real).sum() / jnp.maximum(real.sum(), 1.0)


def update(
  state: AdjustmentState,
  gradient: Adjustments,
  cameras: Cameras,
  real: jax.Array,
  decay: jax.Array,
  config: FitConfig,
) -> AdjustmentState:
  """One Adam step, after which the views share no correction.

  Args:
    state: of one scene.
    gradient: of the loss.
    cameras: (V,) as calibrated.
    real: (V,) 1 for views, 0 for padding.
    decay: () factor on all rates, falling during a fit.
    config: the rates.
  """
  gradient = jax.tree.map(lambda g: jnp.where(jnp.isfinite(g), g, 0.0), gradient)
  direction, opt_state = _transformation().update(gradient, state.opt_state)
  rates = {"exposure": config.exposure_rate, "twist": config.pose_rate, "zoom": config.focal_rate}
  moved = {
    name: value - decay * rates[name] * getattr(direction, name)
    for name in rates
    if (value := getattr(state.values, name)) is not None
  }
  values = fix_gauge(dataclasses.replace(state.values, **moved), cameras, real)
  return AdjustmentState(values=values, opt_state=opt_state)


def fix_gauge(values: Adjustments, cameras: Cameras, real: jax.Array) -> Adjustments:
  """Takes out what all views share: colour, motion of the world, its size, zoom."""
  centred = jax.tree.map(lambda leaf: _centred(leaf, real), values)
  if centred.twist is None:
    return centred
  # Growing the world by s looks the same as moving every camera toward it by s times its centre.
  centers = _centred(jnp.asarray(cameras.centers), real)
  shift = centred.twist[:, 3:]
  growth = jm.safe_divide((shift * centers).sum(), jnp.square(centers).sum())
  twist = jnp.concatenate([centred.twist[:, :3], shift - growth * centers], -1)
  return dataclasses.replace(centred, twist=twist)


def _centred(leaf: jax.Array, real: jax.Array) -> jax.Array:
  """`leaf` (V, ...) less its mean over the real views; 0 for padding."""
  weight = real.reshape(real.shape + (1,) * (leaf.ndim - 1))
  mean = (leaf * weight).sum(0) / jnp.maximum(real.sum(), 1.0)
  return (leaf - mean) * weight


def rate_decay(config: FitConfig, step: jax.Array) -> jax.Array:
  """Factor on the rates at a step: they fall as that of the positions does."""
  return jnp.float32(config.lr_position_final) ** (step / config.iterations)
