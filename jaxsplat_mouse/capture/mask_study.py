"""Studies the masks of a recording before any scene is written.

Each camera's plate is made of moments spread over the whole recording. Then the outlines of a few
moments are compared with what the pictures show; pooled over the moments, their offset is the
masks' bias, known to a tenth of a pixel where a single outline would be uncertain to one.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence

import numpy as np

from jaxsplat_mouse.capture.background_plate import BackgroundPlate, PlateBuilder
from jaxsplat_mouse.capture.crops import Cropper
from jaxsplat_mouse.capture.mattes import silhouette_box
from jaxsplat_mouse.capture.recording_mattes import (
  MaskFinding,
  RecordingMattes,
  grown_box,
  segment_picture,
  solve_part,
)
from jaxsplat_mouse.errors import InputError

MIN_MOMENTS = 8  # a plate takes that many
_PLATE_MOMENTS = 32
_COMPARED = 8  # moments whose outlines are compared
_MIN_COMPARED = 3
_SEEN = 0.72  # share of a silhouette from a plate that must differ from the plate by itself
_EMPTY = 0.25  # share of moments that may be without a silhouette
_STABLE = 5.0  # ratio of the 90th and the 10th percentile of the silhouettes' areas
_WARN = 1.5  # pixels from which an offset from the edges in the pictures is reported
_EDGE = 8  # pixels on either side of an outline in which the image's own edge is looked for


@dataclasses.dataclass
class OutlineSample:
  """The part of one picture around the animal, kept until the plate is made.

  Attributes:
    photo: (h, w, 3) uint8.
    coverage: (h, w) uint8.
    part: rows and columns in the whole picture.
  """

  photo: np.ndarray
  coverage: np.ndarray
  part: tuple[slice, slice]


def study_masks(cropper: Cropper, frames: np.ndarray, choice: str) -> RecordingMattes | None:
  """Makes plates and compares the masks with the pictures.

  Args:
    cropper: reads the pictures.
    frames: (F, V) frame of each camera in each moment of the recording.
    choice: `auto` for mattes where the masks are biased or wobble; `on` for all cameras.

  Returns:
    None where there are too few moments, or no separate masks.

  Raises:
    InputError: likewise, where `choice` is `on`.
  """
  moments = _spread_moments(frames)
  if cropper.capture.masks is None or len(moments) < MIN_MOMENTS:
    if choice == "on":
      problem = f"takes masks of their own and at least {MIN_MOMENTS} moments; there are"
      problem += f" {len(moments)} moments" if cropper.capture.masks is not None else " no masks"
      raise InputError(cropper.capture.path, "--matte=on", problem)
    return None
  builders = {view: PlateBuilder(view) for view in cropper.pinholes}
  samples: dict[int, list[OutlineSample]] = {view: [] for view in cropper.pinholes}
  compared = set(np.linspace(0, len(moments) - 1, _COMPARED).round().astype(int).tolist())

  def add(view: int, frame: int, *, keep: bool) -> None:
    raw = cropper.frame_reader.read_frame(view, frame)
    builders[view].add(raw.photo, raw.coverage)
    box = silhouette_box(raw.coverage)
    if keep and box is not None:
      part = grown_box(box, raw.coverage.shape)  # type: ignore[arg-type]
      samples[view].append(OutlineSample(raw.photo[part].copy(), raw.coverage[part].copy(), part))

  for place, index in enumerate(moments):
    cropper.map_cameras(frames[index], functools.partial(add, keep=place in compared))
  plates, findings = {}, {}
  for view, builder in builders.items():
    if len(builder.gains) < MIN_MOMENTS:
      continue
    plates[view] = builder.build()
    finding = compare_masks(plates[view], samples[view], choice)
    if finding is not None:
      findings[view] = finding
  return RecordingMattes(names=cropper.capture.rig.names, plates=plates, findings=findings)


def _spread_moments(frames: np.ndarray) -> list[int]:
  """Returns moments spread over the recording."""
  usable = np.flatnonzero((frames >= 0).any(1))
  places = np.linspace(0, len(usable) - 1, min(len(usable), _PLATE_MOMENTS)).round().astype(int)
  return usable[np.unique(places)].tolist()


def part_of(plate: BackgroundPlate, part: tuple[slice, slice]) -> BackgroundPlate:
  """Returns rows and columns of a plate."""
  return dataclasses.replace(
    plate, color=plate.color[part], spread=plate.spread[part], known=plate.known[part]
  )


def compare_masks(
  plate: BackgroundPlate, samples: Sequence[OutlineSample], choice: str
) -> MaskFinding | None:
  """Compares outlines with the pictures of one camera.

  Args:
    plate: of the camera.
    samples: of a few moments.
    choice: see `study_masks`.

  Returns:
    None where too few moments have contrast enough.
  """
  everything = np.s_[:, :]
  found = []
  for sample in samples:
    part = part_of(plate, sample.part)
    matte = solve_part(part, sample.photo, sample.coverage, everything, None)
    if len(matte.offsets):
      found.append(matte.offsets)
  if len(found) < _MIN_COMPARED:
    return None
  middles = np.array([np.median(offsets) for offsets in found])
  offset = float(np.median(middles))
  off = np.abs(np.concatenate(found) - offset)
  # Of a median, from a robust spread: one moment that went wrong must not hide the others.
  spread = 1.4826 * np.median(np.abs(middles - offset))
  error = float(1.2533 * spread / np.sqrt(len(middles)))
  wobble = float(1.4826 * np.median(off))
  finding = MaskFinding(
    offset=offset, error=error, wobble=wobble, moments=len(found), matted=choice == "on"
  )
  return dataclasses.replace(finding, matted=finding.matted or finding.wrong)


def make_masks(cropper: Cropper, frames: np.ndarray) -> RecordingMattes:
  """Makes plates without any masks, for silhouettes from the plates alone.

  The plates are made of all pictures, the animal in them included: the ground repeats itself.

  Args:
    cropper: reads the pictures.
    frames: (F, V) frame of each camera in each moment of the recording.

  Raises:
    InputError: there are too few moments, or the animal does not stand out from a camera's plate.
  """
  capture = cropper.capture
  moments = _spread_moments(frames)
  if len(moments) < MIN_MOMENTS:
    problem = f"{len(moments)} moments; masks from a plate take at least {MIN_MOMENTS}"
    raise InputError(capture.path, "--masks=plate", problem)
  builders = {view: PlateBuilder(view) for view in cropper.pinholes}
  add = lambda view, frame: builders[view].add(cropper.frame_reader.read_photo(view, frame))
  for index in moments:
    cropper.map_cameras(frames[index], add)
  plates = {view: b.build() for view, b in builders.items() if len(b.gains) >= MIN_MOMENTS}
  facts = _measure_silhouettes(cropper, frames, moments, plates)
  for view in plates:
    _require_contrast(cropper, view, np.array(facts[view]))
  finding = MaskFinding(offset=0.0, error=0.0, wobble=1.0, moments=len(moments), matted=True)
  return RecordingMattes(
    names=capture.rig.names,
    plates=plates,
    findings=dict.fromkeys(plates, finding),
    from_plate=True,
  )


def _measure_silhouettes(
  cropper: Cropper,
  frames: np.ndarray,
  moments: Sequence[int],
  plates: Mapping[int, BackgroundPlate],
) -> dict[int, list[tuple[float, float]]]:
  """Returns area and seen share, see `segment_picture`, of each moment's silhouette by camera."""
  facts: dict[int, list[tuple[float, float]]] = {view: [] for view in cropper.pinholes}

  def measure(view: int, frame: int) -> None:
    if view in plates:
      coverage, share = segment_picture(plates[view], cropper.frame_reader.read_photo(view, frame))
      facts[view].append((float((coverage > 0).sum()), share))

  for index in moments:
    cropper.map_cameras(frames[index], measure)
  return facts


def _require_contrast(cropper: Cropper, view: int, facts: np.ndarray) -> None:
  """Refuses a camera whose plate does not show the animal; `facts` (M, 2): area, seen share."""
  areas, shares = facts.T
  empty = float((areas == 0).mean())
  seen = float(np.median(shares[areas > 0])) if (areas > 0).any() else 0.0
  low, high = np.percentile(areas[areas > 0], [10, 90]) if (areas > 0).any() else (1.0, 1.0)
  if empty > _EMPTY:
    problem = f"no animal stands out from the background in {empty:.0%} of the moments"
  elif seen < _SEEN:
    problem = f"only {seen:.0%} of the animal differs from the background; expected {_SEEN:.0%}"
  elif high > _STABLE * low:
    problem = f"what differs from the background covers {low:.0f} to {high:.0f} px; expected one"
    problem += " animal of about one size"
  else:
    return
  name = cropper.capture.rig.names[view]
  advice = f"give masks with --masks=DIR, or leave the camera out with --without={name}"
  raise InputError(cropper.capture.path, name, f"--masks=plate: {problem}; {advice}")


def edge_offset(photo: np.ndarray, coverage: np.ndarray) -> float | None:
  """Measures how far an outline lies outside the image's own edge beside it.

  The image's gradient across the outline, averaged along it, peaks at the edge.

  Args:
    photo: (H, W, 3) uint8.
    coverage: (H, W) uint8.

  Returns:
    Pixels, positive where the outline is too wide; None where no edge stands out.
  """
  import cv2

  from jaxsplat_mouse.capture.plate_mattes import outline_distance

  signed = outline_distance(coverage)
  smooth = cv2.GaussianBlur(photo.astype(np.float32), (0, 0), 0.8)
  normal_x, normal_y = (cv2.Sobel(signed, cv2.CV_32F, *d, ksize=3) / 8 for d in ((1, 0), (0, 1)))
  across = np.zeros_like(signed)
  for channel in range(3):
    plane = np.ascontiguousarray(smooth[..., channel])
    x, y = (cv2.Sobel(plane, cv2.CV_32F, *d, ksize=3) / 8 for d in ((1, 0), (0, 1)))
    across += np.abs(x * normal_x + y * normal_y)
  centers = np.arange(-_EDGE, _EDGE + 1)
  places = np.round(signed).astype(int)
  profile = np.array([across[places == c].mean() if (places == c).any() else 0 for c in centers])
  best = int(profile[1:-1].argmax()) + 1
  if profile[best] < 1.5 * np.median(profile):
    return None
  before, here, after = profile[best - 1 : best + 2]
  bend = max(before - 2 * here + after, -1e9)
  step = 0.5 * (before - after) / bend if bend < 0 else 0.0
  return float(-(centers[best] + np.clip(step, -0.5, 0.5)))


def warn_of_offset(
  cropper: Cropper, frames: np.ndarray, indices: Sequence[int], grow: int
) -> list[str]:
  """Returns a warning where the masks of few moments lie beside the images' own edges.

  Args:
    cropper: reads the pictures.
    frames: (F, V) frame of each camera in each moment.
    indices: the chosen moments.
    grow: what the masks were widened by already, pixels.
  """
  if cropper.capture.masks is None:
    return []

  def measure(view: int, frame: int) -> float | None:
    raw = cropper.frame_reader.read_frame(view, frame)
    return edge_offset(raw.photo, raw.coverage)

  found: list[float] = []
  for index in indices[:MIN_MOMENTS]:
    values, _ = cropper.map_cameras(frames[index], measure)
    found += [value for value in values.values() if value is not None]
  if len(found) < _MIN_COMPARED:
    return []
  offset = float(np.median(found))
  error = float(1.2533 * np.std(found, ddof=1) / np.sqrt(len(found)))
  if abs(offset) < max(_WARN, 2 * error):
    return []
  side = "outside" if offset > 0 else "inside"
  return [
    f"warning: masks lie {abs(offset):.1f} ± {error:.1f} px {side} the edges in the pictures;"
    f" --grow={grow - round(offset)} would move them"
  ]
