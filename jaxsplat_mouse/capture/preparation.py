"""Prepares a recording: the order of the work, from its files to scene folders.

`prepare_recording` is the table of contents:

    1. select the moments                                   prepare_options
    2. make the output folder, find what earlier runs did   recording_file
    3. open the cameras, leave out unreadable ones          readable_cameras
    4. compare the masks with plates, prepare mattes        mask_study
    5. put late cameras into step, check the calibration,   sync_study, calibration_step
       refine it on the recording, draw the check sheet
    6. compare the cameras' exposures                       recording_exposure
    7. choose the crop window from all silhouettes          crop_windows
    8. crop every moment and write its scene folder         crops
    9. write recording.json, summarize                      recording_file

All cameras go through their videos in step, one moment at a time, so memory does not depend on the
length of a recording. Step 7 reads the masks alone: the largest silhouette sets the size of all
crops, for about a tenth of the time that cropping takes.
"""

from __future__ import annotations

import collections
import dataclasses
import functools
import itertools
import time
from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
from rich.console import Console

from jaxsplat_mouse.capture import (
  calibration_export,
  calibration_refinement,
  calibration_step,
  common_solid,
  identities,
  mask_study,
  occlusion,
  recording_exposure,
  recording_file,
  sync_study,
)
from jaxsplat_mouse.capture.crop_windows import CropWindow, choose_window
from jaxsplat_mouse.capture.crops import Crop, Cropper, write_scene_folder
from jaxsplat_mouse.capture.frame_reader import FrameReader
from jaxsplat_mouse.capture.matte_sheet import write_matte_sheet
from jaxsplat_mouse.capture.prepare_options import PrepareOptions, select_moments, shift_frames
from jaxsplat_mouse.capture.raw_capture import Capture
from jaxsplat_mouse.capture.readable_cameras import (
  find_readable_cameras,
  min_cameras,
  require_animals,
  require_enough_cameras,
)
from jaxsplat_mouse.capture.recording_file import DONE, FAILED, MomentKey, MomentRecord
from jaxsplat_mouse.errors import InputError
from jaxsplat_mouse.io import atomic
from jaxsplat_mouse.runtime.progress import Progress
from jaxsplat_mouse.runtime.signals import Stopped, StopRequest

_SAVE_SECONDS = 30.0
_OK, _NOTHING, _SOME_FAILED = 0, 1, 3


def prepare_recording(
  options: PrepareOptions, capture: Capture, console: Console | None = None
) -> int:
  """Prepares the chosen moments of a recording.

  Args:
    options: what to prepare, and how.
    capture: the recording, as its format reader returns it.
    console: where progress is printed; standard output by default.

  Returns:
    The exit status: 0 for all moments, 1 for none, 3 for some.

  Raises:
    InputError: nothing can be prepared: too few cameras, a calibration that contradicts the
      silhouettes, or other options than those of the output folder.
  """
  indices, frames = _select(options, capture)
  _make_output_folder(options)
  earlier = None if options.redo else recording_file.read_recording(options)
  names = recording_file.scene_names(options, capture, indices)
  finished = _find_finished(options, names, earlier)
  unfinished = list(dict.fromkeys(key[0] for key in names if key not in finished))
  # All animals of a moment are prepared together, which shows exchanged ids.
  pending = [key for key in names if key[0] in unfinished]
  with (
    Progress("scenes", len(names), len(names) - len(pending), console) as progress,
    FrameReader(capture, options.specks, options.grow) as frame_reader,
    StopRequest() as stop,
    _open_cropper(options, capture, frame_reader, frames[indices], progress) as cropper,
  ):
    work = _Preparation(options, cropper, frames, names, progress, stop, finished)
    if earlier is not None:
      work.resume(earlier)
    try:
      if pending:
        # An earlier version wrote scenes without mattes: the others get none either.
        if earlier is None or earlier.get("masks"):
          work.masks = _study_masks(options, cropper, frames, unfinished, progress)
        if earlier is None:
          work.synchronize()
        work.check_calibration(unfinished, earlier is None)
        if earlier is None:
          work.measure_exposure()
          work.choose_window(pending)
        work.save()
        work.crop_moments(pending)
      work.save()
      if not pending:
        calibration_step.use_earlier_poses(options, cropper)
      for line in calibration_export.export_calibration(options, capture, cropper):
        progress.line(line)
      return work.summarize(pending)
    except Stopped as error:
      progress.line(f"stopped by {error.name}; the same command goes on")
      return error.exit_status


def check_recording(
  options: PrepareOptions, capture: Capture, console: Console | None = None
) -> int:
  """Checks the calibration of a recording and writes the check sheet, but no scenes.

  Args:
    options: what to check.
    capture: the recording, as its format reader returns it.
    console: where the result is printed; standard output by default.

  Returns:
    The exit status, 0.

  Raises:
    InputError: as `prepare_recording`; the sheet is written if silhouettes could be compared.
  """
  indices, frames = _select(options, capture)
  _make_output_folder(options)
  with (
    Progress("scenes", 1, 0, console) as progress,
    FrameReader(capture, options.specks, options.grow) as frame_reader,
    _open_cropper(options, capture, frame_reader, frames[indices], progress) as cropper,
  ):
    _study_masks(options, cropper, frames, indices, progress)
    stop = StopRequest()
    frames, sync = _synchronize(options, cropper, frames, progress, stop)
    calibration_step.settle_calibration(
      options, cropper, frames, indices, progress, stop, sync=sync, keeps=False
    )
    for line in calibration_export.export_calibration(options, capture, cropper):
      progress.line(line)
    _measure_exposure(options, cropper, frames, progress, stop)
  return _OK


def _select(options: PrepareOptions, capture: Capture) -> tuple[list[int], np.ndarray]:
  """Returns the indices of the chosen moments, and the frames (F, V) of all moments."""
  calibration_export.check_exports(options, capture.rig)
  indices = select_moments(options.frames, len(capture.moments))
  return indices.tolist(), shift_frames(capture, options.offsets)


def _make_output_folder(options: PrepareOptions) -> None:
  output = options.output
  if output.resolve() == options.input.resolve():
    raise InputError(output, "--output", "is the recording itself; expected a folder of its own")
  if output.exists() and not output.is_dir():
    raise InputError(output, "--output", "is a file; expected a folder")
  try:
    output.mkdir(parents=True, exist_ok=True)
    atomic.clean_stale(output)
  except OSError as error:
    raise InputError(output, "", f"cannot be written ({error.strerror})") from None


def _find_finished(
  options: PrepareOptions, names: dict[MomentKey, str], earlier: dict[str, Any] | None
) -> dict[MomentKey, MomentRecord]:
  """Returns the records of whole scene folders, and of moments that are not chosen."""
  if earlier is None:
    return {}
  listed = {m.key: m for m in map(MomentRecord.from_json, earlier["moments"])}
  found = {key: m for key, m in listed.items() if key not in names}
  prepared = recording_file.preparation_hash(earlier)
  for key, name in names.items():
    moment = recording_file.read_finished_moment(options.output / name, prepared)
    if moment is not None:
      found[key] = moment
  return found


def _open_cropper(
  options: PrepareOptions,
  capture: Capture,
  frame_reader: FrameReader,
  frames: np.ndarray,
  progress: Progress,
) -> Cropper:
  """Opens the readable cameras and reports the others."""
  pinholes, problems = find_readable_cameras(capture, frame_reader, frames, options.without)
  for problem in problems:
    progress.line(f"left out: {problem}")
  require_enough_cameras(capture, len(pinholes), problems)
  require_animals(capture, frame_reader, pinholes, frames)
  return Cropper(capture, frame_reader, pinholes)


def _study_masks(
  options: PrepareOptions,
  cropper: Cropper,
  frames: np.ndarray,
  indices: list[int],
  progress: Progress,
) -> dict[str, Any]:
  """Compares masks with background plates, prepares mattes; returns what it found as JSON."""
  progress.stage("comparing masks with background plates")
  mattes = None
  if options.plate_masks:
    mattes = mask_study.make_masks(cropper, frames)
  elif options.matte != "off":
    mattes = mask_study.study_masks(cropper, frames, options.matte)
  if mattes is None:
    lines = mask_study.warn_of_offset(cropper, frames, indices, options.grow)
  else:
    lines = mattes.lines()
  for line in lines:
    progress.line(line)
  if mattes is not None:
    title, middle = recording_file.recording_name(options.input), indices[len(indices) // 2]
    sheet = write_matte_sheet(options.output, title, cropper, frames[middle], mattes)
    if sheet is not None:
      progress.line(f"mattes   {sheet}")
  cropper.frame_reader.mattes = mattes
  return mattes.to_json() if mattes is not None else {"cameras": {}}


def _synchronize(
  options: PrepareOptions,
  cropper: Cropper,
  frames: np.ndarray,
  progress: Progress,
  stop: StopRequest,
) -> tuple[np.ndarray, dict[str, Any]]:
  """Looks for cameras out of step; returns the frames (F, V) to use, and what it found as JSON."""
  if options.sync == "off":
    return frames, {}

  def started(count: int, total: int) -> None:
    stop.check()
    progress.stage(f"comparing the cameras' times, moment {count} of {total}")

  study = sync_study.study_sync(cropper, frames, started, applies=options.sync == "auto")
  for line in study.lines():
    progress.line(line)
  found = study.to_json()
  return sync_study.apply_offsets(options, cropper.capture, found), found


def _measure_exposure(
  options: PrepareOptions,
  cropper: Cropper,
  frames: np.ndarray,
  progress: Progress,
  stop: StopRequest,
) -> dict[str, Any]:
  """Compares the cameras' exposures; the crops get what is found, which is returned as JSON."""
  if options.exposure == "off":
    return {}

  def started(count: int, total: int) -> None:
    stop.check()
    progress.stage(f"comparing exposures, moment {count} of {total}")

  found = recording_exposure.measure_exposure(cropper, frames, started)
  for line in found.lines():
    progress.line(line)
  cropper.color_factors = found.corrections
  return found.to_json()


@dataclasses.dataclass
class _Preparation:
  """One run of `prepare_recording`; its methods are the steps 5 to 9.

  Attributes:
    options: what to prepare, and how.
    cropper: the readable cameras.
    frames: (F, V) frame of each camera in each moment of the recording.
    names: scene names of the chosen moments and their animals.
    progress: where progress is shown.
    stop: ends the run at the next moment.
    moments: records of finished moments.
    window: size of all crops.
    calibration: the evidence for the calibration, as JSON.
    masks: what was found about the masks, as JSON.
    sync: what was found about the cameras' times, as JSON.
    exposure: of the cameras, as JSON.
    missing: why cameras are missing in scenes, by camera.
    saved: time of the last `save`, seconds.
  """

  options: PrepareOptions
  cropper: Cropper
  frames: np.ndarray
  names: dict[MomentKey, str]
  progress: Progress
  stop: StopRequest
  moments: dict[MomentKey, MomentRecord]
  window: CropWindow = dataclasses.field(
    default_factory=lambda: CropWindow(side=0, scale=1.0, limit=0.0)
  )
  calibration: dict[str, Any] = dataclasses.field(default_factory=dict)
  masks: dict[str, Any] = dataclasses.field(default_factory=dict)
  sync: dict[str, Any] = dataclasses.field(default_factory=dict)
  exposure: dict[str, Any] = dataclasses.field(default_factory=dict)
  missing: dict[int, list[str]] = dataclasses.field(
    default_factory=lambda: collections.defaultdict(list)
  )
  saved: float = 0.0

  def resume(self, earlier: dict[str, Any]) -> None:
    """Takes over what an earlier run's `recording.json` settled: window, frames, evidence."""
    self.window = CropWindow(**earlier["window"])
    self.calibration = dict(earlier.get("calibration", {}))
    self.masks = dict(earlier.get("masks", {}))
    self.exposure = dict(earlier.get("exposure", {}))
    rig = self.cropper.capture.rig
    self.cropper.color_factors = recording_exposure.corrections_from_json(self.exposure, rig)
    self.sync = dict(self.calibration.get("synchronization", {}))
    self.frames = sync_study.apply_offsets(self.options, self.cropper.capture, self.sync)
    for line in sync_study.earlier_lines(self.sync):
      self.progress.line(line)

  def synchronize(self) -> None:
    """Puts cameras that are out of step into step, as far as the options allow."""
    self.frames, self.sync = _synchronize(
      self.options, self.cropper, self.frames, self.progress, self.stop
    )

  def check_calibration(self, pending: list[int], refines: bool) -> None:
    """Checks the calibration with the moments that are to be prepared.

    Args:
      pending: these moments.
      refines: whether poses are refined first; an earlier run's poses are used otherwise.
    """
    if refines:
      calibration_refinement.discard_calibration(self.options.output)
      if self.options.redo:
        calibration_export.discard_export(self.options.output)
    report = calibration_step.settle_calibration(
      self.options,
      self.cropper,
      self.frames,
      pending,
      self.progress,
      self.stop,
      sync=self.sync,
      refines=refines,
    )
    self.calibration = {**report.to_json(), "synchronization": self.sync}

  def measure_exposure(self) -> None:
    """Compares the cameras' exposures over the whole recording."""
    self.exposure = _measure_exposure(
      self.options, self.cropper, self.frames, self.progress, self.stop
    )

  def choose_window(self, pending: list[MomentKey]) -> None:
    """Measures all silhouettes and chooses the size of the crops.

    Raises:
      InputError: there is no silhouette at all.
    """
    boxes, first = [], ""
    for count, (index, animal) in enumerate(pending):
      self.stop.check()
      self.progress.stage(f"measuring silhouettes, {count} of {len(pending)}")
      measure = functools.partial(self.cropper.measure_box, animal=self.number_of(animal))
      found, problems = self.cropper.map_cameras(self.frames[index], measure)
      boxes += list(found.values())
      first = first or next(iter(problems.values()), "")
    if not boxes:
      path = self.cropper.capture.path
      raise InputError(path, "masks", f"no silhouette in any moment ({first})")
    window = choose_window(np.array(boxes), self.options.margin, self.options.size)
    reduced = f", reduced to {window.scale:.0%}" if window.scale < 1 else " at native resolution"
    self.progress.line(f"crops of {window.side} x {window.side} px{reduced}")
    self.window = window

  def number_of(self, animal: str) -> int | None:
    """Returns the number of an animal in the capture; None for a single animal."""
    names = [one.name for one in self.cropper.capture.animals]
    return names.index(animal) if names else None

  def crop_moments(self, pending: list[MomentKey]) -> None:
    """Crops each moment while the one before it is encoded and written."""
    with ThreadPoolExecutor(1) as writer:
      last: tuple[MomentKey, Future[MomentRecord]] | None = None
      try:
        for _, group in itertools.groupby(pending, lambda key: key[0]):
          keys = list(group)
          cropped = [self.crop_animal(key) for key in keys]
          exchanges = identities.find_exchanges(self.cropper.capture.rig, [c for c, _ in cropped])
          mended = identities.exchange_animals([c for c, _ in cropped], exchanges)
          for number, key in enumerate(keys):
            self.await_scene(last)
            work = (key, mended[number], cropped[number][1])
            exchanged = identities.describe_exchanges(
              self.cropper.capture.rig, exchanges, [name for _, name in keys], number
            )
            last = key, writer.submit(self.write_scene, *work, exchanged)
      finally:
        self.await_scene(last)
        self.save()

  def crop_animal(self, key: MomentKey) -> tuple[dict[int, Crop], dict[int, str]]:
    """Returns the crops of a moment and an animal, and why cameras have none, by camera."""
    self.stop.check()
    self.progress.stage(self.names[key])
    cut = functools.partial(self.cropper.crop, window=self.window, animal=self.number_of(key[1]))
    crops, problems = self.cropper.map_cameras(self.frames[key[0]], cut)
    for view, problem in problems.items():
      self.missing[view].append(problem)
    return crops, problems

  def await_scene(self, last: tuple[MomentKey, Future[MomentRecord]] | None) -> None:
    """Waits for the writer and keeps the record of its moment."""
    if last is None:
      return
    moment = self.moments[last[0]] = last[1].result()
    self.progress.item_ended()
    if moment.status == FAILED:
      self.progress.line(f"failed: {moment.scene}: {moment.problems[-1]}")
    if time.monotonic() - self.saved > _SAVE_SECONDS:
      self.save()

  def write_scene(
    self,
    key: MomentKey,
    crops: Mapping[int, Crop],
    problems: dict[int, str],
    exchanged: tuple[str, ...],
  ) -> MomentRecord:
    """Writes one scene folder; a moment that makes no scene gets a record that says why.

    Args:
      key: the moment and the animal.
      crops: by camera.
      problems: why cameras have no crop, by camera.
      exchanged: cameras whose crops are those of another animal's id.
    """
    capture = self.cropper.capture
    moment = MomentRecord(
      index=key[0],
      number=int(capture.moments[key[0]]),
      scene=self.names[key],
      status=DONE,
      views=len(crops),
      problems=tuple(problems.values()),
      animal=key[1],
      exchanged=exchanged,
    )
    try:
      if len(crops) < min_cameras(capture):
        raise ValueError(f"{len(crops)} usable cameras ({next(iter(problems.values()))})")
      ordered = occlusion.keep_near(capture.rig, [crops[view] for view in sorted(crops)])
      centroid, radius = self.measure_extent(ordered)
      moment = dataclasses.replace(moment, centroid=tuple(centroid.tolist()), radius=radius)
      pngs = self.cropper.encode_pngs(ordered)
      folder = self.options.output / moment.scene
      write_scene_folder(folder, capture, ordered, pngs, self.scene_fields(moment))
    except (ValueError, OSError) as error:
      problem = str(error).splitlines()[0]
      return dataclasses.replace(moment, status=FAILED, problems=(*moment.problems, problem))
    return moment

  def measure_extent(self, crops: list[Crop]) -> tuple[np.ndarray, float]:
    """Centroid (3,) and radius of the animal's visual hull, world units.

    Raises:
      ValueError: the silhouettes have no common solid.
    """
    rig = self.cropper.capture.rig
    poses = rig.world_to_camera[[crop.view for crop in crops]]
    return common_solid.solid_extent(common_solid.silhouette_scene(crops, poses, len(rig)))

  def scene_fields(self, moment: MomentRecord) -> dict[str, Any]:
    """Returns the fields that a scene's camera file has beside those of FaceLift."""
    capture = self.cropper.capture
    description = recording_file.describe_preparation(self.options, self.window)
    return {
      "unit": capture.rig.unit,
      "up": capture.up,
      "moment": moment.to_json(),
      "prepared": recording_file.preparation_hash(description),
      # Gains of the cameras, which were taken out of the colours.
      "exposure": self.exposure["gains"] if self.exposure.get("applied") else {},
    }

  def save(self) -> None:
    """Writes `recording.json`.

    Raises:
      InputError: the disk is full or not writable.
    """
    self.saved = time.monotonic()
    capture = self.cropper.capture
    try:
      recording_file.write_recording(
        self.options,
        capture,
        self.window,
        self.moments,
        self.calibration,
        self.masks,
        self.exposure,
      )
    except OSError as error:
      problem = f"cannot be written ({error.strerror or error})"
      path = self.options.output / recording_file.RECORDING_FILE
      raise InputError(path, "", problem) from None

  def summarize(self, pending: list[MomentKey]) -> int:
    """Prints the missing cameras and the number of scenes; returns the exit status."""
    for view, problems in sorted(self.missing.items()):
      name = self.cropper.capture.rig.names[view]
      self.progress.line(f"{name}: not in {len(problems)} moments, first: {problems[0]}")
    chosen = [self.moments[key] for key in self.names if key in self.moments]
    for line in identities.warn_of_exchanges([(m.number, m.exchanged) for m in chosen]):
      self.progress.line(line)
    done = sum(m.status == DONE for m in chosen)
    kept = len(self.names) - len(pending)
    note = f" ({kept} were there)" if kept else ""
    self.progress.line(f"{done} of {len(self.names)} scenes in {self.options.output}{note}")
    if done == len(self.names):
      return _OK
    return _SOME_FAILED if done else _NOTHING
