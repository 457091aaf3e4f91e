"""What the check sheet says at its top, for each thing that can be found."""

from __future__ import annotations

import dataclasses

import numpy as np

from jaxsplat_mouse.capture.calibration_check import CalibrationReport, CheckedMoment
from jaxsplat_mouse.capture.calibration_refinement import CalibrationRefinement
from jaxsplat_mouse.capture.camera_faults import CameraFault
from jaxsplat_mouse.capture.camera_moves import CameraMove
from jaxsplat_mouse.capture.check_charts import contradiction_axis, contradiction_svg
from jaxsplat_mouse.capture.check_findings import CheckFindings
from jaxsplat_mouse.capture.common_solid import SolidAgreement
from jaxsplat_mouse.capture.crops import Crop
from jaxsplat_mouse.capture.lens import CropRegion
from jaxsplat_mouse.capture.pose_refinement import PoseRefinement
from jaxsplat_mouse.capture.recording_mattes import MaskFinding, RecordingMattes
from tests.capture.formats.format_fixtures import make_rig

RIG = make_rig()


def report(iou: float, **more: object) -> CalibrationReport:
  """One moment in which all cameras agree alike."""
  region, none = CropRegion(left=0, top=0, width=4, height=4), np.zeros(4)
  crops = tuple(
    Crop(view=v, frame=0, rgba=np.zeros((4, 4, 4), np.uint8), region=region, intrinsics=none)
    for v in range(4)
  )
  agreement = SolidAgreement(iou=np.full(4, iou), alphas=np.zeros((4, 8, 8)))
  return CalibrationReport(
    names=RIG.names,
    samples=(CheckedMoment(index=0, crops=crops, agreement=agreement),),
    labels=np.full(4, np.nan),
    **more,  # type: ignore[arg-type]
  )


def refinement(off_by: list[float], accepted: bool = True, **more: object) -> CalibrationRefinement:
  """Cameras that were off by so many pixels, of 1/30 degree each."""
  ones = np.ones(4)
  return CalibrationRefinement(
    rig=RIG,
    views=(0, 1, 2, 3),
    moments=tuple(range(8)),
    refinement=PoseRefinement(
      world_to_camera=RIG.world_to_camera,
      focal=ones,
      accepted=accepted,
      depth_before=-2.0 * ones,
      depth_after=-0.1 * ones,
      turns=ones,
      shifts=ones,
      pixels=ones,
    ),
    over_time=np.zeros((2, 8, 4)),
    off_by=np.array(off_by),
    angles=np.array(off_by) / 30,
    **more,  # type: ignore[arg-type]
  )


def said(**parts: object) -> tuple[str, str]:
  findings = CheckFindings(**{"used": parts["given"], **parts})  # type: ignore[arg-type]
  return findings.verdict, " ".join(findings.sentences())


def test_one_camera_is_named() -> None:
  assert said(
    given=report(0.81), used=report(0.97), refinement=refinement([0.3, 0.2, 33, 1.5])
  ) == (
    "mended",
    "Camera3 pointed 1.1° away from where the calibration says (33 px in its pictures). Its pose "
    "was corrected: silhouettes now agree to 0.97 (before 0.81).",
  )


def test_several_cameras_are_counted() -> None:
  verdict, text = said(given=report(0.7), used=report(0.9), refinement=refinement([6, 0.2, 15, 3]))
  assert verdict == "mended"
  assert text.startswith("3 of the cameras pointed 0.1° to 0.5° away")
  assert "Camera3 the most, by 15 px in its pictures. Their poses were corrected" in text
  assert said(given=report(0.7), used=report(0.9), refinement=refinement([6, 5, 15, 3]))[
    1
  ].startswith("All 4 cameras pointed")


def test_a_calibration_that_stays_says_why() -> None:
  kept = refinement([0] * 4, accepted=False)
  assert said(given=report(0.96), refinement=kept) == (
    "well",
    "The silhouettes agree to 0.96 under the cameras as given, which stay.",
  )
  verdict, text = said(given=report(0.7), refinement=kept)
  assert verdict == "doubtful" and "0.70 only, expected above 0.85. No other poses" in text
  few = CalibrationRefinement(rig=RIG, moments=(1, 2))
  assert "takes 6 moments; there are 2." in said(given=report(0.7), refinement=few)[1]
  dropped = refinement([3] * 4).reject("the common solid agrees less")
  assert (
    "were tried and dropped: the common solid agrees less."
    in said(given=report(0.9), refinement=dropped)[1]
  )


def test_a_wrong_calibration_names_the_mistake() -> None:
  wrong = report(0.3, other="the rotations are transposed", other_score=0.97)
  verdict, text = said(given=wrong)
  assert verdict == "wrong"
  assert "do not fit one solid: they agree to 0.30 only" in text
  assert text.endswith("They would agree to 0.97 if the rotations are transposed.")


def test_a_camera_at_fault_comes_first_with_the_way_out() -> None:
  wrong = CameraFault(view=3, contradiction=2.0, without=0.2, residuals=(2.0,) * 8)
  findings = CheckFindings(
    given=report(0.9), used=report(0.9), refinement=refinement([0] * 4, False, fault=wrong)
  )
  assert (findings.verdict, findings.headline) == ("doubtful", "Camera4 does not fit the others")
  assert findings.sentences() == [
    "Camera4 contradicts the others whatever its pose: its pose, its lens or its masks are wrong. "
    "Try --without=Camera4.",
    "The silhouettes agree to 0.90 under the cameras as given, which stay.",
  ]
  move = CameraMove(
    view=3, start=5, poses=RIG.world_to_camera, after=np.eye(4), pixels=12.3,
    contradiction=2.0, mended=0.2,
  )  # fmt: skip
  moved = dataclasses.replace(wrong, move=move)
  text = said(given=report(0.9), refinement=refinement([0] * 4, False, fault=moved))[1]
  assert text.startswith(
    "Camera4 moved during the recording, between the moments 4 and 5, by 12 px. Prepare the two "
    "parts, or try --without=Camera4."
  )
  assert moved.rescale(2).residuals == (4.0,) * 8
  again = moved.rescale(2).move
  assert again is not None and (again.pixels, again.contradiction) == (24.6, 4.0)


def test_cameras_out_of_step_are_spoken_of() -> None:
  late = {"offsets": {"Camera2": 1, "Camera4": -2}, "applied": True}
  verdict, text = said(given=report(0.95), sync=late)
  assert verdict == "mended"
  assert text.endswith("Camera2 ran one frame late, Camera4 ran 2 frames early; that is corrected.")
  verdict, text = said(given=report(0.95), sync=late | {"applied": False})
  assert verdict == "doubtful" and text.endswith("; try --offsets=Camera2:1,Camera4:-2.")


def test_masks_are_spoken_of() -> None:
  wide = MaskFinding(offset=2.0, error=0.1, wobble=0.1, moments=8, matted=True)
  fine = dataclasses.replace(wide, offset=0.1, matted=False)
  mattes = lambda *found, **more: RecordingMattes(
    names=RIG.names, plates={}, findings=dict(enumerate(found)), **more
  )
  speak = lambda value: said(given=report(0.96), mattes=value)[1].partition("stay. ")[2]
  assert speak(mattes(wide, wide, fine, fine)) == (
    "The masks of 2 of 4 cameras are 2.0 px too wide; their outlines were solved anew from the "
    "pictures."
  )
  wobbling = dataclasses.replace(wide, wobble=0.9)
  assert "The masks of all cameras are 2.0 px too wide and wobble by 0.9 px" in speak(
    mattes(*[wobbling] * 4)
  )
  assert speak(mattes(fine, fine)) == "The masks fit the pictures."
  assert speak(mattes(from_plate=True)).startswith("There are no masks: they were made")


def test_a_chart_leaves_gaps_and_stays_inside() -> None:
  before, after = np.array([3.0, np.nan, 30.0]), np.array([0.1, 0.2, -0.5])
  svg = contradiction_svg([10, 20, 30], before, after, 5.0, True)
  assert "nan" not in svg and svg.count("<circle") == 5
  assert svg.count("<polyline") == 2
  assert contradiction_axis(np.array([0.1, np.nan])) == 1.0
  assert contradiction_axis(np.array([3.0] * 10)) == 5.0
