"""Names the camera of a recording that no single pose makes agree with the others, and why.

Right poses leave almost no contradiction between silhouettes. Where some is left, a camera that
moved during the recording is looked for first (`camera_moves`). Else each camera in turn is left
out and the others' poses are fitted again: if the contradiction goes with one camera alone, that
camera has a fault. Cameras out of step have been found before (`frame_offsets`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxsplat_mouse.capture import camera_moves
from jaxsplat_mouse.capture.camera_moves import CameraMove
from jaxsplat_mouse.capture.pose_refinement import STAGES, CoherenceStage, fit_poses, worst_depths
from jaxsplat_mouse.capture.recording_outlines import evenly
from jaxsplat_mouse.capture.silhouette_coherence import Outlines

_NOTICEABLE = 0.4  # pixels of contradiction that right cameras and masks do not leave
_GOES = 0.5  # share of the usual contradiction below which leaving a camera out mends the rest
_MIN_VIEWS = 4
_MOMENTS = 12  # enough to name a camera; its fault is large or does not matter
_STAGES = STAGES[:3]  # poses are near; only the fault has bent them


@dataclasses.dataclass(frozen=True, kw_only=True)
class CameraFault:
  """A camera that contradicts the others under every pose.

  Attributes:
    view: its place among the cameras.
    contradiction: of the recording with it, pixels.
    without: of the recording without it, or with its second pose where it moved, pixels.
    residuals: (M,) by how many pixels it contradicts the others in each moment, where their poses
      were fitted without it, or its own before it moved.
    move: its change of pose; None for another fault.
  """

  view: int
  contradiction: float
  without: float
  residuals: tuple[float, ...]
  move: CameraMove | None = None

  def rescale(self, factor: float) -> CameraFault:
    """Returns the fault in pixels of which one of these is `factor`."""
    move = self.move
    if move is not None:
      keys = ("pixels", "contradiction", "mended")
      move = dataclasses.replace(move, **{key: factor * getattr(move, key) for key in keys})
    return dataclasses.replace(
      self,
      contradiction=factor * self.contradiction,
      without=factor * self.without,
      residuals=tuple(factor * residual for residual in self.residuals),
      move=move,
    )

  def line(self, name: str, moments: Sequence[int]) -> str:
    """Describes the fault of the camera `name`; `moments` (M,) are those of the residuals."""
    residuals = np.array(self.residuals)
    seen = f"warning: {name} contradicts the other cameras"
    if self.move is not None:
      before, after = residuals[: self.move.start], residuals[self.move.start :]
      last, first = moments[self.move.start - 1], moments[self.move.start]
      return (
        f"{seen}: it moved between the moments {last} and {first}, by {self.move.pixels:.1f} px; "
        f"against its pose of before, {before.mean():.1f} px until then and {after.mean():.1f} px "
        f"since; with two poses held-out silhouettes contradict each other by {self.without:.2f} px"
        f", with one by {self.contradiction:.2f} px; prepare the two parts, or try --without={name}"
      )
    parts = " ".join(f"{part.mean():.1f}" for part in np.array_split(residuals, 4))
    return (
      f"{seen}: {self.contradiction:.1f} px with it, {self.without:.1f} px without it; its own in "
      f"the quarters of the recording {parts} px; its pose, lens or masks are wrong: try "
      f"--without={name}"
    )

  def to_json(self, name: str, moments: Sequence[int]) -> dict[str, Any]:
    """Returns what `calibration.json` keeps; arguments as for `line`."""
    value: dict[str, Any] = {
      "camera": name,
      "contradiction_px": round(self.contradiction, 3),
      "without_px": round(self.without, 3),
      "moments": list(moments),
      "residuals_px": [round(float(r), 3) for r in self.residuals],
    }
    if self.move is not None:
      value["moved"] = {
        "between": [int(moments[self.move.start - 1]), int(moments[self.move.start])],
        "pixels": round(self.move.pixels, 3),
        "before": self.move.poses[self.view].tolist(),
        "after": self.move.after.tolist(),
      }
    return value


def find_camera_fault(
  poses: np.ndarray, outlines: Outlines, *, stages: Sequence[CoherenceStage] = _STAGES
) -> CameraFault | None:
  """Looks for the one camera whose silhouettes no single pose explains.

  Args:
    poses: (V, 4, 4) refined world to camera.
    outlines: of M moments in the order of time.
    stages: the passes of the fits with two poses, or without a camera.

  Returns:
    The fault; None where the cameras agree, are too few, or no single one is to blame.
  """
  if len(poses) < _MIN_VIEWS:
    return None
  move = camera_moves.find_move(poses, outlines, stages=stages)
  if move is not None:
    return CameraFault(
      view=move.view,
      contradiction=move.contradiction,
      without=move.mended,
      residuals=_residuals(move.poses, outlines, move.view),
      move=move,
    )
  some = outlines.select(evenly(len(outlines.rays), _MOMENTS))
  whole = _contradiction(poses, some)
  if whole < _NOTICEABLE:
    return None
  rest, fitted = [], []
  for view in range(len(poses)):
    remaining = without_view(some, view)
    fitted.append(fit_poses(poses, remaining, stages=stages[1:])[0])
    rest.append(_contradiction(fitted[-1], remaining))
  view = int(np.argmin(rest))
  if rest[view] > _GOES * float(np.median(np.delete(rest, view))):
    return None
  return CameraFault(
    view=view,
    contradiction=whole,
    without=rest[view],
    residuals=_residuals(fitted[view], outlines, view),
  )


def _residuals(poses: np.ndarray, outlines: Outlines, view: int) -> tuple[float, ...]:
  """Pixels by which one camera contradicts the others in each moment; 0 where it shows nothing."""
  depths = camera_moves.view_depths(poses, outlines)[:, view]
  return tuple(float(d) for d in np.maximum(0.0, -np.nan_to_num(depths)))


def _contradiction(poses: np.ndarray, outlines: Outlines) -> float:
  """Pixels by which silhouettes contradict each other, the mean over moments; at least 0."""
  depths = worst_depths(poses, np.ones(len(poses)), outlines)
  return max(0.0, -float(np.nanmean(depths)))


def without_view(outlines: Outlines, view: int) -> Outlines:
  """Returns the outlines as if a camera had no silhouettes."""
  weights, whole = outlines.weights.copy(), outlines.whole.copy()
  weights[:, view], whole[:, view] = 0.0, False
  return dataclasses.replace(outlines, weights=weights, whole=whole)
