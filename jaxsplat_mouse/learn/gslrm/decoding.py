"""Raw numbers of the network to Gaussians on the rays of the photographs.

Every Gaussian stays on its cell's ray, near the origin, has about a cell's size and starts with its
cell's own colour: zeros from the network are already a picture of the animal from every camera.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

from jaxsplat_mouse.gaussians import Gaussians3D
from jaxsplat_mouse.learn.gslrm.architecture import Architecture
from jaxsplat_mouse.learn.gslrm.tokens import Cells, Tokens
from jaxsplat_mouse.spherical_harmonics import from_rgb

_REACH = 1.0  # of a Gaussian from its ray's nearest point to the origin, world units
_START_SIZE = 0.7  # standard deviation, cells
_SIZE_RANGE = 1.8  # natural logarithm of the largest change of it: at most 4.2 cells
_SIZE_SOFTNESS = 3.0
_START_LOGIT = -2.0  # of opacity, as Zhang et al. 2024
_FACELIFT_REACH = 1.8
_FACELIFT_LOG_SCALE = -2.3  # exp(-2.3) = .1 at the start
_FACELIFT_MAX_LOG_SCALE = -1.2
_HIDDEN = -30.0  # a logit


def decode(
  raw: jax.Array, registers: jax.Array | None, tokens: Tokens, architecture: Architecture
) -> Gaussians3D:
  """Returns the Gaussians of one sample.

  Args:
    raw: (K, Q, Q, C) of the cells, as `GSLRM` returns them.
    registers: (R, C) of the registers, or None.
    tokens: (K,) whose cells these are.
    architecture: which formulas hold.

  Returns:
    (N,) those of the registers first, then in the order token, row, column.
  """
  used = (jnp.arange(len(raw)) < tokens.count)[:, None, None]
  if not architecture.facelift:
    return _flatten(_show(_anchored(raw, tokens.cells), used & (tokens.cells.coverage > 0)))
  pixels = _flatten(_show(_facelift(raw, tokens.cells), used))
  if registers is None:
    return pixels
  return jax.tree.map(lambda *leaves: jnp.concatenate(leaves), _free(registers), pixels)


def _anchored(raw: jax.Array, cells: Cells) -> Gaussians3D:
  """Gaussians (K, Q, Q) of the cells from distance, colour 3, size 3, rotation 4, opacity."""
  depth, color, size, quats, opacity = jnp.split(raw, (1, 4, 7, 11), -1)
  start = jnp.log(_START_SIZE * cells.footprints)[..., None]
  return Gaussians3D(
    means=_on_rays(depth[..., 0], cells, _REACH),
    log_scales=start + _SIZE_RANGE * jnp.tanh(size / _SIZE_SOFTNESS),
    quats=quats + jnp.array([1.0, 0.0, 0.0, 0.0]),
    logit_opacities=opacity[..., 0] + _START_LOGIT,
    sh=from_rgb(cells.colors + color)[..., None, :],
  )


def _on_rays(depth: jax.Array, cells: Cells, reach: float) -> jax.Array:
  """Points (K, Q, Q, 3) of the cells' rays, at most `reach` from the one nearest the origin."""
  distances = cells.distances + reach * (2.0 * jax.nn.sigmoid(depth) - 1.0)
  return cells.origins[:, None, None] + distances[..., None] * cells.directions


def _facelift(raw: jax.Array, cells: Cells) -> Gaussians3D:
  """Gaussians (K, Q, Q) with FaceLift's formulas; the mean of three numbers is the distance."""
  means = _on_rays(raw[..., :3].mean(-1), cells, _FACELIFT_REACH)
  return dataclasses.replace(_free(raw), means=means)


def _free(raw: jax.Array) -> Gaussians3D:
  """Gaussians anywhere from position 3, colour 3, size 3, rotation 4, opacity (..., 14)."""
  position, color, size, quats, opacity = jnp.split(raw, (3, 6, 9, 13), -1)
  return Gaussians3D(
    means=position,
    log_scales=jnp.minimum(size + _FACELIFT_LOG_SCALE, _FACELIFT_MAX_LOG_SCALE),
    quats=quats,
    logit_opacities=opacity[..., 0] + _START_LOGIT,
    sh=color[..., None, :],
  )


def _show(gaussians: Gaussians3D, shown: jax.Array) -> Gaussians3D:
  """Hides the Gaussians that are not `shown`, of their shape."""
  logits = jnp.where(shown, gaussians.logit_opacities, _HIDDEN)
  return dataclasses.replace(gaussians, logit_opacities=logits)


def _flatten(gaussians: Gaussians3D) -> Gaussians3D:
  """Makes the axes (K, Q, Q) one."""
  return jax.tree.map(lambda leaf: leaf.reshape(-1, *leaf.shape[3:]), gaussians)


def compact(gaussians: Gaussians3D, limit: int) -> tuple[Gaussians3D, jax.Array]:
  """Leaves out hidden Gaussians, which cost as much to project as others.

  Args:
    gaussians: (N,) of one sample, hidden where `decode` found no coverage.
    limit: how many are kept; 0 keeps all, hidden ones too.

  Returns:
    at most `limit` Gaussians, in the same order, and () int32 how many found no room.
  """
  count = gaussians.logit_opacities.shape[0]
  if limit == 0 or limit >= count:
    return gaussians, jnp.zeros((), jnp.int32)
  shown = gaussians.logit_opacities > _HIDDEN
  (index,) = jnp.nonzero(shown, size=limit, fill_value=count)
  # Beyond the shown ones any Gaussian fills up, hidden.
  kept = jax.tree.map(lambda leaf: leaf.at[index].get(mode="clip"), gaussians)
  return _show(kept, index < count), jnp.maximum(shown.sum() - limit, 0)
