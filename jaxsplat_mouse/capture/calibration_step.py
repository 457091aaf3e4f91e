"""Settles the calibration of a recording: checks it, refines it, draws the check sheet.

The given poses are checked first. Refined ones replace them where moments that took no part confirm
them and the common solid agrees no less; what became of them is kept in `calibration.json`, which
later runs into the same folder follow.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxsplat_mouse.capture import calibration_check, calibration_refinement, recording_file
from jaxsplat_mouse.capture.calibration_check import GOOD, CalibrationReport
from jaxsplat_mouse.capture.calibration_refinement import CalibrationRefinement
from jaxsplat_mouse.capture.check_findings import CheckFindings
from jaxsplat_mouse.capture.check_sheet import HTML, write_check_sheet
from jaxsplat_mouse.capture.crops import Cropper
from jaxsplat_mouse.capture.prepare_options import PrepareOptions
from jaxsplat_mouse.errors import InputError
from jaxsplat_mouse.runtime.progress import Progress
from jaxsplat_mouse.runtime.signals import StopRequest


def settle_calibration(
  options: PrepareOptions,
  cropper: Cropper,
  frames: np.ndarray,
  indices: list[int],
  progress: Progress,
  stop: StopRequest,
  *,
  sync: Mapping[str, Any],
  refines: bool = True,
  keeps: bool = True,
) -> CalibrationReport:
  """Refines and checks the calibration, prints and draws the result, refuses a wrong calibration.

  Args:
    options: the preparation.
    cropper: the readable cameras; it gets the refined poses.
    frames: (F, V) frame of each camera in each moment.
    indices: the moments to check on.
    progress: where the result is printed.
    stop: ends the refinement at the next moment.
    sync: whether the cameras ran in step, see `SyncStudy.to_json`; empty where that was not asked.
    refines: whether poses are refined; an earlier run's poses are used otherwise.
    keeps: whether the result is kept in `calibration.json`. A mere check keeps nothing: a
      preparation in the same folder has its own.

  Returns:
    The check of the cameras in use.

  Raises:
    InputError: the calibration cannot be right, or `--refine=on` and nothing confirms refined
      poses; the sheet is written if silhouettes could be compared.
  """
  progress.stage("checking the calibration")
  if not refines:
    use_earlier_poses(options, cropper)
  given = used = calibration_check.check_calibration(cropper, frames, indices)
  found = None
  # Poses cannot mend exchanged cameras or a misread file; the check names such a mistake.
  if refines and options.refine != "off" and given.samples and not given.names_mistake:
    found = _refine(cropper, frames, progress, stop)
    if found.accepted:
      used, found = _check_refined(cropper, frames, given, found)
    _report(options, found, progress, keeps)
  for line in used.lines():
    progress.line(line)
  # The sheet of the run that settled the calibration stays, unless later moments contradict it.
  settled = not refines and (options.output / HTML).is_file()
  if used.samples and not (settled and used.score >= GOOD):
    title, mattes = recording_file.recording_name(options.input), cropper.frame_reader.mattes
    findings = CheckFindings(
      given=given, used=used, refinement=found, mattes=mattes, sync=sync, settled=settled
    )
    progress.line(f"check    {write_check_sheet(options.output, title, cropper, findings)}")
  calibration_check.refuse_wrong_calibration(cropper.capture, used)
  return used


def use_earlier_poses(options: PrepareOptions, cropper: Cropper) -> None:
  """Gives the cropper the poses that an earlier run settled on, if it refined them.

  Raises:
    InputError: `calibration.json` is broken or lists other cameras.
  """
  if options.refine == "off":
    return
  poses = calibration_refinement.read_poses(options.output, cropper.capture.rig)
  if poses is not None:
    cropper.set_poses(poses)


def _refine(
  cropper: Cropper, frames: np.ndarray, progress: Progress, stop: StopRequest
) -> CalibrationRefinement:
  """Refines the poses on the whole recording."""

  def started(count: int, total: int) -> None:
    stop.check()
    progress.stage(f"refining the calibration, moment {count} of {total}")

  return calibration_refinement.refine_calibration(cropper, frames, started)


def _check_refined(
  cropper: Cropper, frames: np.ndarray, given: CalibrationReport, found: CalibrationRefinement
) -> tuple[CalibrationReport, CalibrationRefinement]:
  """Gives the cropper the refined poses and checks them, or rejects them.

  Args:
    cropper: the readable cameras, with the poses as given.
    frames: (F, V) frame of each camera in each moment.
    given: the check of these poses.
    found: accepted poses.

  Returns:
    The check of the poses in use, and what became of the refined ones.
  """
  capture = cropper.capture
  cropper.set_poses(found.world_to_camera)
  indices = [sample.index for sample in given.samples]
  refined = calibration_check.check_calibration(cropper, frames, indices)
  if refined.score >= given.score:
    return refined, found
  cropper.capture = capture
  return given, found.reject("the common solid agrees less with refined poses")


def _report(
  options: PrepareOptions, found: CalibrationRefinement, progress: Progress, keeps: bool
) -> None:
  """Prints what became of the poses, and keeps it for later runs.

  Raises:
    InputError: `--refine=on`, and nothing confirms the refined poses.
  """
  for line in found.lines():
    progress.line(line)
  if options.refine == "on" and not found.accepted:
    raise InputError("--refine", "on", found.lines()[0])
  if keeps and found.refinement is not None:
    calibration_refinement.write_calibration(options.output, found)
