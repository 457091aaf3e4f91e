"""The whole job: calibration checked, silhouettes measured, every moment cut and written.

All cameras go through their videos in step, one moment at a time, so memory does not depend on the
length of a recording. A first pass reads the masks alone: the largest silhouette sets the one
window of the batch, exactly, for about a tenth of the time that cutting takes.
"""

from __future__ import annotations

import collections
import dataclasses
import time
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
from rich.console import Console

from jaxsplat_mouse.capture import calibration_check, common_solid, lens, recording_file
from jaxsplat_mouse.capture.check_sheet import write_check_sheet
from jaxsplat_mouse.capture.crop_windows import CropWindow, choose_window
from jaxsplat_mouse.capture.crops import Crop, Cropper, write_scene_folder
from jaxsplat_mouse.capture.frame_reader import FrameReader
from jaxsplat_mouse.capture.prepare_options import (
  PrepareOptions,
  check_camera_names,
  select_moments,
  shift_frames,
)
from jaxsplat_mouse.capture.raw_capture import Capture
from jaxsplat_mouse.capture.recording_file import DONE, FAILED, MomentRecord
from jaxsplat_mouse.errors import InputError
from jaxsplat_mouse.io import atomic
from jaxsplat_mouse.runtime.progress import Progress
from jaxsplat_mouse.runtime.signals import Stopped, StopRequest

_ENOUGH = 4  # cameras that a scene takes, where the rig has as many; three otherwise
_SAVE_SECONDS = 30.0
_OK, _NOTHING, _SOME_FAILED = 0, 1, 3


def prepare_recording(
  settings: PrepareOptions, capture: Capture, console: Console | None = None
) -> int:
  """Prepares the chosen moments of a recording; the exit status.

  Raises:
    InputError: nothing can be prepared: too few cameras, a calibration that contradicts the
      silhouettes, other settings than in the output folder.
  """
  indices = select_moments(settings.frames, len(capture.moments))
  frames = shift_frames(capture, settings.offsets)
  _make_folder(settings)
  before = None if settings.redo else recording_file.read_recording(settings)
  scenes = recording_file.scene_names(settings, capture, indices.tolist())
  names = dict(zip(indices.tolist(), scenes, strict=True))
  found = _found(settings, names, before)
  pending = [i for i in names if i not in found]
  with (
    Progress("scenes", len(names), len(names) - len(pending), console) as progress,
    FrameReader(capture, settings.specks, settings.grow) as frame_reader,
    StopRequest() as stop,
    open_cameras(capture, frame_reader, frames[indices], progress, settings.without) as cropper,
  ):
    job = _Preparation(settings, capture, cropper, frames, names, progress, stop, found)
    try:
      return job.run(pending, before)
    except Stopped as error:
      progress.line(f"stopped by {error.name}; the same command goes on")
      return error.exit_status


def check_recording(
  settings: PrepareOptions, capture: Capture, console: Console | None = None
) -> int:
  """Writes the contact sheet of a calibration and nothing else; the exit status.

  Raises:
    InputError: as `run`; where silhouettes could be compared, the sheet is there all the same.
  """
  indices = select_moments(settings.frames, len(capture.moments))
  frames = shift_frames(capture, settings.offsets)
  _make_folder(settings)
  with (
    Progress("scenes", 1, 0, console) as progress,
    FrameReader(capture, settings.specks, settings.grow) as frame_reader,
    open_cameras(capture, frame_reader, frames[indices], progress, settings.without) as cropper,
  ):
    _examine(settings, cropper, frames, indices.tolist(), progress)
  return _OK


def _examine(
  settings: PrepareOptions,
  cropper: Cropper,
  frames: np.ndarray,
  indices: list[int],
  progress: Progress,
) -> calibration_check.CalibrationReport:
  """Looks at the calibration, tells and draws what it found, and refuses a wrong one."""
  progress.stage("checking the calibration")
  report = calibration_check.check_calibration(cropper, frames, indices)
  for line in report.lines():
    progress.line(line)
  if report.samples:
    title = recording_file.recording_name(settings.input)
    progress.line(f"check    {write_check_sheet(settings.output, title, cropper, report)}")
  calibration_check.refuse_wrong_calibration(cropper.capture, report)
  return report


def _make_folder(settings: PrepareOptions) -> None:
  output = settings.output
  if output.resolve() == settings.input.resolve():
    raise InputError(output, "--output", "is the recording itself; expected a folder of its own")
  if output.exists() and not output.is_dir():
    raise InputError(output, "--output", "is a file; expected a folder")
  try:
    output.mkdir(parents=True, exist_ok=True)
    atomic.clean_stale(output)
  except OSError as error:
    raise InputError(output, "", f"cannot be written ({error.strerror})") from None


def _found(
  settings: PrepareOptions, names: dict[int, str], before: dict[str, Any] | None
) -> dict[int, MomentRecord]:
  """Moments that earlier runs dealt with: those of their file, and scenes that came after it."""
  if before is None:
    return {}
  listed = {m["index"]: MomentRecord.from_json(m) for m in before["moments"]}
  found = {i: m for i, m in listed.items() if i not in names}
  for index, name in names.items():
    moment = recording_file.read_finished_moment(
      settings.output / name, recording_file.preparation_hash(before)
    )
    if moment is not None:
      found[index] = moment
  return found


def open_cameras(
  capture: Capture,
  frame_reader: FrameReader,
  frames: np.ndarray,
  progress: Progress,
  without: Sequence[str] = (),
) -> Cropper:
  """The cameras that can be read at all; the others are told and left out.

  Args:
    capture: the recording.
    frame_reader: its pictures.
    frames: (F, V) of the chosen moments.
    progress: where to tell.
    without: names of cameras that are left out unasked.

  Raises:
    InputError: fewer than a scene takes, `without` names no camera, or a package is missing.
  """
  frame_reader.require_packages()
  check_camera_names("--without", without, capture.rig.names)
  pinholes, problems = {}, []
  for view, name in enumerate(capture.rig.names):
    own = frames[:, view]
    try:
      if name in without:
        raise InputError(name, "", "named by --without")
      frame_reader.open_camera(view)
      if not (own >= 0).any():
        raise InputError(capture.path, name, "no frame in any of the chosen moments")
      size = frame_reader.image_size(view, int(own[own >= 0][0]))
      pinholes[view] = lens.make_pinhole(capture.rig, view, size)
    except (InputError, ValueError) as error:
      problems.append(str(error))
  for problem in problems:
    progress.line(f"left out: {problem}")
  if len(pinholes) < min_cameras(capture):
    reason = problems[0] if problems else "a calibration with more cameras"
    problem = f"{len(pinholes)} cameras can be used; expected {min_cameras(capture)} ({reason})"
    raise InputError(capture.path, "cameras", problem)
  return Cropper(capture, frame_reader, pinholes)


def min_cameras(capture: Capture) -> int:
  """Cameras that a scene takes."""
  return max(3, min(_ENOUGH, len(capture.rig)))


@dataclasses.dataclass
class _Preparation:
  """The state of one run."""

  settings: PrepareOptions
  capture: Capture
  cropper: Cropper
  frames: np.ndarray
  names: dict[int, str]
  progress: Progress
  stop: StopRequest
  moments: dict[int, MomentRecord]
  window: CropWindow = dataclasses.field(
    default_factory=lambda: CropWindow(side=0, scale=1.0, limit=0.0)
  )
  calibration: dict[str, Any] = dataclasses.field(default_factory=dict)
  missing: dict[int, list[str]] = dataclasses.field(
    default_factory=lambda: collections.defaultdict(list)
  )
  saved: float = 0.0

  def run(self, pending: list[int], before: dict[str, Any] | None) -> int:
    """Everything that is still to be done; the exit status."""
    self.calibration = dict((before or {}).get("calibration", {}))
    if before is not None:
      self.window = CropWindow(**before["window"])
    if pending:
      report = _examine(self.settings, self.cropper, self.frames, pending, self.progress)
      self.calibration = report.to_json()
      if before is None:
        self.window = self.measure(pending)
      self.save()
      self.cut_all(pending)
    self.save()
    return self.close(pending)

  def measure(self, pending: list[int]) -> CropWindow:
    """The window of the batch, from all silhouettes.

    Raises:
      InputError: there is no silhouette at all.
    """
    boxes, first = [], ""
    for count, index in enumerate(pending):
      self.stop.check()
      self.progress.stage(f"measuring silhouettes, {count} of {len(pending)}")
      found, problems = self.cropper.map_cameras(self.frames[index], self.cropper.measure_box)
      boxes += list(found.values())
      first = first or next(iter(problems.values()), "")
    if not boxes:
      raise InputError(self.capture.path, "masks", f"no silhouette in any moment ({first})")
    window = choose_window(np.array(boxes), self.settings.margin, self.settings.size)
    reduced = f", reduced to {window.scale:.0%}" if window.scale < 1 else " at native resolution"
    self.progress.line(f"crops of {window.side} x {window.side} px{reduced}")
    return window

  def cut_all(self, pending: list[int]) -> None:
    """Cuts one moment while the one before it is encoded and written."""
    with ThreadPoolExecutor(1) as writer:
      last: tuple[int, Future[MomentRecord]] | None = None
      try:
        for index in pending:
          self.stop.check()
          self.progress.stage(self.names[index])
          crops, problems = self.cropper.map_cameras(
            self.frames[index], lambda v, f: self.cropper.crop(v, f, self.window)
          )
          for view, problem in problems.items():
            self.missing[view].append(problem)
          self.finish(last)
          last = index, writer.submit(self.write, index, crops, problems)
      finally:
        self.finish(last)
        self.save()

  def finish(self, last: tuple[int, Future[MomentRecord]] | None) -> None:
    """Notes what became of a moment that was handed to the writer."""
    if last is None:
      return
    moment = self.moments[last[0]] = last[1].result()
    self.progress.item_ended()
    if moment.status == FAILED:
      self.progress.line(f"failed: {moment.scene}: {moment.problems[-1]}")
    if time.monotonic() - self.saved > _SAVE_SECONDS:
      self.save()

  def write(self, index: int, crops: dict[int, Crop], problems: dict[int, str]) -> MomentRecord:
    """Writes one scene, or says why there is none."""
    moment = MomentRecord(
      index=index,
      number=int(self.capture.moments[index]),
      scene=self.names[index],
      status=DONE,
      views=len(crops),
      problems=tuple(problems.values()),
    )
    try:
      if len(crops) < min_cameras(self.capture):
        reason = next(iter(problems.values()))
        raise ValueError(f"{len(crops)} usable cameras ({reason})")
      ordered = [crops[view] for view in sorted(crops)]
      poses = self.capture.rig.world_to_camera[sorted(crops)]
      scene = common_solid.silhouette_scene(ordered, poses, len(self.capture.rig))
      centroid, radius = common_solid.solid_extent(scene)
      moment = dataclasses.replace(moment, centroid=tuple(centroid.tolist()), radius=radius)
      extra = {
        "unit": self.capture.rig.unit,
        "up": self.capture.up,
        "moment": moment.to_json(),
        "prepared": recording_file.preparation_hash(
          recording_file.describe_preparation(self.settings, self.window)
        ),
      }
      pngs = self.cropper.encode_pngs(ordered)
      write_scene_folder(self.settings.output / moment.scene, self.capture, ordered, pngs, extra)
    except (ValueError, OSError) as error:
      return dataclasses.replace(
        moment, status=FAILED, problems=(*moment.problems, str(error).splitlines()[0])
      )
    return moment

  def save(self) -> None:
    """Writes `recording.json`."""
    self.saved = time.monotonic()
    try:
      recording_file.write_recording(
        self.settings, self.capture, self.window, self.moments, self.calibration
      )
    except OSError as error:
      problem = f"cannot be written ({error.strerror or error})"
      raise InputError(self.settings.output / recording_file.RECORDING_FILE, "", problem) from None

  def close(self, pending: list[int]) -> int:
    """Tells what came out; the exit status."""
    for view, problems in sorted(self.missing.items()):
      name = self.capture.rig.names[view]
      self.progress.line(f"{name}: not in {len(problems)} moments, first: {problems[0]}")
    chosen = [self.moments[i] for i in self.names if i in self.moments]
    done = sum(m.status == DONE for m in chosen)
    kept = len(self.names) - len(pending)
    there = f" ({kept} were there)" if kept else ""
    self.progress.line(f"{done} of {len(self.names)} scenes in {self.settings.output}{there}")
    if done == len(self.names):
      return _OK
    return _SOME_FAILED if done else _NOTHING
