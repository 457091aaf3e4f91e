"""Refines a recording's calibration with its own silhouettes, and writes `calibration.json`."""

from __future__ import annotations

import dataclasses
import json
import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np

from jaxsplat_mouse.capture import camera_faults, pose_refinement, recording_outlines
from jaxsplat_mouse.capture.camera_faults import CameraFault
from jaxsplat_mouse.capture.camera_motion import camera_motions
from jaxsplat_mouse.capture.crops import Cropper
from jaxsplat_mouse.capture.pose_refinement import PoseRefinement
from jaxsplat_mouse.capture.rig import Rig
from jaxsplat_mouse.errors import InputError, reason
from jaxsplat_mouse.io import atomic

CALIBRATION_FILE = "calibration.json"
MOMENTS = 32  # that take part, spread over the recording
FEWEST_MOMENTS = 6


@dataclasses.dataclass(frozen=True, kw_only=True)
class CalibrationRefinement:
  """The result of refining a calibration.

  Attributes:
    rig: the calibration as given.
    views: numbers of the cameras that took part.
    moments: indices of the moments that took part.
    refinement: of these cameras; None where there were too few moments.
    fault: of the one camera that no pose makes agree with the others; None for none.
    over_time: (2, M, V) by how many pixels each camera that took part contradicts the others in
      each moment, under the given and under the resulting poses; NaN without a silhouette.
    off_by: (V,) pixels by which the given pose moves what the camera sees of the animal; see
      `camera_motion`.
    angles: (V,) the same in degrees.
    objection: why poses that held-out moments confirm are not used all the same, or "".

  All pixels are those of the pictures.
  """

  rig: Rig
  views: tuple[int, ...] = ()
  moments: tuple[int, ...] = ()
  refinement: PoseRefinement | None = None
  fault: CameraFault | None = None
  over_time: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros((2, 0, 0)))
  off_by: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(0))
  angles: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(0))
  objection: str = ""

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

  @property
  def contradictions(self) -> np.ndarray:
    """(2, V) means of `over_time`; NaN for a camera without silhouettes."""
    known = np.isfinite(self.over_time)
    total = np.where(known, self.over_time, 0.0).sum(1)
    return np.where(known.any(1), total / np.maximum(known.sum(1), 1), np.nan)

  def reject(self, objection: str) -> CalibrationRefinement:
    """Returns the result with the poses as given, and the reason for that."""
    assert self.refinement is not None
    given = np.asarray(self.rig.world_to_camera, np.float64)[list(self.views)]
    kept = dataclasses.replace(self.refinement, accepted=False, world_to_camera=given)
    same = np.stack([self.over_time[0]] * 2)
    return dataclasses.replace(self, refinement=kept, over_time=same, objection=objection)

  def lines(self) -> list[str]:
    """Describes the result in plain English."""
    found = self.refinement
    if found is None:
      count = f"{len(self.moments)} moments with silhouettes in three cameras"
      return [f"calibration: kept as given; {count}, refining it takes {FEWEST_MOMENTS}"]
    before, after = (-float(np.mean(d)) for d in (found.depth_before, found.depth_after))
    evidence = f"held-out silhouettes contradict each other by {max(before, 0):.2f} px"
    if not found.accepted:
      reason = self.objection or f"{evidence}, refined poses gain nothing"
      return [f"calibration: kept as given; {reason}", *self._doubts()]
    listed = " ".join(
      f"{self.rig.names[view]} {turn:.2f}° {shift:.2g} {self.rig.unit} {pixels:.1f} px".strip()
      for view, turn, shift, pixels in zip(
        self.views, found.turns, found.shifts, found.pixels, strict=True
      )
    )
    first = f"calibration: refined on {len(self.moments)} moments; {evidence} before"
    return [f"{first}, {max(after, 0):.2f} px after", f"corrected by {listed}", *self._doubts()]

  def _doubts(self) -> list[str]:
    """Names the camera that no pose makes agree with the others."""
    if self.fault is None:
      return []
    return [self.fault.line(self.rig.names[self.views[self.fault.view]], self.moments)]

  def _fault_json(self) -> dict[str, Any] | None:
    if self.fault is None:
      return None
    return self.fault.to_json(self.rig.names[self.views[self.fault.view]], self.moments)

  def to_json(self) -> dict[str, Any]:
    """Returns the content of `calibration.json`."""
    found = self.refinement
    value: dict[str, Any] = {
      "accepted": self.accepted,
      "objection": self.objection,
      "unit": self.rig.unit,
      "moments": list(self.moments),
      "summary": self.lines(),
      "held_out_contradiction_px": {},
      "fault": self._fault_json(),
      "cameras": {},
    }
    numbers = lambda x: [None if np.isnan(v) else round(float(v), 4) for v in x]
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
          "off_by_px": round(float(self.off_by[place]), 3),
          "off_by_degrees": round(float(self.angles[place]), 4),
          "contradiction_px": numbers(self.contradictions[:, place]),
          "over_time_px": dict(
            zip(("before", "after"), map(numbers, self.over_time[:, :, place]), strict=True)
          ),
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
  chosen, rows = recording_outlines.read_moments(cropper, frames, views, MOMENTS, started)
  if len(rows) < FEWEST_MOMENTS:
    return CalibrationRefinement(rig=rig, views=views, moments=tuple(chosen))
  scale = recording_outlines.grid_scale(rows)
  outlines = recording_outlines.trace_silhouettes(rows, scale)
  given = np.asarray(rig.world_to_camera, np.float64)[list(views)]
  found = pose_refinement.refine_poses(given, outlines)
  fault = camera_faults.find_camera_fault(found.world_to_camera, outlines)
  before = pose_refinement.worst_depths_over_time(given, np.ones(len(views)), outlines)
  after = pose_refinement.worst_depths_over_time(found.world_to_camera, found.focal, outlines)
  centers = pose_refinement.silhouette_centers(given, outlines)
  radius = pose_refinement.animal_radius(given, outlines, centers)
  focal = np.array([cropper.pinholes[view].intrinsics[0] for view in views])
  off_by = camera_motions(given, found.world_to_camera, focal, centers.mean(0), radius)
  return CalibrationRefinement(
    rig=rig,
    views=views,
    moments=tuple(chosen),
    refinement=_in_picture_pixels(found, scale),
    fault=None if fault is None else fault.rescale(1 / scale),
    over_time=-np.stack([before, after]) / scale,
    off_by=off_by,
    angles=np.degrees(np.arctan(off_by / focal)),
  )


def _in_picture_pixels(found: PoseRefinement, scale: float) -> PoseRefinement:
  """Returns a result whose pixels were those of the outlines' grid."""
  keys = ("depth_before", "depth_after", "pixels")
  return dataclasses.replace(found, **{key: getattr(found, key) / scale for key in keys})


def write_calibration(folder: pathlib.Path, found: CalibrationRefinement) -> None:
  """Writes `calibration.json`.

  Raises:
    OSError: the disk is full or not writable.
  """
  text = json.dumps(found.to_json(), indent=1, allow_nan=False)
  atomic.write_bytes(folder / CALIBRATION_FILE, text.encode())


def discard_calibration(folder: pathlib.Path) -> None:
  """Removes the `calibration.json` of an earlier run, which a later run would read otherwise."""
  (folder / CALIBRATION_FILE).unlink(missing_ok=True)


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
