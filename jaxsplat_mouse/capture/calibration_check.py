"""Is the calibration right? What labels and silhouettes say, before anything is written.

Silhouettes of one solid, carved and projected back, explain themselves: their IoU is near one. A
calibration that is mirrored, transposed, mis-scaled or of other cameras leaves next to nothing in
common. Where silhouettes disagree, the usual misreadings are tried, then pairs of exchanged
cameras, then each camera is left out, so that the refusal names what is wrong.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from jaxsplat_mouse.capture import common_solid, rig_checks
from jaxsplat_mouse.capture.calibration_hypotheses import (
  AS_GIVEN,
  COMMON_MISTAKES,
  CalibrationHypothesis,
  exchange_cameras,
)
from jaxsplat_mouse.capture.crops import Crop, Cropper
from jaxsplat_mouse.capture.raw_capture import Capture
from jaxsplat_mouse.errors import InputError
from jaxsplat_mouse.scene import Scene

GOOD = 0.85  # mean IoU from which no other reading is looked for
POOR = 0.6  # below it, there is no common solid whatever the reason
_GAIN = 0.1  # by which another reading must be better to be blamed
_MOMENTS = 3
_TRIES = 4  # times as many moments are looked at, where some lack cameras


@dataclasses.dataclass(frozen=True, kw_only=True)
class CheckedMoment:
  """One moment that is looked at.

  Attributes:
    index: its row in the recording.
    crops: tight crops of V' cameras, in their order.
    agreement: what their common solid explains.
  """

  index: int
  crops: tuple[Crop, ...]
  agreement: common_solid.SolidAgreement


@dataclasses.dataclass(frozen=True, kw_only=True)
class CalibrationReport:
  """What was found.

  Attributes:
    names: of all cameras.
    samples: the moments looked at.
    labels: (V,) median distance of labels from their projections, pixels; NaN without labels.
    other: the name of a reading that fits better, or "".
    other_score: its mean IoU.
    reason: why the first camera that gave no silhouette gave none, or "".
  """

  names: tuple[str, ...]
  samples: tuple[CheckedMoment, ...]
  labels: np.ndarray
  other: str = ""
  other_score: float = 0.0
  reason: str = ""

  @property
  def iou(self) -> np.ndarray:
    """(V,) median IoU of each camera; NaN for one that is in no sample."""
    rows = np.full((len(self.samples), len(self.names)), np.nan)
    for row, sample in zip(rows, self.samples, strict=True):
      row[[crop.view for crop in sample.crops]] = sample.agreement.iou
    known = ~np.isnan(rows).all(0)
    result = np.full(len(self.names), np.nan)
    result[known] = np.nanmedian(rows[:, known], 0)
    return result

  @property
  def score(self) -> float:
    """Mean IoU over cameras, median over moments; NaN without moments."""
    scores = [float(s.agreement.iou.mean()) for s in self.samples]
    return float(np.median(scores)) if scores else float("nan")

  def lines(self) -> list[str]:
    """For people: a line of evidence for each kind."""
    shown = []
    if not np.isnan(self.labels).all():
      told = " ".join(f"{name} {e:.2f}" for name, e in zip(self.names, self.labels, strict=True))
      shown.append(f"labels: median px from their projections: {told}")
    if self.samples:
      told = " ".join(
        f"{name} {e:.3f}" for name, e in zip(self.names, self.iou, strict=True) if np.isfinite(e)
      )
      shown.append(f"silhouettes: IoU with their common solid: {told}")
    if self.samples and self.score < GOOD:
      hint = f"; it would be {self.other_score:.2f} if {self.other}" if self.other else ""
      shown.append(f"warning: silhouettes agree to {self.score:.2f} only{hint}; see check.html")
    return shown

  def to_json(self) -> dict[str, Any]:
    """For `recording.json`."""
    number = lambda x: None if np.isnan(x) else round(float(x), 4)
    return {
      "silhouette_iou": dict(zip(self.names, map(number, self.iou), strict=True)),
      "label_error_px": dict(zip(self.names, map(number, self.labels), strict=True)),
      "moments": [sample.index for sample in self.samples],
    }


def check_calibration(
  cropper: Cropper, frames: np.ndarray, indices: Sequence[int]
) -> CalibrationReport:
  """Looks at a few moments spread over those of `indices`.

  Args:
    cropper: the cameras.
    frames: (F, V) frame of each camera in each moment.
    indices: moments to choose from.
  """
  capture = cropper.capture
  crops, reason = _choose(cropper, frames, indices)
  samples = tuple(
    CheckedMoment(
      index=i, crops=c, agreement=common_solid.measure_agreement(_scene(capture, c, AS_GIVEN))
    )
    for i, c in crops
  )
  report = CalibrationReport(
    names=capture.rig.names,
    samples=samples,
    labels=rig_checks.label_errors(capture.rig),
    reason=reason,
  )
  if not samples or report.score >= GOOD:
    return report
  return _with_cause(cropper, report)


def _choose(
  cropper: Cropper, frames: np.ndarray, indices: Sequence[int]
) -> tuple[list[tuple[int, tuple[Crop, ...]]], str]:
  """Up to three moments with all cameras, or with most where none has all; the first problem."""
  places = np.linspace(0, len(indices) - 1, min(len(indices), _MOMENTS * _TRIES)).round()
  order = sorted({int(p) for p in places})
  # first the middles of as many equal parts as moments are wanted, then the others
  first = [order[(2 * k + 1) * len(order) // (2 * _MOMENTS)] for k in range(_MOMENTS)]
  whole: list[tuple[int, tuple[Crop, ...]]] = []
  partial: list[tuple[int, tuple[Crop, ...]]] = []
  reason = ""
  for place in dict.fromkeys([*first, *order]):
    index = indices[place]
    found, problems = cropper.map_cameras(frames[index], lambda v, f: cropper.crop(v, f, None))
    reason = reason or next(iter(problems.values()), "")
    crops = tuple(found[v] for v in sorted(found))
    (whole if len(crops) == len(cropper.pinholes) else partial).append((index, crops))
    if len(whole) == _MOMENTS:
      break
  enough = [(i, c) for i, c in partial if len(c) >= 3]
  chosen = (whole + sorted(enough, key=lambda one: -len(one[1])))[:_MOMENTS]
  return sorted(chosen, key=lambda one: one[0]), reason


def _scene(
  capture: Capture,
  crops: Sequence[Crop],
  reading: CalibrationHypothesis,
  cropper: Cropper | None = None,
) -> Scene:
  """The small scene of some crops under a reading."""
  poses = reading.poses(np.asarray(capture.rig.world_to_camera, np.float64))
  if cropper is not None:
    crops = [reading.crop(c, cropper.frame_reader.image_size(c.view, c.frame)) for c in crops]
  return common_solid.silhouette_scene(crops, poses[[c.view for c in crops]], len(capture.rig))


def _with_cause(cropper: Cropper, report: CalibrationReport) -> CalibrationReport:
  """Names the reading under which the silhouettes agree, if there is one.

  Readings are tried on one moment, likely ones first, until one fits; it is then confirmed on all.
  """
  first = report.samples[len(report.samples) // 2]
  best, highest = CalibrationHypothesis(name=""), float(first.agreement.iou.mean())
  for reading in _suspects(sorted(cropper.pinholes), report.names):
    score = _score(cropper, first, reading)
    if score > highest + _GAIN:
      best, highest = reading, score
    if score >= GOOD:
      break
  if not best.name:
    return report
  confirmed = float(np.median([_score(cropper, sample, best) for sample in report.samples]))
  if confirmed < max(report.score + _GAIN, POOR):
    return report
  return dataclasses.replace(report, other=best.name, other_score=confirmed)


def _suspects(views: Sequence[int], names: Sequence[str]) -> Iterator[CalibrationHypothesis]:
  """Everything that is tried, the likely first."""
  yield from COMMON_MISTAKES
  for a, b in itertools.combinations(views, 2):
    yield CalibrationHypothesis(
      name=f"{names[a]} and {names[b]} were exchanged", poses=exchange_cameras(a, b)
    )
  for view in views if len(views) > 3 else ():
    name = f"{names[view]} (its pose, lens, mask or sync) were left out: --without={names[view]}"
    yield CalibrationHypothesis(name=name, without=view)


def _score(cropper: Cropper, sample: CheckedMoment, reading: CalibrationHypothesis) -> float:
  """Mean IoU of one moment under a reading."""
  crops = [crop for crop in sample.crops if crop.view != reading.without]
  return float(
    common_solid.measure_agreement(_scene(cropper.capture, crops, reading, cropper)).iou.mean()
  )


def refuse_wrong_calibration(capture: Capture, report: CalibrationReport) -> None:
  """Raises `InputError` with the evidence where the calibration cannot be right."""
  if not report.samples:
    reason = f" ({report.reason})" if report.reason else ""
    problem = f"no moment has silhouettes in three cameras{reason}"
    raise InputError(capture.path, "masks", problem)
  mirrored = np.linalg.det(capture.rig.world_to_camera[:, :3, :3]) < 0
  if mirrored.any():
    names = ", ".join(n for n, m in zip(report.names, mirrored, strict=True) if m)
    raise InputError(capture.path, "calibration", f"mirrored (determinant -1): {names}")
  blamed = report.other and report.other_score >= GOOD
  if report.score >= POOR and not blamed:
    return
  told = " ".join(f"{x:.2f}" for x in report.iou)
  problem = f"the silhouettes admit no common solid: IoU {told}, expected above {GOOD}"
  if report.other:
    problem += f"; they would agree to {report.other_score:.2f} if {report.other}"
  raise InputError(capture.path, "calibration", problem)
