"""Finds the camera of a recording that was moved while it ran: its pose is one before, one after.

Every camera and every moment is tried at once, to first order: one Gauss-Newton step tells by how
much the silhouettes would agree better if the pose of that camera changed at that moment, all other
poses free. The best of them is then fitted in earnest, as two cameras of which each has silhouettes
on one side of the moment only, and moments that took no part must confirm it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import jax
import numpy as np

from jaxsplat_mouse.capture import frame_offsets, pose_refinement
from jaxsplat_mouse.capture.frame_offsets import MovingOutlines
from jaxsplat_mouse.capture.pose_refinement import CoherenceStage
from jaxsplat_mouse.capture.silhouette_coherence import Outlines

_FEWEST = 2  # moments on either side
_STAGES = pose_refinement.STAGES[:3]
_EXPECTED = 0.5  # pixels to first order, below which nothing is fitted
_PIXELS = 1.0  # by which a camera must move its picture to be named


@dataclasses.dataclass(frozen=True, kw_only=True)
class CameraMove:
  """A camera whose pose changes once.

  Attributes:
    view: its place among the cameras.
    start: the first of the M moments with the second pose.
    poses: (V, 4, 4) of all cameras, this one as before its move.
    after: (4, 4) its pose after the move.
    pixels: root mean square motion of its picture, near the animal.
    contradiction: of held-out moments with one pose for each camera, pixels.
    mended: likewise with two for this one.
  """

  view: int
  start: int
  poses: np.ndarray
  after: np.ndarray
  pixels: float
  contradiction: float
  mended: float


def find_move(
  poses: np.ndarray, outlines: Outlines, *, stages: Sequence[CoherenceStage] = _STAGES
) -> CameraMove | None:
  """Looks for the camera that explains most contradictions between silhouettes by one move.

  Args:
    poses: (V, 4, 4) world to camera, fitted with one pose for each camera.
    outlines: of M moments in the order of time.
    stages: the passes of the fit with two poses.

  Returns:
    The move; None where held-out moments do not confirm it.
  """
  count = len(outlines.rays)
  if count < 4 * _FEWEST:
    return None
  view, start, expected = _best_split(poses, outlines)
  if _picture_motion(np.concatenate([poses, expected[None]]), outlines, view) < _EXPECTED:
    return None
  fitted, held = np.arange(0, count, 2), np.arange(1, count, 2)
  for _ in range(2):
    split = split_view(outlines, view, start)
    both = np.concatenate([poses, poses[view : view + 1]])
    both, _ = pose_refinement.fit_poses(both, split.select(fitted), stages=stages)
    first, second = _depths_of_both(both, outlines, view)
    found = _best_start(second - first)
    if found == start:
      break
    start = found
  later = np.arange(count) >= start
  own, other = np.where(later, second, first), np.where(later, first, second)
  pixels = _picture_motion(both, outlines, view)
  if pixels < _PIXELS or not pose_refinement.is_confirmed(other[held], own[held]):
    return None
  ones, held_out = np.ones(len(both)), (outlines.select(held), split.select(held))
  before = pose_refinement.worst_depths(poses, ones[1:], held_out[0])
  after = pose_refinement.worst_depths(both, ones, held_out[1])
  return CameraMove(
    view=view,
    start=start,
    poses=both[:-1],
    after=both[-1],
    pixels=pixels,
    contradiction=max(0.0, -float(np.nanmean(before))),
    mended=max(0.0, -float(np.nanmean(after))),
  )


def split_view(outlines: Outlines, view: int, start: int) -> Outlines:
  """Adds a camera that takes over the silhouettes of another from a moment on.

  Args:
    outlines: of M moments and V views.
    view: the camera that is split.
    start: the first moment of the added camera.

  Returns:
    Outlines of V + 1 views.
  """
  extended = jax.tree.map(
    lambda leaf: np.concatenate([leaf, leaf[:, view : view + 1]], 1), outlines
  )
  weights, whole = extended.weights.copy(), extended.whole.copy()
  weights[start:, view], whole[start:, view] = 0.0, False
  weights[:start, -1], whole[:start, -1] = 0.0, False
  return dataclasses.replace(extended, weights=weights, whole=whole)


def _best_split(poses: np.ndarray, outlines: Outlines) -> tuple[int, int, np.ndarray]:
  """The change of pose that lowers the linearised cost most: view, first moment, pose (4, 4)."""
  center, unit = pose_refinement.animal_place(poses, outlines)
  moved = pose_refinement.to_unit(poses, center, unit)
  views, count = len(poses), len(outlines.rays)
  still = MovingOutlines(
    outlines=outlines,
    ray_rates=np.zeros_like(outlines.rays),
    distance_rates=np.zeros_like(outlines.distances),
  )
  blocks, gradients, _ = frame_offsets.normal_blocks(moved, np.zeros(views), still)
  prior = 1.0 / np.tile([*pose_refinement.POSE_SCALES, 1.0], views) ** 2
  inverse = np.linalg.inv(blocks.sum(0) + np.diag(prior))
  whole = gradients.sum(0)
  later, pulls = np.cumsum(blocks[::-1], 0)[::-1], np.cumsum(gradients[::-1], 0)[::-1]
  best, place, change = -np.inf, (0, _FEWEST), np.zeros(6)
  for view in range(views):
    own = slice(7 * view, 7 * view + 6)
    for start in range(_FEWEST, count - _FEWEST + 1):
      across = later[start][:, own]
      schur = later[start][own, own] + np.diag(prior[own]) - across.T @ inverse @ across
      pull = pulls[start][own] - across.T @ inverse @ whole
      twist = np.linalg.solve(schur, pull)
      if pull @ twist > best:
        best, place, change = float(pull @ twist), (view, start), twist
  moved[place[0]] = pose_refinement.turn_poses(moved[place[0], None], change[None])[0]
  return *place, pose_refinement.from_unit(moved, center, unit)[place[0]]


def _depths_of_both(
  both: np.ndarray, outlines: Outlines, view: int
) -> tuple[np.ndarray, np.ndarray]:
  """Depths (M,) of one view under its first pose, and under the added one; both (V + 1, 4, 4)."""
  second = both[:-1].copy()
  second[view] = both[-1]
  one, other = (view_depths(p, outlines)[:, view] for p in (both[:-1], second))
  known = np.isfinite(one) & np.isfinite(other)
  return np.where(known, one, 0.0), np.where(known, other, 0.0)


def _best_start(gain: np.ndarray) -> int:
  """The moment from which on the second pose is better; `gain` (M,) is by how much it is."""
  total = np.cumsum(gain[::-1])[::-1]
  return _FEWEST + int(total[_FEWEST : len(gain) - _FEWEST + 1].argmax())


def view_depths(poses: np.ndarray, outlines: Outlines) -> np.ndarray:
  """Mean (M, V) of the smallest depths of entry of each silhouette's rays, pixels."""
  depths = pose_refinement.ray_depths(poses, np.ones(len(poses)), outlines)
  return np.array([[pose_refinement.mean_of_worst(d) for d in row] for row in depths])


def _picture_motion(both: np.ndarray, outlines: Outlines, view: int) -> float:
  """Root mean square motion of the animal's middles between two poses of a view, pixels."""
  centers = pose_refinement.silhouette_centers(both[:-1], outlines)
  seen = []
  for pose in (both[view], both[-1]):
    x = centers @ pose[:3, :3].T + pose[:3, 3]
    seen.append(x[:, :2] / x[:, 2:])
  focal = float(np.median(outlines.intrinsics[:, view, 0]))
  return focal * float(np.sqrt(np.square(seen[0] - seen[1]).sum(-1).mean()))
