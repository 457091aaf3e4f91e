"""Finds the cameras of a recording that are whole frames early or late, from its silhouettes.

A camera that is late shows the silhouettes of earlier frames, which differ from the right ones in
another way in every moment; a wrong pose displaces all of them alike. So one time lag per camera
is fitted together with the poses, by the same Gauss-Newton steps on the rays' depths of entry
(`pose_refinement`): how a silhouette changes with time is known from the frames before and after.
Whole frames of the lags are then applied, the silhouettes of those frames are read, and what
remains of the lags is fitted again.

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

_ROUNDS = 5  # of applying whole frames and fitting what remains
_MOST = 8  # frames; rates of change say nothing about longer lags
_AT_ONCE = 2  # frames that rates of change reach
_LAG = 2.0  # prior of a lag, frames; it decides only what the silhouettes leave open
_MAX_STEP = 1.5  # frames
_SETTLED = 0.01  # frames
SURE = 3.0  # standard errors that a lag must be away from zero
SHARP = 0.25  # frames; a larger standard error does not tell one frame from the next
_CONFIRMED = 2.0  # standard errors by which held-out moments must agree better
_LEAST_NOISE = 0.05  # pixels of a ray
_NEAR = 0.5  # frames; lags farther from the usual one have no say in what is usual
_AGAIN = CoherenceStage(steps=8, temperature=1.0, scale=4.0, share=0.4)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class MovingOutlines:
  """Silhouettes of M moments, and how they change from frame to frame.

  Attributes:
    outlines: of M moments.
    ray_rates: (M, V, P, 2) motion of `Outlines.rays` along the outline's normal, per frame.
    distance_rates: (M, V, S, S) change of `Outlines.distances`, pixels per frame.
  """

  outlines: Outlines
  ray_rates: np.ndarray
  distance_rates: np.ndarray

  def select(self, moments: Sequence[int] | np.ndarray) -> MovingOutlines:
    """Returns some of the moments."""
    index = np.asarray(moments, int)
    return jax.tree.map(lambda leaf: leaf[index], self)

  def later(self, lags: jax.Array) -> Outlines:
    """Outlines of one moment, without the axis M, `lags` (V,) frames later."""
    late = lags[:, None, None]
    return dataclasses.replace(
      self.outlines,
      rays=self.outlines.rays + late * self.ray_rates,
      distances=self.outlines.distances + late * self.distance_rates,
    )


def trace_motion(before: Outlines, own: Outlines, after: Outlines) -> MovingOutlines:
  """Compares a silhouette with those of the frames before and after; none has axes M and V."""
  fields = [_on_grid_of(own, other) for other in (before, after)]
  rate = (fields[1] - fields[0]) / 2
  down, across = np.gradient(own.distances)
  pixels = own.rays * own.intrinsics[:2] + own.intrinsics[2:]
  at = [_sample_field(field, pixels) for field in (rate, across, down)]
  # Where the distance grows the outline moves outward, against the distance's gradient.
  inward = np.stack(at[1:], -1) / np.maximum(np.hypot(at[1], at[2]), 1e-3)[:, None]
  known = before.weights.any() and own.weights.any() and after.weights.any()
  return MovingOutlines(
    outlines=own if known else dataclasses.replace(own, weights=np.zeros_like(own.weights)),
    ray_rates=(-at[0][:, None] * inward / own.intrinsics[:2]).astype(np.float32),
    distance_rates=rate.astype(np.float32),
  )


def _on_grid_of(own: Outlines, other: Outlines) -> np.ndarray:
  """Signed distances (S, S) of another silhouette at the grid points of one, grid pixels."""
  side = len(own.distances)
  line = np.arange(side) + 0.5
  place = np.stack(np.meshgrid(line, line), -1)
  place = (place - own.intrinsics[2:]) / own.intrinsics[:2]
  place = place * other.intrinsics[:2] + other.intrinsics[2:]
  beyond = np.abs(place - np.clip(place, 0.5, side - 0.5)).sum(-1)
  return np.asarray(_sample_field(other.distances, place) - beyond)


def _sample_field(field: np.ndarray, pixels: np.ndarray) -> np.ndarray:
  """Bilinear values of a field (S, S) at pixel coordinates (..., 2); its border goes on outside."""
  import cv2

  x, y = (np.ascontiguousarray(np.atleast_2d(pixels[..., i] - 0.5), np.float32) for i in (0, 1))
  found = cv2.remap(
    field.astype(np.float32), x, y, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE
  )
  return np.asarray(found).reshape(pixels.shape[:-1])


@dataclasses.dataclass(frozen=True, kw_only=True)
class FrameOffsets:
  """Time lags of V cameras and the evidence for them.

  Attributes:
    offsets: (V,) int, frames to add to each camera's so that all agree; 0 where nothing is sure.
    lags: (V,) frames by which each camera is late, parts of frames included.
    errors: (V,) their standard errors.
    motion: (V,) root mean square motion of the outlines along their normals, pixels per frame.
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

  def rescale(self, factor: float) -> FrameOffsets:
    """Returns the same in pixels of which there are `factor` to one of these."""
    return dataclasses.replace(
      self,
      motion=factor * self.motion,
      before=factor * self.before,
      after=factor * self.after,
    )


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
    """(V,) int: the lags that are sure, in whole frames, of which a few at once; 0 elsewhere."""
    sure = np.abs(self.lags) > SURE * self.errors
    return np.where(sure, np.clip(np.round(self.lags), -_AT_ONCE, _AT_ONCE), 0).astype(int)


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
  fitted, held = np.arange(len(first.ray_rates))[::2], np.arange(len(first.ray_rates))[1::2]
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
  sharp = bool((found.errors[offsets != 0] < SHARP).all())
  confirmed = bool(offsets.any()) and sharp and _is_confirmed(before - after)
  return FrameOffsets(
    offsets=offsets if confirmed else np.zeros_like(offsets),
    lags=offsets + found.lags,
    errors=found.errors,
    motion=_motion(moving),
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


def _motion(moving: MovingOutlines) -> np.ndarray:
  """Root mean square motion (V,) of the outlines, pixels per frame."""
  pixels = moving.ray_rates * moving.outlines.intrinsics[:, :, None, :2]
  weight = moving.outlines.weights
  total = (weight * np.square(pixels).sum(-1)).sum((0, 2))
  return np.asarray(np.sqrt(total / np.maximum(weight.sum((0, 2)), 1.0)))


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
  views = len(poses)
  scales = np.tile([*pose_refinement.POSE_SCALES, _LAG], views)
  total = np.zeros((views, 7))
  for _ in range(_AGAIN.steps):
    blocks, gradients, noise = normal_blocks(moved, total[:, 6], moving)
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
  prior = np.diag(1.0 / scales**2)
  covariance = np.linalg.inv(blocks.sum(0) / noise**2 + prior).reshape(views, 7, views, 7)[
    :, 6, :, 6
  ]
  open_part = np.einsum("ij,jk,ik->i", contrast, covariance, contrast)
  return LagFit(
    poses=pose_refinement.from_unit(moved, center, unit),
    lags=contrast @ lags,
    errors=np.sqrt(jackknife + open_part),
  )


def normal_blocks(
  poses: np.ndarray, lags: np.ndarray, moving: MovingOutlines
) -> tuple[np.ndarray, np.ndarray, float]:
  """Linearises by moment.

  Args:
    poses: (V, 4, 4) in units of the animal, around it.
    lags: (V,) frames.
    moving: the silhouettes of M moments.

  Returns:
    Matrices (M, 7 V, 7 V) and right-hand sides (M, 7 V) of a Gauss-Newton step, of six numbers of a
    twist and a lag for each view, and the rays' root mean square lack of depth, pixels.
  """
  outlines = moving.outlines
  centers = pose_refinement.silhouette_centers(poses, outlines)
  radius = pose_refinement.animal_radius(poses, outlines, centers)
  to32 = lambda x: jnp.asarray(x, jnp.float32)
  depths, jacobian = _linearized_depths(
    to32(poses), to32(lags), moving, to32(centers), to32(radius)
  )
  value = np.asarray(depths, np.float64)
  valid = (outlines.weights.reshape(value.shape) > 0) & (value < NO_DEPTH)
  lack = np.maximum(np.quantile(value[valid], _AGAIN.share) - value, 0.0)
  weight = np.where(valid & (lack > 0), 1.0 / (1.0 + (lack / _AGAIN.scale) ** 2), 0.0)
  rows = np.asarray(jacobian, np.float64)
  pushed = rows * weight[..., None]
  noise = np.sqrt((weight * np.square(lack)).sum() / max(weight.sum(), 1e-9))
  right = np.einsum("mri,mr->mi", pushed, lack)
  return np.einsum("mri,mrj->mij", pushed, rows), right, max(float(noise), _LEAST_NOISE)


@jax.jit
def _linearized_depths(
  poses: jax.Array,
  lags: jax.Array,
  moving: MovingOutlines,
  centers: jax.Array,
  radius: jax.Array,
) -> tuple[jax.Array, jax.Array]:
  """Depths of entry (M, V P) and their derivatives (M, V P, 7 V) by twists and lags."""
  views = len(poses)
  start = jnp.concatenate([jnp.zeros((views, 6)), lags[:, None]], -1)
  temperature = jnp.float32(_AGAIN.temperature)

  def one(row: tuple[MovingOutlines, jax.Array]) -> tuple[jax.Array, jax.Array]:
    def depths(parameters: jax.Array) -> jax.Array:
      by_view = parameters.reshape(start.shape)
      moved = poses @ pose_refinement.twist_matrices(by_view)
      moment = row[0].later(by_view[:, 6])
      found = depths_of_entry(moved, jnp.ones(views), moment, row[1], radius, temperature)
      return found.reshape(-1)

    value, push = jax.linearize(depths, start.reshape(-1))
    return value, jax.lax.map(push, jnp.eye(start.size)).T

  return jax.lax.map(one, (moving, centers))
