"""One pose correction per camera, shared by all moments of a recording."""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from jaxsplat_mouse.capture.silhouette_coherence import Outlines, depths_of_entry
from jaxsplat_mouse.math import quaternion_to_matrix

# Prior of a correction: how far cameras of a rig are usually off. It decides only what the
# silhouettes leave open.
_TURN, _SHIFT, _FOCAL = np.radians(2.0), 0.1, 0.005


@dataclasses.dataclass(frozen=True, kw_only=True)
class CoherenceStage:
  """One pass of `refine_on_silhouettes`, coarse to fine.

  Attributes:
    steps: Gauss-Newton steps.
    temperature: pixels, of the soft maximum and minimum.
    scale: pixels, beyond which a residual counts less and less.
    share: of the rays: those with the smallest depth of entry, which are pushed.
  """

  steps: int
  temperature: float
  scale: float
  share: float


STAGES = (
  CoherenceStage(steps=10, temperature=4.0, scale=20.0, share=0.6),
  CoherenceStage(steps=10, temperature=1.0, scale=4.0, share=0.4),
  CoherenceStage(steps=10, temperature=0.5, scale=1.5, share=0.3),
)


def twist_matrices(twists: jax.Array) -> jax.Array:
  """Rigid matrices (V, 4, 4) of twists (V, 6): rotation vector and shift of the world."""
  half = jnp.concatenate([jnp.ones_like(twists[:, :1]), 0.5 * twists[:, :3]], -1)
  top = jnp.concatenate([quaternion_to_matrix(half), twists[:, 3:6, None]], -1)
  last = jnp.broadcast_to(jnp.array([0.0, 0.0, 0.0, 1.0]), (len(twists), 1, 4))
  return jnp.concatenate([top, last], 1)


def triangulate(poses: np.ndarray, outlines: Outlines) -> np.ndarray:
  """Points (M, 3) nearest to the rays through the silhouettes' centroids."""
  rotations = poses[:, :3, :3]
  centers = -np.einsum("vij,vi->vj", rotations, poses[:, :3, 3])
  local = np.concatenate([outlines.centroids, np.ones_like(outlines.centroids[..., :1])], -1)
  rays = np.einsum("vij,mvi->mvj", rotations, local)
  rays /= np.linalg.norm(rays, axis=-1, keepdims=True)
  across = np.eye(3) - rays[..., :, None] * rays[..., None, :]
  seen = outlines.weights.sum(-1) > 0
  weight = np.where(outlines.whole, 1.0, 0.05) * seen
  matrix = (across * weight[..., None, None]).sum(1) + 1e-9 * np.eye(3)
  right = (np.einsum("mvij,vj->mvi", across, centers) * weight[..., None]).sum(1)
  return np.linalg.solve(matrix, right[..., None])[..., 0]


def animal_radius(poses: np.ndarray, outlines: Outlines, centers: np.ndarray) -> float:
  """Radius of spheres around `centers` (M, 3) that hold the animal."""
  x = np.einsum("vij,mj->mvi", poses[:, :3, :3], centers) + poses[:, :3, 3]
  off = np.linalg.norm(outlines.rays - (x[..., :2] / x[..., 2:])[:, :, None], axis=-1)
  reach = (off * outlines.weights).max(-1) * x[..., 2]
  return 1.2 * float(np.quantile(reach, 0.98))


@functools.partial(jax.jit, static_argnames=())
def _normal_equations(
  twists: jax.Array,
  focal: jax.Array,
  poses: jax.Array,
  outlines: Outlines,
  centers: jax.Array,
  radius: jax.Array,
  temperature: jax.Array,
  scale: jax.Array,
  share: jax.Array,
) -> tuple[jax.Array, ...]:
  """Normal matrix, gradient and cost, and the level below which rays are pushed."""

  def entry(parameters: jax.Array, moment: Outlines, center: jax.Array) -> jax.Array:
    moved = poses @ twist_matrices(parameters[:, :6])
    return depths_of_entry(moved, jnp.exp(parameters[:, 6]), moment, center, radius, temperature)

  parameters = jnp.concatenate([twists, focal[:, None]], -1)
  shape = parameters.shape

  def one(row: tuple[Outlines, jax.Array]) -> tuple[jax.Array, jax.Array]:
    moment, center = row
    function = lambda p: entry(p.reshape(shape), moment, center).reshape(-1)
    flat = parameters.reshape(-1)
    value, push = jax.linearize(function, flat)
    return value, jax.lax.map(push, jnp.eye(len(flat))).T

  values, jacobians = jax.lax.map(one, (outlines, centers))
  values, jacobians = values.reshape(-1), jacobians.reshape(-1, parameters.size)
  weight = outlines.weights.reshape(-1) * (values < 1e3)
  level = jnp.nanquantile(jnp.where(weight > 0, values, jnp.nan), share)
  lack = jnp.where(weight > 0, jnp.maximum(level - values, 0.0), 0.0)
  robust = weight / (1.0 + (lack / scale) ** 2)
  pushed = (lack > 0) * robust
  normal = (jacobians * pushed[:, None]).T @ jacobians
  gradient = (jacobians * (pushed * lack)[:, None]).sum(0)
  cost = 0.5 * scale**2 * (weight * jnp.log1p((lack / scale) ** 2)).sum() / weight.sum()
  return normal, gradient, cost, level, values, weight


def refine_on_silhouettes(
  poses: np.ndarray, outlines: Outlines, fit_focal: bool = False, stages=STAGES, verbose=None
) -> tuple[np.ndarray, np.ndarray]:
  """Returns poses (V, 4, 4) and focal factors (V,) under which the silhouettes agree best.

  Args:
    poses: (V, 4, 4) float64 world to camera, as given.
    outlines: of M moments.
    fit_focal: whether each camera's focal length is fitted too.
  """
  center = triangulate(poses, outlines).mean(0)
  unit = animal_radius(poses, outlines, triangulate(poses, outlines))
  given = to_unit(poses, center, unit)
  views = len(poses)
  scales = np.tile(np.array([_TURN] * 3 + [_SHIFT] * 3 + [_FOCAL if fit_focal else 1e-9]), views)
  moved, focal = given.copy(), np.zeros(views)
  total = np.zeros((views, 7))
  for stage in stages:
    for _ in range(stage.steps):
      middles = triangulate(moved, outlines)
      radius = animal_radius(moved, outlines, middles)
      normal, gradient, cost, level, values, weight = map(np.asarray, _normal_equations(
        jnp.zeros((views, 6)), jnp.asarray(focal, jnp.float32), jnp.asarray(moved, jnp.float32),
        outlines, jnp.asarray(middles, jnp.float32), radius, stage.temperature, stage.scale, stage.share,
      ))  # fmt: skip
      normal, gradient = normal.astype(np.float64), gradient.astype(np.float64)
      prior = 1.0 / scales**2
      scaled = normal + np.diag(prior + 1e-3 * np.diag(normal))
      step = np.linalg.solve(scaled, gradient - prior * total.reshape(-1)).reshape(views, 7)
      limit = min(1.0, 0.02 / max(np.abs(step[:, :6]).max(), 1e-12))
      step *= limit
      total += step
      focal = focal + step[:, 6]
      moved = moved @ np.asarray(twist_matrices(jnp.asarray(step[:, :6])), np.float64)
      u, _, vt = np.linalg.svd(moved[:, :3, :3])
      moved[:, :3, :3] = u @ vt
      if verbose:
        verbose(from_unit(moved, center, unit), np.exp(focal), float(cost), float(level), values, weight)
  return from_unit(moved, center, unit), np.exp(focal)


def to_unit(poses: np.ndarray, center: np.ndarray, unit: float) -> np.ndarray:
  """The same cameras in a world with origin `center` and `unit` as its unit."""
  moved = np.array(poses, np.float64)
  moved[:, :3, 3] = (poses[:, :3, 3] + poses[:, :3, :3] @ center) / unit
  return moved


def from_unit(poses: np.ndarray, center: np.ndarray, unit: float) -> np.ndarray:
  """Inverse of `to_unit`."""
  moved = np.array(poses, np.float64)
  moved[:, :3, 3] = poses[:, :3, 3] * unit - poses[:, :3, :3] @ center
  return moved
