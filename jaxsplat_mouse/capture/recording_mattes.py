"""What a recording says about its masks: their plates, their bias, and the mattes that follow.

`frame_reader.FrameReader` applies the mattes; `mask_study.py` makes a `RecordingMattes`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np

from jaxsplat_mouse.capture import plate_mattes
from jaxsplat_mouse.capture.background_plate import BackgroundPlate
from jaxsplat_mouse.capture.mattes import clean_mask, silhouette_box
from jaxsplat_mouse.capture.plate_mattes import Matte

BIASED, WOBBLING = 0.3, 0.3  # pixels from which masks are worth correcting
_ROOM = 24  # pixels around a silhouette that its matte looks at
_DARK, _BRIGHT = 0.55, 1.3  # light that shadows and reflections leave, as a share of the plate's
_HUE = 4.0  # standard deviations of colour from which a pixel is not the ground in another light
_PLATE_SPECKS = 0.02  # of the largest part's area, in silhouettes from a plate alone


@dataclasses.dataclass(frozen=True, kw_only=True)
class MaskFinding:
  """How the masks of one camera compare with its pictures.

  Attributes:
    offset: pixels by which outlines lie outside the animal's; negative for inside.
    error: standard error of `offset` over the moments.
    wobble: standard deviation of the offset along an outline, robust, pixels.
    moments: number of moments that had enough contrast to say so.
    matted: whether alpha is solved too; otherwise masks stay and only their colours are.
  """

  offset: float
  error: float
  wobble: float
  moments: int
  matted: bool

  @property
  def biased(self) -> bool:
    """Whether the offset is significant and large enough to matter."""
    return abs(self.offset) > max(BIASED, 2 * self.error)

  @property
  def wrong(self) -> bool:
    """Whether the masks are worth correcting."""
    return self.biased or self.wobble > WOBBLING

  def to_json(self) -> dict[str, Any]:
    """Returns the part that `recording.json` keeps."""
    rounded = {
      "offset_px": round(self.offset, 3),
      "offset_error_px": round(self.error, 3),
      "wobble_px": round(self.wobble, 3),
    }
    return {**rounded, "moments": self.moments, "matted": self.matted}


@dataclasses.dataclass(frozen=True, kw_only=True)
class RecordingMattes:
  """Plates and findings by number of the camera.

  Attributes:
    names: of all cameras.
    plates: the empty scenes.
    findings: about the masks.
    from_plate: whether there are no masks and silhouettes come from the plates alone.
  """

  names: tuple[str, ...]
  plates: Mapping[int, BackgroundPlate]
  findings: Mapping[int, MaskFinding]
  from_plate: bool = False

  def matted(self, view: int) -> bool:
    """Whether alpha is solved for a camera, not colour alone."""
    return view in self.findings and self.findings[view].matted

  def solve(self, view: int, photo: np.ndarray, coverage: np.ndarray) -> Matte:
    """Returns the matte of a whole picture; colour is 0 far from the silhouette.

    Args:
      view: number of the camera.
      photo: (H, W, 3) uint8.
      coverage: (H, W) uint8, the given silhouette.
    """
    height, width = coverage.shape
    alpha = np.zeros((height, width), np.float32)
    color = np.zeros((height, width, 3), np.float32)
    confidence = np.zeros_like(alpha)
    box = silhouette_box(coverage)
    if box is None:
      return Matte(alpha=alpha, color=color, confidence=confidence, offsets=np.zeros(0, np.float32))
    finding = self.findings[view]
    part = grown_box(box, (height, width))
    found = solve_part(self.plates[view], photo, coverage, part, finding)
    alpha[part], color[part], confidence[part] = found.alpha, found.color, found.confidence
    return dataclasses.replace(found, alpha=alpha, color=color, confidence=confidence)

  def segment(self, view: int, photo: np.ndarray) -> np.ndarray:
    """Returns a silhouette (H, W) uint8 from a picture (H, W, 3) uint8 and its plate alone."""
    return segment_picture(self.plates[view], photo)[0]

  def lines(self) -> list[str]:
    """Describes the findings in plain English, a line for each kind."""
    biased = [
      f"{self.names[v]} {f.offset:+.1f} ± {f.error:.1f}"
      for v, f in self.findings.items()
      if f.biased
    ]
    wobbling = [
      f"{self.names[v]} {f.wobble:.1f}" for v, f in self.findings.items() if f.wobble > WOBBLING
    ]
    matted = [self.names[v] for v in self.findings if self.matted(v)]
    shown = []
    if biased and not self.from_plate:
      shown.append(f"masks: px that outlines are too wide (+) or narrow (-): {' '.join(biased)}")
    if wobbling and not self.from_plate:
      shown.append(f"masks: px by which outlines wobble: {' '.join(wobbling)}")
    if matted:
      shown.append(f"mattes: outlines and colours are solved for {' '.join(matted)}")
    elif self.findings:
      shown.append("mattes: masks agree with the pictures and stay; colours along them are solved")
    pale = [self.names[v] for v in self.plates if v not in self.findings]
    if pale:
      shown.append(f"mattes: animal and background look too much alike for {' '.join(pale)}")
    return shown

  def to_json(self) -> dict[str, Any]:
    """Returns the part that `recording.json` keeps."""
    return {
      "from_plate": self.from_plate,
      "cameras": {self.names[v]: f.to_json() for v, f in sorted(self.findings.items())},
    }


def grown_box(box: tuple[int, int, int, int], shape: tuple[int, int]) -> tuple[slice, slice]:
  """Returns rows and columns of a silhouette's box with room for its matte."""
  x0, y0, x1, y1 = box
  rows = slice(max(y0 - _ROOM, 0), min(y1 + _ROOM, shape[0]))
  return rows, slice(max(x0 - _ROOM, 0), min(x1 + _ROOM, shape[1]))


def solve_part(
  plate: BackgroundPlate,
  photo: np.ndarray,
  coverage: np.ndarray,
  part: tuple[slice, slice],
  finding: MaskFinding | None,
) -> Matte:
  """Solves the matte of a part of a picture.

  Args:
    plate: of the camera.
    photo: (H, W, 3) uint8, the whole picture.
    coverage: (H, W) uint8, its silhouette.
    part: rows and columns.
    finding: about the camera's masks; None while they are studied.
  """
  return plate_mattes.solve_matte(
    photo[part],
    coverage[part],
    plate.color[part],
    plate.spread[part],
    plate.known[part],
    expected=finding.offset if finding is not None else 0.0,
    wobble=finding.wobble if finding is not None else None,
    keep=finding is not None and not finding.matted,
  )


def segment_picture(plate: BackgroundPlate, photo: np.ndarray) -> tuple[np.ndarray, float]:
  """Finds the animal where a picture is neither its plate nor its plate in another light.

  Args:
    plate: of the camera.
    photo: (H, W, 3) uint8.

  Returns:
    The silhouette (H, W) uint8, and the share of it that differs from the plate by itself, before
    gaps are closed.
  """
  import cv2

  image, ground = photo.astype(np.float32), plate.color
  lit = np.maximum((ground * ground).sum(-1), 1.0)
  light = (image * ground).sum(-1) / lit
  gain = float(np.median(light[plate.known])) if plate.known.any() else 1.0
  rest = image - light[..., None] * ground
  hue = np.sqrt((rest * rest).sum(-1)) / (plate.spread * 1.5 + 2)
  # On dark ground a few levels are a large share of the light.
  margin = 12 / np.sqrt(lit)
  seen = (hue > _HUE) | (light < _DARK * gain - margin) | (light > _BRIGHT * gain + margin)
  levels = (seen & plate.known).astype(np.uint8) * np.uint8(255)
  levels = np.asarray(cv2.morphologyEx(levels, cv2.MORPH_OPEN, np.ones((2, 2), np.uint8)))
  closed = cv2.morphologyEx(levels, cv2.MORPH_CLOSE, np.ones((9, 9), np.uint8))
  found = clean_mask(np.asarray(closed, np.uint8), _PLATE_SPECKS)
  inside = found > 127
  share = float(levels[inside].mean() / 255) if inside.any() else 0.0
  return inside.astype(np.uint8) * np.uint8(255), share
