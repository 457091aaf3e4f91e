"""Adam with one learning rate per field; moments can be reset when Gaussians are relocated."""

from __future__ import annotations

import dataclasses
from typing import TypeVar

import jax
import jax.numpy as jnp
import optax

from jaxsplat_mouse.gaussians import Gaussians

G = TypeVar("G", bound=Gaussians)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rates:
  """Learning rates per step.

  Attributes:
    position: of the means, in canonical units (the animal's radius is just below 1).
    position_final: the rate of the means at the last step, as a fraction of the first; the decay in
      between is exponential.
    feature: of the SH coefficients of degree 0.
    bands: of those of higher degrees, as a fraction of `feature` (1/20 in Kerbl et al. 2023).
    opacity: of the logits.
    scaling: of the log scales.
    rotation: of the quaternions.
  """

  position: float
  position_final: float
  feature: float
  bands: float
  opacity: float
  scaling: float
  rotation: float


def transformation() -> optax.GradientTransformation:
  """Returns Adam's preconditioner; epsilon as in Kerbl et al. 2023: splat gradients are tiny."""
  return optax.scale_by_adam(b1=0.9, b2=0.999, eps=1e-15)


def init(gaussians: Gaussians) -> optax.OptState:
  """Returns the state of the first step: all moments are zero."""
  return transformation().init(gaussians)


def position_rate(rates: Rates, step: jax.Array, num_steps: int) -> jax.Array:
  """Returns the learning rate () of the means at a step.

  Args:
    rates: first and last rate.
    step: () int.
    num_steps: steps of the whole fit.
  """
  schedule = optax.exponential_decay(
    rates.position,
    max(num_steps, 1),
    rates.position_final,
    end_value=rates.position * rates.position_final,
  )
  return jnp.asarray(schedule(step), jnp.float32)


def update(
  gaussians: G,
  gradient: G,
  state: optax.OptState,
  rates: Rates,
  step: jax.Array,
  num_steps: int,
) -> tuple[G, optax.OptState]:
  """Takes one Adam step; elements of the gradient that are not finite count as zero.

  Args:
    gaussians: (N,).
    gradient: of the loss with respect to `gaussians`.
    state: from `init` or the previous step.
    rates: learning rates.
    step: () int.
    num_steps: steps of the whole fit.

  Returns:
    the updated Gaussians and the state of the next step.
  """
  gradient = jax.tree.map(lambda g: jnp.where(jnp.isfinite(g), g, 0.0), gradient)
  direction, state = transformation().update(gradient, state)
  higher = jnp.full((gaussians.sh.shape[-2] - 1, 1), rates.bands)
  bands = jnp.concatenate([jnp.ones((1, 1)), higher])
  scale = type(gaussians)(
    means=position_rate(rates, step, num_steps),
    log_scales=rates.scaling,
    quats=rates.rotation,
    logit_opacities=rates.opacity,
    sh=rates.feature * bands,
  )
  updates = jax.tree.map(lambda d, s: -s * d, direction, scale)
  return optax.apply_updates(gaussians, updates), state


def reset_rows(state: optax.OptState, rows: jax.Array) -> optax.OptState:
  """Sets the moments of the Gaussians that `rows` (N,) bool marks to zero."""

  def clear(leaf: jax.Array) -> jax.Array:
    if leaf.ndim == 0:
      return leaf
    return jnp.where(rows.reshape(rows.shape + (1,) * (leaf.ndim - 1)), 0.0, leaf)

  return jax.tree.map(clear, state)
