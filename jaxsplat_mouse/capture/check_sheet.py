"""Writes `check.png` and `check.html`, on which a person sees whether a calibration is right.

The page says in a sentence or two what was found and what was done. Then it shows every camera,
the worst first: photograph, disagreement before and after, empty scene, matte, and how the camera
contradicts the others over the recording. It is one file without links to other places.
"""

from __future__ import annotations

import base64
import dataclasses
import io
import pathlib
import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from markupsafe import Markup
from PIL import Image

from jaxsplat_mouse.capture import check_charts, check_pictures
from jaxsplat_mouse.capture.calibration_check import GOOD, CalibrationReport, CheckedMoment
from jaxsplat_mouse.capture.check_findings import (
  NOTICEABLE,
  CheckFindings,
  camera_title,
  degrees_text,
  pixels_text,
)
from jaxsplat_mouse.capture.crops import Crop, Cropper
from jaxsplat_mouse.io import atomic
from jaxsplat_mouse.report.contact_sheet import SheetRow, draw_sheet
from jaxsplat_mouse.report.template_loader import load_template

PNG, HTML = "check.png", "check.html"
_QUALITY = 85  # of JPEG
_BLANK = np.full((8, 8, 3), 255, np.uint8)


def write_check_sheet(
  folder: pathlib.Path, title: str, cropper: Cropper, findings: CheckFindings
) -> pathlib.Path:
  """Writes the sheet as a picture and as a self-contained page.

  Args:
    folder: where they are written.
    title: the recording's name.
    cropper: reads the photographs once more; it has the cameras in use.
    findings: the result of the check, with at least one moment.

  Returns:
    The path of the page.

  Raises:
    InputError: a photograph can no longer be read.
    OSError: the disk is full or not writable.
  """
  sheet = _contact_sheet(title, cropper, findings)
  atomic.write_bytes(folder / PNG, _encode(sheet, "PNG", optimize=True))
  page = load_template("check.html").render(_page_values(title, cropper, findings, sheet))
  atomic.write_bytes(folder / HTML, page.encode())
  return folder / HTML


def _shown_views(report: CalibrationReport) -> list[int]:
  """Numbers of the cameras that are in some moment."""
  return sorted({crop.view for sample in report.samples for crop in sample.crops})


# ------------------------------------------------------------------------------------ the picture


def _contact_sheet(title: str, cropper: Cropper, findings: CheckFindings) -> Image.Image:
  """Draws `check.png`: all compared moments, rows of views below one another."""
  used = findings.used
  views = _shown_views(used)
  rows = []
  for place, sample in enumerate(used.samples):
    before = findings.given.samples[place] if findings.corrected else None
    rows += _sample_rows(cropper, sample, before, views)
  captions = [f"{used.names[v]}   IoU {used.iou[v]:.3f}" for v in views]
  notes = f"silhouettes and their common solid agree to {used.score:.3f}, expected above {GOOD}"
  return draw_sheet(title, notes, rows, captions, cell=check_pictures.CELL)


def _sample_rows(
  cropper: Cropper, sample: CheckedMoment, before: CheckedMoment | None, views: Sequence[int]
) -> list[SheetRow]:
  """Draws the rows of one moment; a camera without a picture gets blank cells.

  Args:
    cropper: reads the photographs.
    sample: the moment under the cameras in use.
    before: the same under the given cameras, where these are others.
    views: numbers of the cameras.
  """
  moment = int(cropper.capture.moments[sample.index])
  labels = [f"moment {moment}\n\nview,\nmask green"]
  if before is not None:
    labels.append("before\n\nred: mask\nblue: solid")
  labels += ["after" if before is not None else "solid\n\nred: mask\nblue: solid", "epipolar"]
  crops = {crop.view: (i, crop) for i, crop in enumerate(sample.crops)}
  middles = {crop.view: (crop, check_pictures.silhouette_middle(crop)) for crop in sample.crops}
  columns = []
  for view in views:
    if view not in crops:
      columns.append([_BLANK] * len(labels))
      continue
    place, crop = crops[view]
    photo = check_pictures.shrink_picture(cropper.read_photo(crop))
    compared = [
      check_pictures.compare_silhouettes(crop, one.agreement.alphas[place])
      for one in (before, sample)
      if one is not None
    ]
    lines = check_pictures.draw_epipolar_lines(photo, cropper.capture.rig, crop, middles)
    columns.append([check_pictures.draw_outlines(photo, crop), *compared, lines])
  return [SheetRow(label, [c[i] for c in columns]) for i, label in enumerate(labels)]


# --------------------------------------------------------------------------------------- the page


@dataclasses.dataclass(frozen=True, kw_only=True)
class _CameraCard:
  """What the page shows of one camera.

  Attributes:
    title: its name.
    facts: a label, a value and whether it is bad, of each figure.
    pictures: a caption and a data URI of each picture.
    chart: its contradictions over time; "" for none.
    badness: by which the cards are sorted.
  """

  title: str
  facts: list[tuple[str, str, bool]]
  pictures: list[tuple[str, str]]
  chart: Markup
  badness: float


def _page_values(
  title: str, cropper: Cropper, findings: CheckFindings, sheet: Image.Image
) -> dict[str, Any]:
  """Returns the values of the template."""
  given, used, views = findings.given, findings.used, _shown_views(findings.used)
  place = int(np.argmin([sample.agreement.iou.mean() for sample in given.samples]))
  cards = [_camera_card(cropper, findings, view, place) for view in views]
  chart = check_charts.agreement_svg(
    [used.names[v] for v in views],
    given.iou[views] if findings.corrected else None,
    used.iou[views],
    GOOD,
  )
  return {
    "title": title,
    "verdict": findings.verdict,
    "headline": findings.headline,
    "sentences": [_with_options(sentence) for sentence in findings.sentences()],
    "evidence": [] if findings.refinement is None else findings.refinement.lines(),
    "corrected": findings.corrected,
    "moment": int(cropper.capture.moments[used.samples[place].index]),
    "agreement": Markup(chart),
    "cards": sorted(cards, key=lambda card: -card.badness),
    "sheet": _data_uri(sheet),
  }


def _camera_card(cropper: Cropper, findings: CheckFindings, view: int, place: int) -> _CameraCard:
  """Returns what the page shows of one camera.

  Args:
    cropper: reads the pictures.
    findings: the result of the check.
    view: number of the camera.
    place: of the shown moment among the compared ones.
  """
  given, used = findings.given.iou[view], findings.used.iou[view]
  off = findings.off_by(view)
  return _CameraCard(
    title=camera_title(findings.used.names[view]),
    facts=_facts(findings, view),
    pictures=_pictures(cropper, findings, view, place),
    chart=_over_time(cropper, findings, view),
    badness=(1 - float(given)) + (1 - float(used)) + (0.0 if off is None else 1e-3 * off[1]),
  )


def _facts(findings: CheckFindings, view: int) -> list[tuple[str, str, bool]]:
  """Returns label, value and whether it is bad, of each figure of a camera."""
  given, used = findings.given, findings.used
  agrees = f"{used.iou[view]:.2f}"
  if findings.corrected:
    agrees = f"{given.iou[view]:.2f} → {agrees}"
  facts = [("silhouettes agree", agrees, bool(used.iou[view] < GOOD))]
  off = findings.off_by(view)
  if off is not None:
    if off[1] < NOTICEABLE:
      facts.append(("pose was", "right", False))
    else:
      facts.append(("pose was off by", f"{degrees_text(off[0])}, {pixels_text(off[1])}", False))
  masks = findings.mask_finding(view)
  if masks is not None:
    width = "fit" if not masks.biased else f"{abs(masks.offset):.1f} px too "
    if masks.biased:
      width += "wide" if masks.offset > 0 else "narrow"
    facts.append(("masks", width, masks.biased and not masks.matted))
  if np.isfinite(used.labels[view]):
    both = f"{used.labels[view]:.2f} px"
    if findings.corrected:
      both = f"{given.labels[view]:.2f} → {both}"
    facts.append(("labels miss by", both, False))
  return facts


def _pictures(
  cropper: Cropper, findings: CheckFindings, view: int, place: int
) -> list[tuple[str, str]]:
  """Returns a caption and a data URI of each picture of a camera; none where it has no crop."""
  samples = [report.samples[place] for report in (findings.given, findings.used)]
  numbers = [crop.view for crop in samples[1].crops]
  if view not in numbers:
    return []
  row = numbers.index(view)
  crop = samples[1].crops[row]
  photo = check_pictures.shrink_picture(cropper.read_photo(crop))
  mattes = findings.mattes
  matted = mattes is not None and mattes.matted(view)
  outlines = check_pictures.draw_outlines(photo, crop, _given_mask(cropper, crop, matted))
  compare = lambda sample: check_pictures.compare_silhouettes(
    crop, sample.agreement.alphas[row], photo
  )
  pictures = [("mask (yellow), matte (green)" if matted else "mask (green)", outlines)]
  if findings.corrected:
    pictures.append(("before the correction", compare(samples[0])))
  pictures.append(
    ("after the correction" if findings.corrected else "disagreement", compare(samples[1]))
  )
  if mattes is not None and view in mattes.plates:
    plate = check_pictures.draw_plate(cropper, crop, mattes.plates[view])
    pictures.append(("empty scene (grey: never seen)", plate))
    pictures.append(("animal alone", check_pictures.draw_matte(crop)))
  near = check_pictures.animal_square(crop)
  return [(caption, _data_uri(Image.fromarray(picture[near]))) for caption, picture in pictures]


def _given_mask(cropper: Cropper, crop: Crop, matted: bool) -> np.ndarray | None:
  """Reads the mask of a crop as it was given; None where its own silhouette is that mask."""
  if not matted or cropper.capture.masks is None:
    return None
  coverage = cropper.frame_reader.read_coverage(crop.view, crop.frame)
  return check_pictures.crop_picture(cropper, crop, coverage)


def _over_time(cropper: Cropper, findings: CheckFindings, view: int) -> Markup:
  """Draws the contradictions of a camera over the recording; "" where they are not known."""
  found = findings.refinement
  if found is None or view not in found.views or not np.isfinite(found.over_time).any():
    return Markup("")
  before, after = found.over_time[:, :, found.views.index(view)]
  moments = [int(cropper.capture.moments[index]) for index in found.moments]
  highest = check_charts.contradiction_axis(found.over_time)
  svg = check_charts.contradiction_svg(moments, before, after, highest, findings.corrected)
  return Markup(svg)


def _with_options(sentence: str) -> Markup:
  """Sets the command's options in a sentence apart, so that they are not broken."""
  parts = re.split(r"(--[\w=:,]+\w)", sentence)
  return Markup("").join(
    Markup("<code>{}</code>").format(part) if part.startswith("--") else part for part in parts
  )


def _encode(picture: Image.Image, kind: str, **options: Any) -> bytes:
  buffer = io.BytesIO()
  picture.save(buffer, kind, **options)
  return buffer.getvalue()


def _data_uri(picture: Image.Image) -> str:
  content = _encode(picture, "JPEG", quality=_QUALITY, subsampling=0)
  return f"data:image/jpeg;base64,{base64.b64encode(content).decode()}"
