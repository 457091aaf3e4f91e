"""Writes `check.png` and `check.html`, on which a person sees whether a calibration is right."""

from __future__ import annotations

import base64
import html
import io
import pathlib
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from jaxsplat_mouse.capture.calibration_check import GOOD, CalibrationReport, CheckedMoment
from jaxsplat_mouse.capture.common_solid import reduced_size
from jaxsplat_mouse.capture.crops import Crop, Cropper
from jaxsplat_mouse.capture.rig import Rig
from jaxsplat_mouse.io import atomic
from jaxsplat_mouse.report.contact_sheet import SheetRow, draw_sheet

PNG, HTML = "check.png", "check.html"
_CELL = 210  # pixels of a view on the sheet
_DRAWN = 2 * _CELL  # pixels of a view while lines are drawn; reducing it makes them smooth
_OUTLINE = (0, 200, 90)
_BOTH, _MASK_ONLY, _SOLID_ONLY = (206, 210, 218), (214, 40, 57), (36, 92, 214)
# One colour a camera, distinct for most eyes (Okabe and Ito 2008).
_CAMERAS = ((0, 114, 178), (213, 94, 0), (0, 158, 115), (204, 121, 167), (86, 180, 233),
            (230, 159, 0), (120, 94, 240), (90, 90, 90))  # fmt: skip
_LEGEND = (
  ("view", "the undistorted photograph; the green line is the mask's outline. It should hug the "
   "animal, tail included."),
  ("solid", "grey: mask and solid agree; red: in the mask, but other cameras see through it (their "
   "masks miss something, or a camera is off); blue: in the solid, but not in this mask. Thin rims "
   "are usual, red limbs are not."),
  ("epipolar", "the dot is the middle of this camera's silhouette; each line is where another "
   "camera, in its colour, sees its own middle. Lines should pass close by the dot."),
)  # fmt: skip
_STYLE = """
  body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 90rem;
    padding: 0 1.5rem; color: #222; }
  table { border-collapse: collapse; } td, th { padding: .2rem .8rem; text-align: right; }
  td:first-child, th:first-child { text-align: left; } img { max-width: 100%; }
  .bad { color: #a22; font-weight: 600; } dt { font-weight: 600; }
"""


def write_check_sheet(
  folder: pathlib.Path, title: str, cropper: Cropper, report: CalibrationReport
) -> pathlib.Path:
  """Writes the sheet as a picture and as a self-contained page.

  Args:
    folder: where they are written.
    title: the recording's name.
    cropper: reads the photographs once more.
    report: the result of the check, with at least one moment.

  Returns:
    The path of the page.

  Raises:
    InputError: a photograph can no longer be read.
    OSError: the disk is full or not writable.
  """
  views = sorted({crop.view for sample in report.samples for crop in sample.crops})
  rows = [row for sample in report.samples for row in _sample_rows(cropper, sample, views)]
  captions = [f"{report.names[v]}   IoU {report.iou[v]:.3f}" for v in views]
  sheet = draw_sheet(title, _verdict(report), rows, captions, cell=_CELL)
  buffer = io.BytesIO()
  sheet.save(buffer, "PNG", optimize=True)
  atomic.write_bytes(folder / PNG, buffer.getvalue())
  atomic.write_bytes(folder / HTML, _page(title, report, views, buffer.getvalue()).encode())
  return folder / HTML


def _verdict(report: CalibrationReport) -> str:
  text = f"silhouettes and their common solid agree to {report.score:.3f}"
  if report.score >= GOOD:
    return f"{text} (expected above {GOOD})"
  blame = f"; {report.other_score:.2f} if {report.other}" if report.other else ""
  return f"{text}: expected above {GOOD}{blame}"


def _sample_rows(cropper: Cropper, sample: CheckedMoment, views: Sequence[int]) -> list[SheetRow]:
  """Draws three rows for one moment; a camera without a picture gets blank cells."""
  moment = int(cropper.capture.moments[sample.index])
  crops = {crop.view: (i, crop) for i, crop in enumerate(sample.crops)}
  middles = {crop.view: (crop, _middle(crop)) for crop in sample.crops}
  blank = np.full((8, 8, 3), 255, np.uint8)
  labels = (f"moment {moment}\n\nview,\nmask green", "solid\n\nred: mask\nblue: solid", "epipolar")
  rows: dict[str, list[np.ndarray]] = {label: [] for label in labels}
  for view in views:
    if view not in crops:
      cells = [blank] * 3
    else:
      position, crop = crops[view]
      photo = _shrink(cropper.read_photo(crop))
      cells = [
        _outline_mask(photo, crop),
        _compare_mask(crop, sample.agreement.alphas[position]),
        _draw_epipolar_lines(photo, cropper.capture.rig, crop, middles),
      ]
    for row, cell in zip(rows.values(), cells, strict=True):
      row.append(cell)
  return [SheetRow(label, cells) for label, cells in rows.items()]


def _drawn_size(image: np.ndarray) -> tuple[int, int]:
  """Width and height at which an image (h, w, ...) is drawn."""
  height, width = image.shape[:2]
  factor = _DRAWN / max(height, width)
  return max(1, round(width * factor)), max(1, round(height * factor))


def _shrink(image: np.ndarray) -> np.ndarray:
  """Resizes an image (h, w, 3) to its drawn size."""
  size = _drawn_size(image)
  return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.LANCZOS))


def _solid_pixels(alpha: np.ndarray, size: tuple[int, int]) -> np.ndarray:
  """Resizes an alpha (h, w) uint8 to a width and height; returns where it is solid."""
  return np.asarray(Image.fromarray(alpha).resize(size, Image.Resampling.BOX)) > 127


def _outline_mask(photo: np.ndarray, crop: Crop) -> np.ndarray:
  """Draws the outline of a crop's mask on its photograph."""
  import cv2

  solid = _solid_pixels(crop.rgba[..., 3], photo.shape[1::-1]).astype(np.uint8)
  wide = cv2.dilate(solid, np.ones((5, 5), np.uint8))
  return np.where(((wide > 0) & (solid == 0))[..., None], np.array(_OUTLINE, np.uint8), photo)


def _compare_mask(crop: Crop, alpha: np.ndarray) -> np.ndarray:
  """Draws on white where a crop's mask and the solid's reduced silhouette agree and differ."""
  height, width = crop.rgba.shape[:2]
  w, h = reduced_size(width, height)
  solid = (np.clip(alpha[:h, :w], 0, 1) * 255).astype(np.uint8)
  size = _drawn_size(crop.rgba)
  solid = np.asarray(Image.fromarray(solid).resize(size, Image.Resampling.BICUBIC)) > 127
  mask = _solid_pixels(crop.rgba[..., 3], size)
  picture = np.full((*mask.shape, 3), 255, np.uint8)
  picture[mask & solid], picture[mask & ~solid] = _BOTH, _MASK_ONLY
  picture[solid & ~mask] = _SOLID_ONLY
  return picture


def _middle(crop: Crop) -> np.ndarray:
  """Centre (2,) of a crop's silhouette in the crop's pixels."""
  rows, columns = np.nonzero(crop.rgba[..., 3] > 127)
  return np.array([columns.mean() + 0.5, rows.mean() + 0.5]) if len(rows) else np.zeros(2)


def epipolar_line(rig: Rig, one: Crop, other: Crop, point: np.ndarray) -> np.ndarray | None:
  """Computes the line of a crop on which a point of another camera's crop may lie.

  Args:
    rig: the cameras.
    one: the crop that the line is drawn on.
    other: the crop that `point` belongs to.
    point: (2,) in pixels of `other`.

  Returns:
    (2, 2) two points of the line in pixels of `one`, the nearer first along the other camera's ray;
    None where the ray does not pass in front of the camera.
  """
  fx, fy, cx, cy = other.intrinsics
  direction = np.array([(point[0] - cx) / fx, (point[1] - cy) / fy, 1.0])
  here, there = rig.world_to_camera[one.view], rig.world_to_camera[other.view]
  # The ray of the other camera, in the axes of this one, is start + depth * step.
  step = here[:3, :3] @ there[:3, :3].T @ direction
  start = here[:3, 3] - here[:3, :3] @ there[:3, :3].T @ there[:3, 3]
  depths = np.geomspace(1e-3, 1e3, 400) * max(float(np.linalg.norm(start)), 1e-9)
  points = start + depths[:, None] * step
  points = points[points[:, 2] > 1e-3 * np.linalg.norm(points, axis=1)]
  if len(points) < 2:
    return None
  fx, fy, cx, cy = one.intrinsics
  ends = points[[0, -1]]
  return np.stack([fx * ends[:, 0] / ends[:, 2] + cx, fy * ends[:, 1] / ends[:, 2] + cy], -1)


def _draw_epipolar_lines(
  photo: np.ndarray, rig: Rig, crop: Crop, middles: dict[int, tuple[Crop, np.ndarray]]
) -> np.ndarray:
  """Draws the lines of the other cameras, and the own middle, on a paler photograph."""
  image = Image.fromarray((photo * 0.55 + 255 * 0.45).astype(np.uint8))
  draw = ImageDraw.Draw(image)
  factor = photo.shape[1] / crop.rgba.shape[1]
  for view, (other, middle) in middles.items():
    if view == crop.view:
      continue
    line = epipolar_line(rig, crop, other, middle)
    if line is not None:
      draw.line([tuple(p) for p in line * factor], _CAMERAS[view % len(_CAMERAS)], 3)
  x, y = middles[crop.view][1] * factor
  draw.ellipse((x - 8, y - 8, x + 8, y + 8), "white", (20, 20, 20), 3)
  draw.ellipse((x - 4, y - 4, x + 4, y + 4), _CAMERAS[crop.view % len(_CAMERAS)])
  return np.asarray(image)


def _page(title: str, report: CalibrationReport, views: Sequence[int], png: bytes) -> str:
  """Returns the HTML page, which contains the picture."""
  picture = base64.b64encode(png).decode()
  name = html.escape(title)
  legend = "".join(f"<dt>{term}</dt><dd>{text}</dd>" for term, text in _LEGEND)
  rows = "".join(_table_row(report, view) for view in views)
  poor = ' class="bad"' if report.score < GOOD else ""
  return f"""<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{name}: calibration check</title>
<style>{_STYLE}</style></head><body>
<h1>{name}: is the calibration right?</h1>
<p{poor}>{html.escape(_verdict(report))}.</p>
<table><tr><th>camera</th><th>IoU of solid and mask</th><th>labels, median px</th></tr>
{rows}</table>
<dl>{legend}</dl>
<img alt="contact sheet of {name}" src="data:image/png;base64,{picture}">
</body></html>
"""


def _table_row(report: CalibrationReport, view: int) -> str:
  iou, label = report.iou[view], report.labels[view]
  poor = ' class="bad"' if iou < GOOD else ""
  label_text = "–" if np.isnan(label) else f"{label:.2f}"
  name = html.escape(report.names[view])
  return f"<tr{poor}><td>{name}</td><td>{iou:.3f}</td><td>{label_text}</td></tr>\n"
