"""What a check of calibration and masks found and what was done about it, in plain sentences."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxsplat_mouse.capture.calibration_check import GOOD, POOR, CalibrationReport
from jaxsplat_mouse.capture.calibration_refinement import FEWEST_MOMENTS, CalibrationRefinement
from jaxsplat_mouse.capture.recording_mattes import WOBBLING, MaskFinding, RecordingMattes

NOTICEABLE = 0.5  # pixels by which a camera is off, below which the sheet does not speak of it
_STANDS_OUT = 3.0  # times as far off as the next camera: the sheet names this one alone
# Everything is well; something was wrong and is mended; something stays in doubt; it is wrong.
WELL, MENDED, DOUBTFUL, WRONG = "well", "mended", "doubtful", "wrong"
_HEADLINES = {
  WELL: "The calibration fits",
  MENDED: "The calibration was off, and is corrected",
  DOUBTFUL: "Something does not fit",
  WRONG: "The calibration cannot be right",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class CheckFindings:
  """The result of checking a recording.

  Attributes:
    given: the check of the calibration as it was given.
    used: the check of the cameras in use; `given` itself where they are the same.
    refinement: how poses were refined; None where that was not tried.
    mattes: plates, and what was found about the masks; None for too few moments.
    sync: whether the cameras ran in step, see `SyncStudy.to_json`; empty where that was not asked.
    settled: whether an earlier run settled the cameras in use.
  """

  given: CalibrationReport
  used: CalibrationReport
  refinement: CalibrationRefinement | None = None
  mattes: RecordingMattes | None = None
  sync: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  settled: bool = False

  @property
  def corrected(self) -> bool:
    """Whether refined poses are in use."""
    return self.refinement is not None and self.refinement.accepted

  @property
  def verdict(self) -> str:
    """One of `WELL`, `MENDED`, `DOUBTFUL`, `WRONG`."""
    used, found = self.used, self.refinement
    if used.score < POOR or (used.other and used.other_score >= GOOD):
      return WRONG
    if used.score < GOOD or (found is not None and found.fault is not None):
      return DOUBTFUL
    late = bool(self.sync.get("offsets"))
    if late and not self.sync.get("applied"):
      return DOUBTFUL
    return MENDED if self.corrected or late else WELL

  @property
  def headline(self) -> str:
    """The verdict in a few words."""
    blamed = self._blamed()
    if blamed:
      return f"{blamed} does not fit the others"
    if self.verdict == MENDED and not self.corrected:
      return "The calibration fits, the cameras' times are corrected"
    return _HEADLINES[self.verdict]

  def sentences(self) -> list[str]:
    """Says in plain English what was found and what was done, the calibration first."""
    poses = self._correction() if self.corrected else self._no_correction()
    if self._blamed():
      return [*self._doubts(), *self._times(), *poses, *self._masks()]
    return [*poses, *self._doubts(), *self._times(), *self._masks()]

  def off_by(self, view: int) -> tuple[float, float] | None:
    """Degrees and pixels by which a camera was off; None where nothing was corrected."""
    found = self.refinement
    if found is None or found.refinement is None or not self.corrected or view not in found.views:
      return None
    place = found.views.index(view)
    return float(found.angles[place]), float(found.off_by[place])

  def mask_finding(self, view: int) -> MaskFinding | None:
    """What was found about the masks of a camera."""
    return None if self.mattes is None else self.mattes.findings.get(view)

  def _blamed(self) -> str:
    """Name of the camera that contradicts the others under every pose; "" for none."""
    found = self.refinement
    if found is None or found.fault is None:
      return ""
    return camera_title(self.given.names[found.views[found.fault.view]])

  def _correction(self) -> list[str]:
    """Says which cameras were off, by how much, and how silhouettes agree since."""
    rows = []
    for view, name in enumerate(self.given.names):
      off = self.off_by(view)
      if off is not None and off[1] >= NOTICEABLE:
        rows.append((off[1], off[0], camera_title(name)))
    rows.sort(reverse=True)
    agree = f"silhouettes now agree to {self.used.score:.2f} (before {self.given.score:.2f})"
    if not rows:
      return [f"The poses were corrected by less than a pixel: {agree}."]
    pixels, degrees, name = rows[0]
    away = f"away from where the calibration says ({pixels_text(pixels)} in its pictures)"
    if len(rows) == 1 or pixels > _STANDS_OUT * rows[1][0]:
      return [f"{name} pointed {degrees_text(degrees)} {away}. Its pose was corrected: {agree}."]
    angles = [angle for _, angle, _ in rows]
    spread = f"up to {degrees_text(max(angles))}"
    if min(angles) >= 0.095:
      spread = f"{degrees_text(min(angles))} to {degrees_text(max(angles))}"
    everyone = len(rows) == len(self.given.names)
    who = f"All {len(rows)} cameras" if everyone else f"{len(rows)} of the cameras"
    most = f"{name} the most, by {pixels_text(pixels)} in its pictures"
    return [
      f"{who} pointed {spread} away from where the calibration says, {most}. "
      f"Their poses were corrected: {agree}."
    ]

  def _no_correction(self) -> list[str]:
    """Says how well silhouettes agree, and why the calibration stays."""
    used, found = self.used, self.refinement
    agree = f"silhouettes agree to {used.score:.2f}"
    if self.verdict == WRONG:
      problem = f"The silhouettes do not fit one solid: they agree to {used.score:.2f} only, "
      problem += f"expected above {GOOD}."
      return [problem, *self._other()]
    if used.score < GOOD:
      return [f"The {agree} only, expected above {GOOD}.", *self._other(), *self._stays()]
    if found is not None and found.objection:
      return [f"The {agree}. Other poses were tried and dropped: {found.objection}."]
    if self.settled:
      return [f"The {agree} under the cameras that an earlier run settled on."]
    return [f"The {agree} under the cameras as given, which stay."]

  def _other(self) -> list[str]:
    """Names the mistake under which the silhouettes would agree."""
    if not self.used.other or (self.used.leaves_out and self._blamed()):
      return []
    return [f"They would agree to {self.used.other_score:.2f} if {self.used.other}."]

  def _stays(self) -> list[str]:
    """Says why a poor calibration stays."""
    found = self.refinement
    if found is None:
      return []
    if found.refinement is None:
      count = len(found.moments)
      return [f"Correcting poses takes {FEWEST_MOMENTS} moments; there are {count}."]
    return ["No other poses of the cameras make them agree better, so the given ones stay."]

  def _doubts(self) -> list[str]:
    """Says which camera contradicts the others under every pose."""
    found = self.refinement
    if found is None or found.fault is None:
      shown = "That is still below what exact cameras and masks reach; look at the pictures below."
      return [shown] if self.corrected and self.verdict == DOUBTFUL else []
    fault, name = found.fault, self.given.names[found.views[found.fault.view]]
    contradicts = f"{self._blamed()} contradicts the others whatever its pose"
    if fault.move is None:
      why = "its pose, its lens or its masks are wrong"
      return [f"{contradicts}: {why}. Try --without={name}."]
    last, first = found.moments[fault.move.start - 1], found.moments[fault.move.start]
    return [
      f"{self._blamed()} moved during the recording, between the moments {last} and {first}, by "
      f"{pixels_text(fault.move.pixels)}. Prepare the two parts, or try --without={name}."
    ]

  def _times(self) -> list[str]:
    """Says which cameras ran early or late, and what was done."""
    offsets = self.sync.get("offsets", {})
    said = []
    for name, offset in offsets.items():
      frames = "one frame" if abs(offset) == 1 else f"{abs(offset)} frames"
      said.append(f"{camera_title(name)} ran {frames} {'late' if offset > 0 else 'early'}")
    if not said:
      return []
    option = ",".join(f"{name}:{offset}" for name, offset in offsets.items())
    applied = "that is corrected" if self.sync.get("applied") else f"try --offsets={option}"
    return [f"{', '.join(said)}; {applied}."]

  def _masks(self) -> list[str]:
    """Says what is wrong with the masks, and what was done."""
    mattes = self.mattes
    if mattes is None:
      return []
    if mattes.from_plate:
      return ["There are no masks: they were made from the pictures and the empty scene."]
    biased = [f.offset for f in mattes.findings.values() if f.biased]
    wobbling = [f.wobble for f in mattes.findings.values() if f.wobble > WOBBLING]
    if not biased and not wobbling:
      return ["The masks fit the pictures."] if mattes.findings else []
    count = sum(f.wrong for f in mattes.findings.values())
    of = "all cameras" if count == len(mattes.names) else f"{count} of {len(mattes.names)} cameras"
    said = []
    if biased:
      side = "too wide" if np.median(biased) > 0 else "too narrow"
      said.append(f"are {pixels_text(abs(float(np.median(biased))))} {side}")
    if wobbling:
      said.append(f"wobble by {pixels_text(max(wobbling))}")
    matted = any(mattes.matted(view) for view in mattes.findings)
    done = "their outlines were solved anew from the pictures" if matted else "they stay"
    return [f"The masks of {of} {' and '.join(said)}; {done}."]


def camera_title(name: str) -> str:
  """Returns a camera's name as a sentence needs it: one that is a number gets a noun."""
  return f"Camera {name}" if name.isdecimal() else name


def degrees_text(degrees: float) -> str:
  """Returns an angle as a person reads it."""
  return f"{degrees:.1f}°" if degrees >= 0.095 else f"{degrees:.2f}°"


def pixels_text(pixels: float) -> str:
  """Returns pixels as a person reads them."""
  return f"{pixels:.0f} px" if pixels >= 9.5 else f"{pixels:.1f} px"
