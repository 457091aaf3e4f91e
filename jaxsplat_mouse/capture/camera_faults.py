"""Names the camera of a recording that no pose makes agree with the others, and why.

Right poses leave almost no contradiction between silhouettes. Where some is left, each camera in
turn is left out and the others' poses are fitted again: if the contradiction goes with one camera
alone, that camera has a fault. Its silhouettes of the frames before and after are then tried, since
a camera out of step by a frame is the commonest such fault.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import jax
import numpy as np

from jaxsplat_mouse.capture.pose_refinement import STAGES, fit_poses, worst_depths
from jaxsplat_mouse.capture.silhouette_coherence import Outlines

OFFSETS = (-2, -1, 1, 2)  # frames
_NOTICEABLE = 0.4  # pixels of contradiction that right cameras and masks do not leave
_GOES = 0.5  # share of the usual contradiction below which leaving a camera out mends the rest
_MENDS = 0.6  # share of the contradiction below which another frame explains the fault
_MIN_VIEWS = 4
_AGAIN = STAGES[1:3]  # poses are near; only the fault has bent them


@dataclasses.dataclass(frozen=True, kw_only=True)
class CameraFault:
  """A camera that contradicts the others under every pose.

  Attributes:
    view: its place among the cameras.
    contradiction: of the recording with it, pixels.
    without: of the recording without it, pixels.
    offset: frames to add to the camera's so that it agrees; 0 where that does not help.
    shifted: contradiction with this offset, pixels.
  """

  view: int
  contradiction: float
  without: float
  offset: int = 0
  shifted: float = 0.0

  def line(self, name: str) -> str:
    """Describes the fault of the camera `name`."""
    seen = f"warning: {name} contradicts the other cameras: {self.contradiction:.1f} px with it, "
    seen += f"{self.without:.1f} px without it"
    if self.offset:
      frames = f"{abs(self.offset)} frame{'s' if abs(self.offset) > 1 else ''}"
      side = "later" if self.offset > 0 else "earlier"
      return f"{seen}, {self.shifted:.1f} px with its pictures {frames} {side}: " + (
        f"try --offsets={name}:{self.offset}"
      )
    return f"{seen}; it moved during the recording, its masks are wrong, or try --without={name}"


def find_camera_fault(
  poses: np.ndarray, outlines: Outlines, read: Callable[[int, int], Outlines | None]
) -> CameraFault | None:
  """Looks for the one camera whose silhouettes no pose explains.

  Args:
    poses: (V, 4, 4) refined world to camera.
    outlines: of M moments.
    read: given a camera's place and an offset in frames, returns the camera's outlines (M, ...) of
      the frames that much later, or None where there are none.

  Returns:
    The fault; None where the cameras agree, are too few, or no single one is to blame.
  """
  ones = np.ones(len(poses))
  whole = _contradiction(poses, ones, outlines)
  if len(poses) < _MIN_VIEWS or whole < _NOTICEABLE:
    return None
  rest, fitted = [], []
  for view in range(len(poses)):
    remaining = without_view(outlines, view)
    fitted.append(fit_poses(poses, remaining, stages=_AGAIN)[0])
    rest.append(_contradiction(fitted[-1], ones, remaining))
  view = int(np.argmin(rest))
  usual = float(np.median(np.delete(rest, view)))
  if rest[view] > _GOES * usual:
    return None
  fault = CameraFault(view=view, contradiction=whole, without=rest[view])
  best, offset = whole, 0
  for candidate in OFFSETS:
    other = read(view, candidate)
    if other is None:
      continue
    shifted = with_view(outlines, view, other)
    found = _contradiction(fit_poses(fitted[view], shifted, stages=_AGAIN)[0], ones, shifted)
    if found < best:
      best, offset = found, candidate
  if best > _MENDS * whole:
    return fault
  return dataclasses.replace(fault, offset=offset, shifted=best)


def _contradiction(poses: np.ndarray, focal: np.ndarray, outlines: Outlines) -> float:
  """Pixels by which silhouettes contradict each other, the mean over moments; at least 0."""
  return max(0.0, -float(np.nanmean(worst_depths(poses, focal, outlines))))


def without_view(outlines: Outlines, view: int) -> Outlines:
  """Returns the outlines as if a camera had no silhouettes."""
  weights, whole = outlines.weights.copy(), outlines.whole.copy()
  weights[:, view], whole[:, view] = 0.0, False
  return dataclasses.replace(outlines, weights=weights, whole=whole)


def with_view(outlines: Outlines, view: int, other: Outlines) -> Outlines:
  """Returns the outlines with those of one camera replaced by others (M, ...)."""

  def put(leaf: np.ndarray, fresh: np.ndarray) -> np.ndarray:
    result = np.array(leaf)
    result[:, view] = fresh
    return result

  return jax.tree.map(put, outlines, other)
