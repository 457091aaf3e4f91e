"""Checks a calibration against labels and silhouettes, before anything is written.

Silhouettes of one solid, carved and projected back, explain themselves: their IoU is close to one.
A calibration that is mirrored, transposed, wrongly scaled or of other cameras leaves almost nothing
in common. Where silhouettes disagree, the usual mistakes are tried, then pairs of exchanged
cameras, then each camera is left out, so that the refusal can name what is wrong.
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
  exchange_intrinsics,
)
from jaxsplat_mouse.capture.crops import Crop, Cropper
from jaxsplat_mouse.capture.raw_capture import Capture
from jaxsplat_mouse.errors import InputError
from jaxsplat_mouse.scene import Scene

GOOD = 0.85  # mean IoU from which a calibration is accepted without trying hypotheses
POOR = 0.6  # mean IoU below which a calibration is refused whatever the reason
_MIN_GAIN = 0.1  # of IoU; a hypothesis must improve it by more to be named
_MOMENTS = 3
_TRIES = 4  # times as many moments are read, where some lack cameras
_MIN_VIEWS = 3

_MomentCrops = tuple[int, tuple[Crop, ...]]  # the index of a moment, and its crops by camera


@dataclasses.dataclass(frozen=True, kw_only=True)
class CheckedMoment:
  """One moment whose silhouettes were compared.

  Attributes:
    index: its row in the recording.
    crops: tight crops of the cameras that have a silhouette, in the cameras' order.
    agreement: how well the common solid explains each of `crops`.
  """

  index: int
  crops: tuple[Crop, ...]
  agreement: common_solid.SolidAgreement


@dataclasses.dataclass(frozen=True, kw_only=True)
class CalibrationReport:
  """The result of a check.

  Attributes:
    names: V names of all cameras.
    samples: the compared moments.
    labels: (V,) median distance of labels from their projections, pixels; NaN without labels.
    other: the name of a hypothesis that fits better, or "".
    other_score: its mean IoU.
    leaves_out: whether that hypothesis leaves a camera out, and so names no mistake of a file.
    exchanges: whether that hypothesis exchanges two cameras.
    reason: why the first camera without a silhouette has none, or "".
  """

  names: tuple[str, ...]
  samples: tuple[CheckedMoment, ...]
  labels: np.ndarray
  other: str = ""
  other_score: float = 0.0
  leaves_out: bool = False
  exchanges: bool = False
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

  @property
  def names_mistake(self) -> bool:
    """Whether the silhouettes agree if the calibration's file is understood in another way."""
    return bool(self.other) and self.other_score >= GOOD and not self.leaves_out

  def lines(self) -> list[str]:
    """Describes the result in a line for each kind of evidence."""
    shown = []
    if not np.isnan(self.labels).all():
      listed = " ".join(f"{name} {e:.2f}" for name, e in zip(self.names, self.labels, strict=True))
      shown.append(f"labels: median px from their projections: {listed}")
    if self.samples:
      listed = " ".join(
        f"{name} {e:.3f}" for name, e in zip(self.names, self.iou, strict=True) if np.isfinite(e)
      )
      shown.append(f"silhouettes: IoU with their common solid: {listed}")
    if self.samples and self.score < GOOD:
      hint = f"; it would be {self.other_score:.2f} if {self.other}" if self.other else ""
      shown.append(f"warning: silhouettes agree to {self.score:.2f} only{hint}; see check.html")
    return shown

  def to_json(self) -> dict[str, Any]:
    """Returns the part that `recording.json` keeps."""
    number = lambda x: None if np.isnan(x) else round(float(x), 4)
    return {
      "silhouette_iou": dict(zip(self.names, map(number, self.iou), strict=True)),
      "label_error_px": dict(zip(self.names, map(number, self.labels), strict=True)),
      "moments": [sample.index for sample in self.samples],
    }


def check_calibration(
  cropper: Cropper, frames: np.ndarray, indices: Sequence[int]
) -> CalibrationReport:
  """Compares the silhouettes of a few moments, spread over the chosen ones.

  Args:
    cropper: reads and crops the pictures.
    frames: (F, V) frame of each camera in each moment.
    indices: the chosen moments.
  """
  capture = cropper.capture
  chosen, reason = _crop_moments(cropper, frames, indices)
  samples = tuple(
    CheckedMoment(
      index=index,
      crops=crops,
      agreement=common_solid.measure_agreement(_scene(capture, crops, AS_GIVEN)),
    )
    for index, crops in chosen
  )
  report = CalibrationReport(
    names=capture.rig.names,
    samples=samples,
    labels=rig_checks.label_errors(capture.rig),
    reason=reason,
  )
  if not samples or report.score >= GOOD:
    return report
  return _name_mistake(cropper, report)


def _crop_moments(
  cropper: Cropper, frames: np.ndarray, indices: Sequence[int]
) -> tuple[list[_MomentCrops], str]:
  """Crops up to three moments with all cameras, or else with the most; adds the first problem."""
  whole: list[_MomentCrops] = []
  partial: list[_MomentCrops] = []
  reason = ""
  for index in _sampling_order(indices):
    found, problems = cropper.map_cameras(frames[index], lambda v, f: cropper.crop(v, f, None))
    reason = reason or next(iter(problems.values()), "")
    crops = tuple(found[v] for v in sorted(found))
    (whole if len(crops) == len(cropper.pinholes) else partial).append((index, crops))
    if len(whole) == _MOMENTS:
      break
  enough = [(i, crops) for i, crops in partial if len(crops) >= _MIN_VIEWS]
  chosen = (whole + sorted(enough, key=lambda one: -len(one[1])))[:_MOMENTS]
  return sorted(chosen, key=lambda one: one[0]), reason


def _sampling_order(indices: Sequence[int]) -> list[int]:
  """Returns evenly spaced moments: first the middles of as many parts as are wanted, then more."""
  places = np.linspace(0, len(indices) - 1, min(len(indices), _MOMENTS * _TRIES)).round()
  order = sorted({int(p) for p in places})
  first = [order[(2 * k + 1) * len(order) // (2 * _MOMENTS)] for k in range(_MOMENTS)]
  return [indices[place] for place in dict.fromkeys([*first, *order])]


def _scene(
  capture: Capture,
  crops: Sequence[Crop],
  hypothesis: CalibrationHypothesis,
  cropper: Cropper | None = None,
) -> Scene:
  """Builds the silhouette scene of some crops under a hypothesis; `cropper` adapts the crops."""
  poses = hypothesis.poses(np.asarray(capture.rig.world_to_camera, np.float64))
  if cropper is not None:
    reader = cropper.frame_reader
    crops = [hypothesis.crop(c, reader.image_size(c.view, c.frame)) for c in crops]
  return common_solid.silhouette_scene(crops, poses[[c.view for c in crops]], len(capture.rig))


def _name_mistake(cropper: Cropper, report: CalibrationReport) -> CalibrationReport:
  """Adds the hypothesis under which the silhouettes agree, if there is one.

  Hypotheses are tried on one moment, likely ones first, until one fits; that one is then confirmed
  on all moments.
  """
  first = report.samples[len(report.samples) // 2]
  best, highest = CalibrationHypothesis(name=""), float(first.agreement.iou.mean())
  for hypothesis in _hypotheses(cropper):
    score = _score(cropper, first, hypothesis)
    if score > highest + _MIN_GAIN:
      best, highest = hypothesis, score
    if score >= GOOD:
      break
  if not best.name:
    return report
  confirmed = float(np.median([_score(cropper, sample, best) for sample in report.samples]))
  if confirmed < max(report.score + _MIN_GAIN, POOR):
    return report
  return dataclasses.replace(
    report,
    other=best.name,
    other_score=confirmed,
    leaves_out=best.without is not None,
    exchanges=best.exchanges,
  )


def _hypotheses(cropper: Cropper) -> Iterator[CalibrationHypothesis]:
  """Yields all hypotheses, likely ones first."""
  rig, pinholes = cropper.capture.rig, cropper.pinholes
  views, names = sorted(pinholes), rig.names
  yield from COMMON_MISTAKES
  for a, b in itertools.combinations(views, 2):
    yield CalibrationHypothesis(
      name=f"{names[a]} and {names[b]} were exchanged",
      poses=exchange_cameras(a, b),
      crop=exchange_intrinsics(a, b, pinholes, rig.matrices),
      exchanges=True,
    )
  for a, b in itertools.combinations(views, 2):
    name = f"the poses of {names[a]} and {names[b]} were exchanged"
    yield CalibrationHypothesis(name=name, poses=exchange_cameras(a, b), exchanges=True)
  for view in views if len(views) > _MIN_VIEWS else ():
    name = f"{names[view]} (its pose, lens, mask or sync) were left out: --without={names[view]}"
    yield CalibrationHypothesis(name=name, without=view)


def _score(cropper: Cropper, sample: CheckedMoment, hypothesis: CalibrationHypothesis) -> float:
  """Mean IoU of one moment under a hypothesis."""
  crops = [crop for crop in sample.crops if crop.view != hypothesis.without]
  scene = _scene(cropper.capture, crops, hypothesis, cropper)
  return float(common_solid.measure_agreement(scene).iou.mean())


def refuse_wrong_calibration(capture: Capture, report: CalibrationReport) -> None:
  """Raises an error, with the evidence, where the calibration cannot be right.

  Raises:
    InputError: there is no moment to check, poses are mirrored, or the silhouettes have no common
      solid.
  """
  if not report.samples:
    reason = f" ({report.reason})" if report.reason else ""
    problem = f"no moment has silhouettes in three cameras{reason}"
    raise InputError(capture.path, "masks", problem)
  mirrored = np.linalg.det(capture.rig.world_to_camera[:, :3, :3]) < 0
  if mirrored.any():
    names = ", ".join(n for n, m in zip(report.names, mirrored, strict=True) if m)
    raise InputError(capture.path, "calibration", f"mirrored (determinant -1): {names}")
  # Exchanged cameras that are also a little off agree less well, but far better than as given.
  blamed = report.other and (report.other_score >= GOOD or report.exchanges)
  if report.score >= POOR and not blamed:
    return
  listed = " ".join(f"{x:.2f}" for x in report.iou)
  problem = f"the silhouettes admit no common solid: IoU {listed}, expected above {GOOD}"
  if report.other:
    problem += f"; they would agree to {report.other_score:.2f} if {report.other}"
  raise InputError(capture.path, "calibration", problem)
