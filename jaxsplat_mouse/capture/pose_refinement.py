"""One pose correction per camera, shared by all moments of a recording.

A rig is rigid, so silhouettes of many moments determine together what one moment leaves open. The
poses are those under which the outlines' rays contradict the other silhouettes least
(`silhouette_coherence`): Gauss-Newton steps on the rays with the smallest depths of entry. These
rays are compared with each other, not with zero, so masks that are too wide or too narrow all
around change nothing. What all cameras share (a motion and a growth of the world) cannot be seen
and is taken out: the world stays that of the given calibration.

Moments that take no part decide whether the corrected poses are better than the given ones.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from jaxsplat_mouse.capture.silhouette_coherence import NO_DEPTH, Outlines, depths_of_entry
from jaxsplat_mouse.math import quaternion_to_matrix

# Prior of a correction: how far the cameras of a rig are usually off, in radians, radii of the
# animal and as a share of the focal length. It decides only what the silhouettes leave open.
_TURN, _SHIFT, _FOCAL = float(np.radians(2.0)), 0.1, 0.005
POSE_SCALES = (*[_TURN] * 3, *[_SHIFT] * 3)  # of a twist, in radians and radii of the animal
_FIXED = 1e-9  # prior of a focal length that is trusted
_MAX_STEP = 0.03  # radians, and radii of the animal
_DAMPING = 1e-3
_SETTLED = 1e-4  # relative to the cost: a stage ends where two steps gain less
_HELD_OUT = 4  # every fourth moment takes no part
_WORST = 0.2  # share of a moment's rays that is its evidence
_SIGNIFICANT = 3.0  # standard errors by which held-out moments must agree better
_WORTHWHILE = 0.1  # pixels by which they must agree better, at least
_BOX = 0.6  # half the side of the box around the animal in which changes are measured, radii


@dataclasses.dataclass(frozen=True, kw_only=True)
class CoherenceStage:
  """One pass over the rays, coarse to fine.

  Attributes:
    steps: most Gauss-Newton steps.
    temperature: of the soft maximum and minimum in the depth of entry, pixels.
    scale: lack of depth, pixels, beyond which a ray counts less and less.
    share: of all rays, those with the smallest depths of entry, which are pushed.
  """

  steps: int
  temperature: float
  scale: float
  share: float


STAGES = (
  CoherenceStage(steps=30, temperature=4.0, scale=20.0, share=0.6),
  CoherenceStage(steps=20, temperature=1.0, scale=4.0, share=0.4),
  CoherenceStage(steps=8, temperature=0.5, scale=1.5, share=0.25),
  CoherenceStage(steps=6, temperature=0.25, scale=1.0, share=0.2),
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PoseRefinement:
  """Corrected cameras and the evidence for them.

  Attributes:
    world_to_camera: (V, 4, 4) float64; those given where the correction is not accepted.
    focal: (V,) factors on the focal lengths.
    accepted: whether held-out moments confirm the correction.
    depth_before: (H,) evidence of each held-out moment under the given cameras, pixels: the mean of
      its smallest depths of entry. Larger is better; it is near zero for right cameras and masks.
    depth_after: (H,) likewise under the corrected cameras.
    turns: (V,) rotation of each camera, degrees.
    shifts: (V,) motion of each camera's centre, world units.
    pixels: (V,) root mean square motion of points near the animal, pixels of `Outlines`.
  """

  world_to_camera: np.ndarray
  focal: np.ndarray
  accepted: bool
  depth_before: np.ndarray
  depth_after: np.ndarray
  turns: np.ndarray
  shifts: np.ndarray
  pixels: np.ndarray


def refine_poses(
  poses: np.ndarray,
  outlines: Outlines,
  *,
  fit_focal: bool = False,
  stages: Sequence[CoherenceStage] = STAGES,
) -> PoseRefinement:
  """Corrects the poses of a rig, and keeps the given ones where held-out moments see no gain.

  Args:
    poses: (V, 4, 4) world to camera, any world units.
    outlines: of M moments, spread over the recording.
    fit_focal: whether each camera's focal length is corrected too.
    stages: the passes, coarse to fine.
  """
  given = np.asarray(poses, np.float64)
  moments = np.arange(len(outlines.rays))
  # With few moments every other one is held out, so that there is more than one.
  period = _HELD_OUT if len(moments) >= 2 * _HELD_OUT else 2
  held = outlines.select(moments[moments % period == period - 1])
  fitted = outlines.select(moments[moments % period != period - 1])
  found, focal = fit_poses(given, fitted, fit_focal=fit_focal, stages=stages)
  ones = np.ones(len(given))
  before, after = worst_depths(given, ones, held), worst_depths(found, focal, held)
  accepted = is_confirmed(before, after)
  if accepted:
    found, focal = fit_poses(found, outlines, focal, fit_focal=fit_focal, stages=stages[-1:])
  found = remove_common_motion(found, given, *animal_place(given, outlines))
  change = pose_changes(found, given, focal, outlines)
  return PoseRefinement(
    world_to_camera=found if accepted else given,
    focal=focal if accepted else ones,
    accepted=accepted,
    depth_before=before,
    depth_after=after,
    turns=change[0],
    shifts=change[1],
    pixels=change[2],
  )


def is_confirmed(before: np.ndarray, after: np.ndarray) -> bool:
  """Whether depths of entry of held-out moments (H,) have grown, and significantly so."""
  gain = after - before
  if len(gain) == 0 or not np.isfinite(gain).all():
    return False
  error = gain.std(ddof=1) / np.sqrt(len(gain)) if len(gain) > 1 else 0.0
  return bool(gain.mean() > max(_WORTHWHILE, _SIGNIFICANT * error))


def fit_poses(
  poses: np.ndarray,
  outlines: Outlines,
  focal: np.ndarray | None = None,
  *,
  fit_focal: bool = False,
  stages: Sequence[CoherenceStage] = STAGES,
  prior: Sequence[float] = POSE_SCALES,
) -> tuple[np.ndarray, np.ndarray]:
  """Returns poses (V, 4, 4) and focal factors (V,) under which the silhouettes agree best.

  Args:
    poses: (V, 4, 4) to start from.
    outlines: of M moments.
    focal: (V,) factors on the focal lengths to start from; ones by default.
    fit_focal: whether the factors are fitted.
    stages: the passes, coarse to fine.
    prior: (6,) how far off a camera usually is: radians, and radii of the animal.
  """
  center, unit = animal_place(poses, outlines)
  moved = to_unit(poses, center, unit)
  views = len(moved)
  log_focal = np.zeros(views) if focal is None else np.log(focal)
  scales = np.tile([*prior, _FOCAL if fit_focal else _FIXED], views)
  total = np.zeros((views, 7))
  for stage in stages:
    last = np.inf
    for _ in range(stage.steps):
      normal, gradient, cost = _normal_equations(moved, log_focal, outlines, stage)
      stiffness = 1.0 / scales**2
      matrix = normal + np.diag(stiffness + _DAMPING * np.diag(normal))
      step = np.linalg.solve(matrix, gradient - stiffness * total.reshape(-1)).reshape(views, 7)
      step *= min(1.0, _MAX_STEP / max(np.abs(step[:, :6]).max(), 1e-12))
      total += step
      log_focal = log_focal + step[:, 6]
      moved = turn_poses(moved, step)
      settled = abs(last - cost) < _SETTLED * cost or np.abs(step[:, :6]).max() < 1e-5
      last = cost
      if settled:
        break
  return from_unit(moved, center, unit), np.exp(log_focal)


def twist_matrices(twists: jax.Array) -> jax.Array:
  """Rigid matrices (V, 4, 4) of small twists (V, >= 6): rotation vector and shift of the world."""
  half = jnp.concatenate([jnp.ones_like(twists[:, :1]), 0.5 * twists[:, :3]], -1)
  top = jnp.concatenate([quaternion_to_matrix(half), twists[:, 3:6, None]], -1)
  last = jnp.broadcast_to(jnp.array([0.0, 0.0, 0.0, 1.0]), (len(twists), 1, 4))
  return jnp.concatenate([top, last], 1)


def turn_poses(poses: np.ndarray, twists: np.ndarray) -> np.ndarray:
  """Returns the poses (V, 4, 4) after small twists (V, >= 6) of the world; see `twist_matrices`."""
  return _orthonormal(poses @ np.asarray(twist_matrices(jnp.asarray(twists)), np.float64))


def _orthonormal(poses: np.ndarray) -> np.ndarray:
  """The poses (V, 4, 4) with the nearest rotations."""
  u, _, vt = np.linalg.svd(poses[:, :3, :3])
  result = poses.copy()
  result[:, :3, :3] = u @ vt
  return result


def _normal_equations(
  poses: np.ndarray, log_focal: np.ndarray, outlines: Outlines, stage: CoherenceStage
) -> tuple[np.ndarray, np.ndarray, float]:
  """Matrix (7 V, 7 V), right-hand side (7 V,) and cost of a Gauss-Newton step on `lack of depth`.

  A ray lacks what its depth of entry is below the quantile of the stage's share; Cauchy's weights
  make those that lack far more than the stage's scale, a broken mask say, count less.
  """
  middles = silhouette_centers(poses, outlines)
  radius = animal_radius(poses, outlines, middles)
  depths, jacobian = _linearized_depths(
    jnp.asarray(poses, jnp.float32),
    jnp.asarray(log_focal, jnp.float32),
    outlines,
    jnp.asarray(middles, jnp.float32),
    jnp.float32(radius),
    jnp.float32(stage.temperature),
  )
  value = np.asarray(depths, np.float64).reshape(-1)
  valid = (outlines.weights.reshape(-1) > 0) & (value < NO_DEPTH)
  value, rows = value[valid], np.asarray(jacobian).reshape(len(valid), -1)[valid]
  lack = np.maximum(np.quantile(value, stage.share) - value, 0.0)
  weight = np.where(lack > 0, 1.0 / (1.0 + (lack / stage.scale) ** 2), 0.0)
  pushed = (rows * weight[:, None].astype(np.float32)).astype(np.float64)
  cost = float(np.log1p((lack / stage.scale) ** 2).mean())
  return pushed.T @ rows, pushed.T @ lack, cost


@jax.jit
def _linearized_depths(
  poses: jax.Array,
  log_focal: jax.Array,
  outlines: Outlines,
  centers: jax.Array,
  radius: jax.Array,
  temperature: jax.Array,
) -> tuple[jax.Array, jax.Array]:
  """Depths of entry (M, V P) and their derivatives (M, V P, 7 V) by twists and log focal length."""
  start = jnp.concatenate([jnp.zeros((len(poses), 6)), log_focal[:, None]], -1)

  def one(row: tuple[Outlines, jax.Array]) -> tuple[jax.Array, jax.Array]:
    def depths(parameters: jax.Array) -> jax.Array:
      by_view = parameters.reshape(start.shape)
      moved, focal = poses @ twist_matrices(by_view), jnp.exp(by_view[:, 6])
      return depths_of_entry(moved, focal, row[0], row[1], radius, temperature).reshape(-1)

    value, push = jax.linearize(depths, start.reshape(-1))
    return value, jax.lax.map(push, jnp.eye(start.size)).T

  return jax.lax.map(one, (outlines, centers))


@jax.jit
def _sharp_depths(
  poses: jax.Array, focal: jax.Array, outlines: Outlines, centers: jax.Array, radius: jax.Array
) -> jax.Array:
  """Depths of entry (M, V, P) with a nearly hard maximum and minimum."""
  temperature = jnp.float32(0.25)
  one = lambda row: depths_of_entry(poses, focal, row[0], row[1], radius, temperature)
  return jax.lax.map(one, (outlines, centers))


def ray_depths(poses: np.ndarray, focal: np.ndarray, outlines: Outlines) -> np.ndarray:
  """Depths of entry (M, V, P), pixels; NaN for rays that no two views can judge.

  Args:
    poses: (V, 4, 4) world to camera.
    focal: (V,) factors on the focal lengths.
    outlines: of M moments.
  """
  center, unit = animal_place(poses, outlines)
  moved = to_unit(poses, center, unit)
  middles = silhouette_centers(moved, outlines)
  depths = _sharp_depths(
    jnp.asarray(moved, jnp.float32),
    jnp.asarray(focal, jnp.float32),
    outlines,
    jnp.asarray(middles, jnp.float32),
    jnp.float32(animal_radius(moved, outlines, middles)),
  )
  found = np.asarray(depths, np.float64)
  return np.where((outlines.weights > 0) & (found < NO_DEPTH), found, np.nan)


def worst_depths(poses: np.ndarray, focal: np.ndarray, outlines: Outlines) -> np.ndarray:
  """Mean (M,) of the smallest depths of entry of each moment, pixels; see `ray_depths`."""
  return np.array([mean_of_worst(d) for d in ray_depths(poses, focal, outlines)])


def worst_depths_over_time(poses: np.ndarray, focal: np.ndarray, outlines: Outlines) -> np.ndarray:
  """Mean (M, V) of each view's smallest depths of entry, pixels; NaN for a view without rays."""
  depths = ray_depths(poses, focal, outlines)
  return np.array([[mean_of_worst(rays) for rays in moment] for moment in depths])


def mean_of_worst(depths: np.ndarray) -> float:
  """Mean of the smallest known depths; NaN where none is known."""
  known = np.sort(depths[np.isfinite(depths)])
  return float(known[: max(1, int(_WORST * len(known)))].mean()) if len(known) else float("nan")


def silhouette_centers(poses: np.ndarray, outlines: Outlines) -> np.ndarray:
  """Points (M, 3) nearest to the rays through the silhouettes' centroids."""
  rotations = poses[:, :3, :3]
  centers = -np.einsum("vij,vi->vj", rotations, poses[:, :3, 3])
  local = np.concatenate([outlines.centroids, np.ones_like(outlines.centroids[..., :1])], -1)
  rays = np.einsum("vij,mvi->mvj", rotations, local.astype(np.float64))
  rays /= np.linalg.norm(rays, axis=-1, keepdims=True)
  across = np.eye(3) - rays[..., :, None] * rays[..., None, :]
  # A silhouette that the frame cuts off has its centroid elsewhere.
  weight = np.where(outlines.whole, 1.0, 0.05) * (outlines.weights.sum(-1) > 0)
  matrix = (across * weight[..., None, None]).sum(1) + 1e-9 * np.eye(3)
  right = (np.einsum("mvij,vj->mvi", across, centers) * weight[..., None]).sum(1)
  return np.linalg.solve(matrix, right[..., None])[..., 0]


def animal_radius(poses: np.ndarray, outlines: Outlines, centers: np.ndarray) -> float:
  """Radius of spheres around `centers` (M, 3) that hold the animal in about every moment."""
  x = np.einsum("vij,mj->mvi", poses[:, :3, :3], centers) + poses[:, :3, 3]
  off = np.linalg.norm(outlines.rays - (x[..., :2] / x[..., 2:])[:, :, None], axis=-1)
  reach = (off * outlines.weights).max(-1) * x[..., 2]
  return 1.2 * float(np.quantile(reach, 0.98))


def animal_place(poses: np.ndarray, outlines: Outlines) -> tuple[np.ndarray, float]:
  """Where the animal is in the mean of all moments (3,), and its radius."""
  centers = silhouette_centers(poses, outlines)
  return centers.mean(0), animal_radius(poses, outlines, centers)


def to_unit(poses: np.ndarray, center: np.ndarray, unit: float) -> np.ndarray:
  """The same cameras in a world with the origin `center` and the unit `unit`."""
  moved = np.array(poses, np.float64)
  moved[:, :3, 3] = (poses[:, :3, 3] + poses[:, :3, :3] @ center) / unit
  return moved


def from_unit(poses: np.ndarray, center: np.ndarray, unit: float) -> np.ndarray:
  """Inverse of `to_unit`."""
  moved = np.array(poses, np.float64)
  moved[:, :3, 3] = poses[:, :3, 3] * unit - poses[:, :3, :3] @ center
  return moved


def _box(center: np.ndarray, unit: float) -> np.ndarray:
  """Points (64, 3) of a box around the animal."""
  line = np.linspace(-_BOX, _BOX, 4)
  return center + unit * np.stack(np.meshgrid(line, line, line), -1).reshape(-1, 3)


def _slopes(poses: np.ndarray, points: np.ndarray) -> np.ndarray:
  """x / z and y / z (V, N, 2) of points (N, 3) in cameras (V, 4, 4)."""
  x = np.einsum("vij,nj->vni", poses[:, :3, :3], points) + poses[:, None, :3, 3]
  return x[..., :2] / x[..., 2:]


def remove_common_motion(
  poses: np.ndarray, reference: np.ndarray, center: np.ndarray, unit: float
) -> np.ndarray:
  """Poses (V, 4, 4) in the world in which they see a box most nearly where the reference sees it.

  Args:
    poses: (V, 4, 4).
    reference: (V, 4, 4), cameras whose world is to be kept.
    center: (3,) of the box.
    unit: radius of the animal in it.
  """
  moved, fixed = to_unit(poses, center, unit), to_unit(reference, center, unit)
  points = _box(np.zeros(3), 1.0)
  wanted = _slopes(fixed, points)
  for _ in range(4):
    off = (wanted - _slopes(moved, points)).reshape(-1)
    columns = []
    for axis in range(7):
      nudge = np.zeros(7)
      nudge[axis] = 1e-5
      columns.append((_slopes(moved, _similar(nudge, points)) - _slopes(moved, points)).reshape(-1))
    step = np.linalg.lstsq(np.stack(columns, -1) / 1e-5, off, rcond=None)[0]
    turn = np.asarray(twist_matrices(jnp.asarray(step[None, :6])), np.float64)[0]
    moved = moved @ turn
    moved[:, :3, 3] = moved[:, :3, 3] / np.exp(step[6])
    moved = _orthonormal(moved)
  return from_unit(moved, center, unit)


def _similar(step: np.ndarray, points: np.ndarray) -> np.ndarray:
  """Points (N, 3) turned, shifted and grown by a small step (7,)."""
  return np.exp(step[6]) * (points + np.cross(step[:3], points)) + step[3:6]


def pose_changes(
  poses: np.ndarray, given: np.ndarray, focal: np.ndarray, outlines: Outlines
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Returns turn (degrees), shift (world units), motion near the animal (pixels) of each camera.

  Args:
    poses: (V, 4, 4) world to camera.
    given: (V, 4, 4) that they are compared with.
    focal: (V,) factors on the focal lengths.
    outlines: whose pixels count.
  """
  between = np.einsum("vij,vkj->vik", poses[:, :3, :3], given[:, :3, :3])
  cosine = np.clip((np.trace(between, axis1=1, axis2=2) - 1.0) / 2.0, -1.0, 1.0)
  centers = [-np.einsum("vij,vi->vj", p[:, :3, :3], p[:, :3, 3]) for p in (poses, given)]
  points = _box(*animal_place(given, outlines))
  off = focal[:, None, None] * _slopes(poses, points) - _slopes(given, points)
  pixels = np.median(outlines.intrinsics[..., 0], 0)
  return (
    np.degrees(np.arccos(cosine)),
    np.linalg.norm(centers[0] - centers[1], axis=-1),
    pixels * np.sqrt(np.square(off).sum(-1).mean(-1)),
  )
