"""Gaussian splats as pytrees of unconstrained parameters: the arrays are what a fit optimises.

`Gaussians3D` are the ellipsoids of Kerbl et al. 2023, `Gaussians2D` the discs of Huang et al. 2024,
whose normal is the third column of their rotation. Every array may carry leading batch axes.
"""

from __future__ import annotations

import dataclasses
from typing import TypeAlias

import jax
import jax.numpy as jnp

from jaxsplat_mouse.math import quaternion_columns


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class Gaussians3D:
  """Ellipsoidal splats.

  Attributes:
    means: (N, 3) centres, world units.
    log_scales: (N, 3) natural logarithms of the standard deviations along the rotation's columns.
    quats: (N, 4) rotations, w x y z, normalised where they are used.
    logit_opacities: (N,) opacities before the sigmoid.
    sh: (N, K, 3) spherical-harmonic coefficients, K = (degree + 1)^2; colour = max(SH + 0.5, 0).
  """

  means: jax.Array
  log_scales: jax.Array
  quats: jax.Array
  logit_opacities: jax.Array
  sh: jax.Array


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class Gaussians2D:
  """Flat elliptical discs; `log_scales` is (N, 2), the rest as in `Gaussians3D`."""

  means: jax.Array
  log_scales: jax.Array
  quats: jax.Array
  logit_opacities: jax.Array
  sh: jax.Array


Gaussians: TypeAlias = Gaussians3D | Gaussians2D
MODELS: dict[str, type] = {"3dgs": Gaussians3D, "2dgs": Gaussians2D}


def model_name(gaussians: Gaussians) -> str:
  """Returns `3dgs` or `2dgs`."""
  return next(name for name, cls in MODELS.items() if type(gaussians) is cls)


def opacities(gaussians: Gaussians) -> jax.Array:
  """Returns the opacities (N,) in (0, 1)."""
  return jax.nn.sigmoid(gaussians.logit_opacities)


def scales(gaussians: Gaussians) -> jax.Array:
  """Returns the standard deviations (N, 3) or (N, 2), world units."""
  return jnp.exp(gaussians.log_scales)


def normals(gaussians: Gaussians) -> jax.Array:
  """Returns unit normals (N, 3) of either sign: a disc's third axis, an ellipsoid's shortest."""
  columns = quaternion_columns(gaussians.quats)
  if isinstance(gaussians, Gaussians2D):
    return columns[2]
  shortest = jnp.argmin(gaussians.log_scales, -1)[..., None]
  return jnp.where(shortest == 0, columns[0], jnp.where(shortest == 1, columns[1], columns[2]))


def covariances(gaussians: Gaussians3D) -> jax.Array:
  """Returns the world covariances (N, 3, 3): (R S)(R S)^T."""
  columns, s = quaternion_columns(gaussians.quats), scales(gaussians)
  scaled = [column * s[..., i, None] for i, column in enumerate(columns)]
  return sum(a[..., :, None] * a[..., None, :] for a in scaled)


def mask(gaussians: Gaussians, alive: jax.Array) -> Gaussians:
  """Returns the Gaussians with those that are not alive (N,) made invisible."""
  logits = jnp.where(alive, gaussians.logit_opacities, -30.0)
  return dataclasses.replace(gaussians, logit_opacities=logits)
