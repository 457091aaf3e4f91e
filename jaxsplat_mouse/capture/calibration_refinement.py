"""Refines a recording's calibration with its own silhouettes, and writes `calibration.json`."""

from __future__ import annotations

import dataclasses
import json
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from jaxsplat_mouse.capture import pose_refinement
from jaxsplat_mouse.capture.crops import CroppedSilhouette, Cropper
from jaxsplat_mouse.capture.pose_refinement import PoseRefinement
from jaxsplat_mouse.capture.rig import Rig
from jaxsplat_mouse.capture.silhouette_coherence import Outlines, stack_outlines, trace_outline
from jaxsplat_mouse.errors import InputError, reason
from jaxsplat_mouse.io import atomic

CALIBRATION_FILE = "calibration.json"
MOMENTS = 32  # that take part, spread over the recording
FEWEST_MOMENTS = 6
_MIN_VIEWS = 3
_CROP_SIDE = 512  # pixels of a silhouette's crop
_SIDE = 256  # pixels of the grid that holds the largest silhouette
_ROOM = 1.25  # of that grid, in silhouettes
# A camera that contradicts the others by as much after the refinement, and by so many times more
# than most do, has a fault that no pose can mend.
_SUSPICIOUS, _TIMES = 1.0, 4.0


@dataclasses.dataclass(frozen=True, kw_only=True)
class CalibrationRefinement:
  """The result of refining a calibration.

  Attributes:
    rig: the calibration as given.
    views: numbers of the cameras that took part.
    moments: indices of the moments that took part.
    refinement: of these cameras; None where there were too few moments.
    contradictions: (2, V) by how many pixels each camera that took part contradicts the others,
      under the given and under the resulting poses.
  """

  rig: Rig
  views: tuple[int, ...] = ()
  moments: tuple[int, ...] = ()
  refinement: PoseRefinement | None = None
  contradictions: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros((2, 0)))

  @property
  def accepted(self) -> bool:
    """Whether held-out moments confirm the corrected poses."""
    return self.refinement is not None and self.refinement.accepted

  @property
  def world_to_camera(self) -> np.ndarray:
    """(V, 4, 4) poses to use: corrected where that is accepted, as given elsewhere."""
    poses = np.array(self.rig.world_to_camera, np.float64)
    if self.refinement is not None and self.accepted:
      poses[list(self.views)] = self.refinement.world_to_camera
    return poses

  def lines(self) -> list[str]:
    """Describes the result in plain English."""
    found = self.refinement
    if found is None:
      count = f"{len(self.moments)} moments with silhouettes in three cameras"
      return [f"calibration: kept as given; {count}, refining it takes {FEWEST_MOMENTS}"]
    before, after = (-float(np.mean(d)) for d in (found.depth_before, found.depth_after))
    evidence = f"held-out silhouettes contradict each other by {max(before, 0):.2f} px"
    if not found.accepted:
      return [
        f"calibration: kept as given; {evidence}, refined poses gain nothing",
        *self._doubts(),
      ]
    listed = " ".join(
      f"{self.rig.names[view]} {turn:.2f}° {shift:.2g} {self.rig.unit} {pixels:.1f} px".strip()
      for view, turn, shift, pixels in zip(
        self.views, found.turns, found.shifts, found.pixels, strict=True
      )
    )
    first = f"calibration: refined on {len(self.moments)} moments; {evidence} before"
    return [f"{first}, {max(after, 0):.2f} px after", f"corrected by {listed}", *self._doubts()]

  def _doubts(self) -> list[str]:
    """Names cameras that no pose makes agree with the others."""
    after = self.contradictions[1]
    usual = float(np.median(after)) if len(after) else 0.0
    return [
      f"warning: {self.rig.names[view]} still contradicts the other cameras by {px:.1f} px (the "
      f"others {usual:.1f}): late, moved during the recording, or its masks are wrong"
      for view, px in zip(self.views, after, strict=True)
      if px > _SUSPICIOUS and px > _TIMES * max(usual, 0.1)
    ]

  def to_json(self) -> dict[str, Any]:
    """Returns the content of `calibration.json`."""
    found = self.refinement
    value: dict[str, Any] = {
      "accepted": self.accepted,
      "unit": self.rig.unit,
      "moments": list(self.moments),
      "summary": self.lines(),
      "held_out_contradiction_px": {},
      "cameras": {},
    }
    numbers = lambda x: [round(float(v), 4) for v in x]
    if found is not None:
      value["held_out_contradiction_px"] = {
        "before": numbers(-found.depth_before),
        "after": numbers(-found.depth_after),
      }
    poses = self.world_to_camera
    for view, name in enumerate(self.rig.names):
      entry: dict[str, Any] = {
        "before": np.asarray(self.rig.world_to_camera[view], np.float64).tolist(),
        "after": poses[view].tolist(),
      }
      if found is not None and view in self.views:
        place = self.views.index(view)
        entry |= {
          "turn_degrees": round(float(found.turns[place]), 4),
          "shift": round(float(found.shifts[place]), 6),
          "motion_px": round(float(found.pixels[place]), 3),
          "contradiction_px": numbers(self.contradictions[:, place]),
        }
      value["cameras"][name] = entry
    return value


def refine_calibration(
  cropper: Cropper, frames: np.ndarray, started: Callable[[int, int], None]
) -> CalibrationRefinement:
  """Refines the poses of the readable cameras on moments spread over the whole recording.

  Args:
    cropper: reads the silhouettes.
    frames: (F, V) frame of each camera in each moment; -1 for none.
    started: called with the number of moments read, and of those to read.
  """
  rig, views = cropper.capture.rig, tuple(sorted(cropper.pinholes))
  chosen, rows = [], []
  candidates = _spread(frames[:, list(views)])
  for count, index in enumerate(candidates):
    started(count, len(candidates))
    found, _ = cropper.map_cameras(
      frames[index], lambda view, frame: cropper.crop_silhouette(view, frame, _CROP_SIDE)
    )
    if len(found) >= _MIN_VIEWS:
      chosen.append(int(index))
      rows.append([found.get(view) for view in views])
  if len(rows) < FEWEST_MOMENTS:
    return CalibrationRefinement(rig=rig, views=views, moments=tuple(chosen))
  outlines = _trace(rows)
  given = np.asarray(rig.world_to_camera, np.float64)[list(views)]
  refinement = pose_refinement.refine_poses(given, outlines)
  contradictions = [
    -pose_refinement.worst_depths_of_views(poses, focal, outlines)
    for poses, focal in (
      (given, np.ones(len(views))),
      (refinement.world_to_camera, refinement.focal),
    )
  ]
  return CalibrationRefinement(
    rig=rig,
    views=views,
    moments=tuple(chosen),
    refinement=refinement,
    contradictions=np.stack(contradictions),
  )


def _spread(frames: np.ndarray) -> np.ndarray:
  """At most `MOMENTS` indices of moments, evenly spread over those that enough cameras have."""
  usable = np.flatnonzero((frames >= 0).sum(1) >= min(_MIN_VIEWS, frames.shape[1]))
  places = np.linspace(0, len(usable) - 1, min(len(usable), MOMENTS)).round().astype(int)
  return usable[np.unique(places)]


def _trace(rows: Sequence[Sequence[CroppedSilhouette | None]]) -> Outlines:
  """Traces the silhouettes of M moments, all at one scale; None stands for a missing one."""
  longest = max(max(one.alpha.shape) / one.scale for row in rows for one in row if one is not None)
  scale = min(1.0, _SIDE * 1.4 / (_ROOM * longest))
  nothing = trace_outline(np.zeros((8, 8), np.uint8), np.ones(4), np.zeros(4), side=_SIDE)

  def trace(one: CroppedSilhouette | None) -> Outlines:
    if one is None:
      return nothing
    return trace_outline(one.alpha, one.intrinsics, one.seen, side=_SIDE, scale=scale / one.scale)

  return stack_outlines([[trace(one) for one in row] for row in rows])


def write_calibration(folder: pathlib.Path, found: CalibrationRefinement) -> None:
  """Writes `calibration.json`.

  Raises:
    OSError: the disk is full or not writable.
  """
  text = json.dumps(found.to_json(), indent=1, allow_nan=False)
  atomic.write_bytes(folder / CALIBRATION_FILE, text.encode())


def read_poses(folder: pathlib.Path, rig: Rig) -> np.ndarray | None:
  """Reads the poses (V, 4, 4) that an earlier run settled on; None where it wrote none.

  Args:
    folder: the output folder.
    rig: the calibration as given, whose cameras the file must list.

  Raises:
    InputError: the file is broken or lists other cameras.
  """
  path = folder / CALIBRATION_FILE
  try:
    cameras = json.loads(path.read_text())["cameras"]
    poses = np.array([cameras[name]["after"] for name in rig.names], np.float64)
  except FileNotFoundError:
    return None
  except (OSError, ValueError, KeyError, TypeError) as error:
    problem = f"cannot be read ({reason(error)}); expected the file of an earlier run, or --redo"
    raise InputError(path, "", problem) from None
  if poses.shape != (len(rig), 4, 4):
    raise InputError(path, "cameras", f"shape {poses.shape}; expected ({len(rig)}, 4, 4)")
  return poses
