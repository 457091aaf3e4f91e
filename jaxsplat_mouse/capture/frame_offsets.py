"""Finds the cameras of a recording that are whole frames early or late, from its silhouettes.

A camera that is late shows the animal where it was: its silhouettes are displaced by the animal's
own motion, as if the camera had moved, differently in every moment. A wrong pose displaces them by
the same in every moment. So one time lag per camera is fitted together with the poses, by the same
Gauss-Newton steps on the rays' depths of entry (`pose_refinement`): the derivative by a lag is that
by a motion of the camera against the animal's velocity. Whole frames of the lags are then applied,
the silhouettes of those frames are read, and what remains of the lags is fitted again.

A lag that all cameras share cannot be seen: most cameras have none. Where the animal rests no lag
can be seen either, and its standard error, taken over moments, says so.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from jaxsplat_mouse.capture import pose_refinement
from jaxsplat_mouse.capture.pose_refinement import CoherenceStage
from jaxsplat_mouse.capture.silhouette_coherence import NO_DEPTH, Outlines, depths_of_entry

_ROUNDS = 4  # of applying whole frames and fitting what remains
_MOST = 8  # frames; velocities say nothing about longer lags
_LAG = 2.0  # prior of a lag, frames; it decides only what the silhouettes leave open
_MAX_STEP = 1.5  # frames
_SETTLED = 0.01  # frames
SURE = 4.0  # standard errors that a lag must be away from zero
SHARP = 0.25  # frames; a larger standard error does not tell one frame from the next
_CONFIRMED = 2.0  # standard errors by which held-out moments must agree better
_NEAR = 0.5  # frames; lags farther from the usual one have no say in what is usual
_AGAIN = CoherenceStage(steps=8, temperature=1.0, scale=4.0, share=0.4)


@dataclasses.dataclass(frozen=True, kw_only=True)
class MovingOutlines:
  """Silhouettes of M moments, and how fast the animal moves in them.

  Attributes:
    outlines: of M moments.
    before: (M, V, 2) centroids of the silhouettes one frame earlier, as `Outlines.centroids`.
    after: (M, V, 2) one frame later.
  """

  outlines: Outlines
  before: np.ndarray
  after: np.ndarray

  def select(self, moments: Sequence[int] | np.ndarray) -> MovingOutlines:
    """Returns some of the moments."""
    index = np.asarray(moments, int)
    return MovingOutlines(
      outlines=self.outlines.select(index), before=self.before[index], after=self.after[index]
    )

  def velocities(self, poses: np.ndarray) -> np.ndarray:
    """Motion (M, 3) of the animal, world units per frame, as cameras (V, 4, 4) see it."""
    ends = [
      pose_refinement.silhouette_centers(poses, dataclasses.replace(self.outlines, centroids=c))
      for c in (self.before, self.after)
    ]
    return (ends[1] - ends[0]) / 2


@dataclasses.dataclass(frozen=True, kw_only=True)
class FrameOffsets:
  """Time lags of V cameras and the evidence for them.

  Attributes:
    offsets: (V,) int, frames to add to each camera's so that all agree; 0 where nothing is sure.
    lags: (V,) frames by which each camera is late, parts of frames included.
    errors: (V,) their standard errors.
    motion: (V,) root mean square motion of the animal in each camera, pixels per frame.
    confirmed: whether held-out moments agree better with `offsets`; False without any.
    before: (H,) by how many pixels silhouettes of each held-out moment contradict each other.
    after: (H,) likewise with `offsets`; as `before` without any.
  """

  offsets: np.ndarray
  lags: np.ndarray
  errors: np.ndarray
  motion: np.ndarray
  confirmed: bool
  before: np.ndarray
  after: np.ndarray


@dataclasses.dataclass(frozen=True, kw_only=True)
class LagFit:
  """Poses and time lags under which silhouettes agree best.

  Attributes:
    poses: (V, 4, 4) world to camera.
    lags: (V,) frames by which each camera is later than most.
    errors: (V,) their standard errors.
  """

  poses: np.ndarray
  lags: np.ndarray
  errors: np.ndarray

  def whole_frames(self) -> np.ndarray:
    """(V,) int: the lags that are sure, in whole frames; 0 elsewhere."""
    sure = (np.abs(self.lags) > SURE * self.errors) & (self.errors < SHARP)
    return np.where(sure, np.round(self.lags), 0).astype(int)


def find_offsets(
  poses: np.ndarray,
  read: Callable[[np.ndarray], MovingOutlines | None],
  *,
  stages: Sequence[CoherenceStage] = pose_refinement.STAGES,
) -> FrameOffsets:
  """Fits the time lags of all cameras together with their poses.

  Args:
    poses: (V, 4, 4) world to camera, off by up to what `pose_refinement` mends.
    read: given frames (V,) to add to each camera's, returns the outlines of the same moments; None
      where most of them are missing.
    stages: the passes, coarse to fine, that fit the poses first.

  Returns:
    The offsets that held-out moments confirm, or none.

  Raises:
    ValueError: there are no outlines with the frames as they are.
  """
  moving = first = read(np.zeros(len(poses), int))
  if moving is None or first is None:
    raise ValueError("no outlines; expected those of the frames as they are")
  fitted, held = np.arange(len(first.before))[::2], np.arange(len(first.before))[1::2]
  given, _ = pose_refinement.fit_poses(poses, first.outlines.select(fitted), stages=stages)
  found = fit_lags(given, first.select(fitted))
  offsets = np.zeros(len(poses), int)
  for _ in range(_ROUNDS):
    wanted = _relative_to_most(offsets + found.whole_frames())
    other = None
    if (wanted != offsets).any() and np.abs(wanted).max() <= _MOST:
      other = read(wanted)
    if other is None:
      break
    offsets, moving = wanted, other
    found = fit_lags(found.poses, moving.select(fitted))
  before = -_contradictions(given, first, held)
  after = -_contradictions(found.poses, moving, held) if offsets.any() else before
  confirmed = bool(offsets.any()) and _is_confirmed(before - after)
  return FrameOffsets(
    offsets=offsets if confirmed else np.zeros_like(offsets),
    lags=offsets + found.lags,
    errors=found.errors,
    motion=_motion(found.poses, moving),
    confirmed=confirmed,
    before=before,
    after=after,
  )


def _is_confirmed(gains: np.ndarray) -> bool:
  """Whether held-out moments (H,) agree better, and significantly so."""
  if len(gains) < 2 or not np.isfinite(gains).all():
    return False
  return bool(gains.mean() > _CONFIRMED * gains.std(ddof=1) / np.sqrt(len(gains)))


def _contradictions(poses: np.ndarray, moving: MovingOutlines, moments: np.ndarray) -> np.ndarray:
  """Smallest depths of entry (H,) of some moments, pixels."""
  ones = np.ones(len(poses))
  return pose_refinement.worst_depths(poses, ones, moving.outlines.select(moments))


def _relative_to_most(offsets: np.ndarray) -> np.ndarray:
  """Whole offsets (V,) less the one that most cameras share; of several, that nearest to zero."""
  values, counts = np.unique(offsets, return_counts=True)
  most = values[counts == counts.max()]
  return offsets - most[np.abs(most).argmin()]


def _usual_lag(lags: np.ndarray) -> float:
  """The lag near which most of the lags (V,) lie."""
  near = np.minimum(np.abs(lags[:, None] - lags), _NEAR).sum(1)
  return float(lags[near.argmin()])


def _motion(poses: np.ndarray, moving: MovingOutlines) -> np.ndarray:
  """Root mean square motion (V,) of the animal, pixels per frame."""
  centers = pose_refinement.silhouette_centers(poses, moving.outlines)
  depth = np.einsum("vj,mj->mv", poses[:, 2, :3], centers) + poses[:, 2, 3]
  speed = np.linalg.norm(moving.velocities(poses), axis=-1)
  pixels = moving.outlines.intrinsics[..., 0] * speed[:, None] / depth
  return np.sqrt(np.square(pixels).mean(0))


def fit_lags(poses: np.ndarray, moving: MovingOutlines) -> LagFit:
  """Fits poses and lags together by Gauss-Newton steps, from poses that are nearly right.

  Standard errors are those of the delete-one-moment jackknife, since rays of one moment err
  together, and of what the prior alone decides.

  Args:
    poses: (V, 4, 4) to start from.
    moving: the silhouettes.
  """
  center, unit = pose_refinement.animal_place(poses, moving.outlines)
  moved = pose_refinement.to_unit(poses, center, unit)
  velocities = moving.velocities(poses) / unit
  views = len(poses)
  scales = np.tile([*pose_refinement.POSE_SCALES, _LAG], views)
  total = np.zeros((views, 7))
  for _ in range(_AGAIN.steps):
    blocks, gradients = normal_blocks(moved, total[:, 6], moving.outlines, velocities)
    matrix = blocks.sum(0) + np.diag(1.0 / scales**2)
    right = gradients.sum(0) - total.reshape(-1) / scales**2
    step = np.linalg.solve(matrix, right).reshape(views, 7)
    step *= min(1.0, _MAX_STEP / max(np.abs(step[:, 6]).max(), 1e-9))
    total += step
    moved = pose_refinement.turn_poses(moved, step[:, :6])
    if np.abs(step[:, 6]).max() < _SETTLED:
      break
  lags = total[:, 6]
  usual = np.abs(lags - _usual_lag(lags)) < _NEAR
  # Each lag less the mean of the usual ones, since what all share cannot be seen.
  contrast = np.eye(views) - usual / usual.sum()
  without = np.stack(
    [np.linalg.solve(matrix - b, right - g) for b, g in zip(blocks, gradients, strict=True)]
  )
  relative = without.reshape(-1, views, 7)[..., 6] @ contrast.T
  jackknife = np.square(relative - relative.mean(0)).sum(0) * (len(blocks) - 1) / len(blocks)
  # What motion leaves open, all of it along one line for instance, has no spread but this one.
  covariance = np.linalg.inv(matrix).reshape(views, 7, views, 7)[:, 6, :, 6]
  open_part = np.einsum("ij,jk,ik->i", contrast, covariance, contrast)
  return LagFit(
    poses=pose_refinement.from_unit(moved, center, unit),
    lags=contrast @ lags,
    errors=np.sqrt(jackknife + open_part),
  )


def normal_blocks(
  poses: np.ndarray, lags: np.ndarray, outlines: Outlines, velocities: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
  """Matrices (M, 7 V, 7 V) and right-hand sides (M, 7 V) of a Gauss-Newton step, by moment."""
  centers = pose_refinement.silhouette_centers(poses, outlines)
  radius = pose_refinement.animal_radius(poses, outlines, centers)
  to32 = lambda x: jnp.asarray(x, jnp.float32)
  depths, jacobian = _linearized_depths(
    to32(poses), to32(lags), outlines, to32(centers), to32(velocities), to32(radius)
  )
  value = np.asarray(depths, np.float64)
  valid = (outlines.weights.reshape(value.shape) > 0) & (value < NO_DEPTH)
  lack = np.maximum(np.quantile(value[valid], _AGAIN.share) - value, 0.0)
  weight = np.where(valid & (lack > 0), 1.0 / (1.0 + (lack / _AGAIN.scale) ** 2), 0.0)
  rows = np.asarray(jacobian, np.float64)
  pushed = rows * weight[..., None]
  return np.einsum("mri,mrj->mij", pushed, rows), np.einsum("mri,mr->mi", pushed, lack)


@jax.jit
def _linearized_depths(
  poses: jax.Array,
  lags: jax.Array,
  outlines: Outlines,
  centers: jax.Array,
  velocities: jax.Array,
  radius: jax.Array,
) -> tuple[jax.Array, jax.Array]:
  """Depths of entry (M, V P) and their derivatives (M, V P, 7 V) by twists and lags."""
  views = len(poses)
  start = jnp.concatenate([jnp.zeros((views, 6)), lags[:, None]], -1)
  temperature = jnp.float32(_AGAIN.temperature)

  def one(row: tuple[Outlines, jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
    def depths(parameters: jax.Array) -> jax.Array:
      by_view = parameters.reshape(start.shape)
      # A late camera sees the animal where it was.
      shifts = by_view[:, 3:6] - by_view[:, 6:] * row[2]
      twists = jnp.concatenate([by_view[:, :3], shifts], -1)
      moved = poses @ pose_refinement.twist_matrices(twists)
      found = depths_of_entry(moved, jnp.ones(views), row[0], row[1], radius, temperature)
      return found.reshape(-1)

    value, push = jax.linearize(depths, start.reshape(-1))
    return value, jax.lax.map(push, jnp.eye(start.size)).T

  return jax.lax.map(one, (outlines, centers, velocities))
