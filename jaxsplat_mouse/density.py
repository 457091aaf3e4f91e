"""Density control at a fixed number of Gaussians: relocation, exploration noise, opacity decay.

Kheradmand et al. 2024 ("3D Gaussian Splatting as Markov Chain Monte Carlo") treat the splats as
samples: faint ones move to where opaque ones are, in a way that leaves the image as it was, and
noise along each splat's own covariance lets the faint ones explore. No array changes its shape.
"""

from __future__ import annotations

import dataclasses
from typing import TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from jaxsplat_mouse.gaussians import Gaussians, Gaussians2D, opacities
from jaxsplat_mouse.math import logit, quaternion_columns

G = TypeVar("G", bound=Gaussians)

_MAX_COPIES = 16


def _binomial_terms() -> np.ndarray:
  """Returns (-1)^k C(i, k) / sqrt(k + 1), summed over i < n: row n - 1, column k."""
  rows = np.zeros((_MAX_COPIES, _MAX_COPIES))
  choose = np.zeros((_MAX_COPIES, _MAX_COPIES))
  choose[:, 0] = 1
  for i in range(1, _MAX_COPIES):
    for k in range(1, i + 1):
      choose[i, k] = choose[i - 1, k - 1] + choose[i - 1, k]
  signs = (-1.0) ** np.arange(_MAX_COPIES) / np.sqrt(np.arange(_MAX_COPIES) + 1.0)
  rows[:] = np.cumsum(choose * signs, 0)
  return rows


_TERMS = _binomial_terms()


def split_opacity(opacity: jax.Array, copies: jax.Array) -> tuple[jax.Array, jax.Array]:
  """Returns opacity and relative size (N,) of `copies` splats that together look like one.

  Kheradmand et al. 2024, eq. 9: o' = 1 - (1 - o)^(1/n), and the size that keeps the integral along
  a ray.

  Args:
    opacity: (N,) of the splat that is divided.
    copies: (N,) int; clipped to 16, where the alternating sum still has float32 digits.
  """
  copies = jnp.clip(copies, 1, _MAX_COPIES)
  opacity = jnp.clip(opacity, 1e-6, 1.0 - 1e-6)
  shared = -jnp.expm1(jnp.log1p(-opacity) / copies)
  powers = shared[:, None] ** jnp.arange(1, _MAX_COPIES + 1)
  integral = (jnp.asarray(_TERMS, jnp.float32)[copies - 1] * powers).sum(-1)
  return shared, jnp.where(copies == 1, 1.0, opacity / jnp.maximum(integral, 1e-6))


def relocate(
  gaussians: G, alive: jax.Array, key: jax.Array, min_opacity: float
) -> tuple[G, jax.Array]:
  """Moves every faint Gaussian onto a live one drawn in proportion to opacity.

  Args:
    gaussians: (N,).
    alive: (N,) bool; slots outside it are never touched.
    key: PRNG key.
    min_opacity: a Gaussian at or below it is dead.

  Returns:
    the Gaussians, and (N,) bool of the rows whose optimiser moments must be reset.
  """
  opacity = opacities(gaussians)
  dead = alive & (opacity <= min_opacity)
  weight = jnp.where(alive & ~dead, opacity, 0.0)
  cumulative = jnp.cumsum(weight)
  draw = jax.random.uniform(key, opacity.shape) * cumulative[-1]
  source = jnp.clip(jnp.searchsorted(cumulative, draw), 0, opacity.shape[0] - 1)
  dead &= cumulative[-1] > 0
  source = jnp.where(dead, source, jnp.arange(opacity.shape[0]))
  copies = jnp.zeros(opacity.shape, jnp.int32).at[source].add(jnp.where(dead | alive, 1, 0))
  shared, size = split_opacity(opacity, copies)
  changed = alive & (copies[source] > 1)
  shared = jnp.maximum(shared, min_opacity * 1.01)[source]
  moved = jax.tree.map(lambda leaf: leaf[source], gaussians)
  moved = dataclasses.replace(
    moved,
    logit_opacities=jnp.where(changed, logit(shared), gaussians.logit_opacities),
    log_scales=jnp.where(
      changed[:, None], moved.log_scales + jnp.log(size[source])[:, None], gaussians.log_scales
    ),
  )
  return moved, changed


def explore(gaussians: G, key: jax.Array, strength: jax.Array) -> G:
  """Adds noise to the means along each splat's covariance, for faint splats only.

  Kheradmand et al. 2024, eq. 8: noise is gated by a steep sigmoid of 1 - opacity. A disc's
  covariance lies in its plane, so discs explore along the surface.

  Args:
    gaussians: (N,).
    key: PRNG key.
    strength: () learning rate of the means times the noise factor.
  """
  gate = jax.nn.sigmoid(100.0 * ((1.0 - opacities(gaussians)) - 0.995))
  noise = jax.random.normal(key, gaussians.means.shape) * (gate * strength)[:, None]
  columns = quaternion_columns(gaussians.quats)
  variances = jnp.exp(2.0 * gaussians.log_scales)
  step = jnp.zeros_like(noise)
  for axis in range(2 if isinstance(gaussians, Gaussians2D) else 3):
    along = (noise * columns[axis]).sum(-1) * variances[:, axis]
    step += along[:, None] * columns[axis]
  return dataclasses.replace(gaussians, means=gaussians.means + step)


def decay_opacity(gaussians: G, factor: jax.Array | float) -> G:
  """Multiplies opacities by `factor` <= 1, so that splats without a gradient fade."""
  opacity = opacities(gaussians) * factor
  return dataclasses.replace(gaussians, logit_opacities=logit(opacity))


def limit_shape(
  gaussians: G, min_scale: jax.Array | float, max_scale: float, max_anisotropy: float
) -> G:
  """Keeps the two largest deviations at `min_scale` or more, all at `max_scale` or less.

  The largest is at most `max_anisotropy` times the next: needles, which flip between views, cannot
  form. For discs these two are all there are; an ellipsoid may be as flat as it likes.

  Args:
    gaussians: (N,).
    min_scale: world units; 0 sets no limit.
    max_scale: world units.
    max_anisotropy: ratio.
  """
  logs = jnp.minimum(gaussians.log_scales, np.log(max_scale))
  floor = jnp.log(jnp.maximum(min_scale, 1e-12))
  if isinstance(gaussians, Gaussians2D):
    logs = jnp.maximum(logs, floor)
  else:
    smallest = jnp.arange(3) == jnp.argmin(logs, -1, keepdims=True)
    logs = jnp.where(smallest, logs, jnp.maximum(logs, floor))
  ordered = jnp.sort(logs, -1)
  logs = jnp.minimum(logs, ordered[..., -2:-1] + np.log(max_anisotropy))
  return dataclasses.replace(gaussians, log_scales=logs)
