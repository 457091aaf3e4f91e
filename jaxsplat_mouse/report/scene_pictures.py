"""Pictures of a scene in the report: a contact sheet, and a strip of four views for lists."""

from __future__ import annotations

import io
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np
from absl import logging

from jaxsplat_mouse.cameras import Cameras
from jaxsplat_mouse.io import atomic
from jaxsplat_mouse.report import contact_sheet
from jaxsplat_mouse.report.contact_sheet import SheetRow
from jaxsplat_mouse.report.formatting import format_metric, metric_title

SHEETS_FOLDER, THUMBS_FOLDER = "sheets", "thumbs"
_MAX_COLUMNS = 8
_THUMB_CELL = 120  # pixels
_STRIP = ("photograph", "render", "normal", "novel view")
_JPEG_QUALITY = 90  # without chroma subsampling


def make_sheet_rows(
  photographs: np.ndarray, cameras: Cameras, maps: Mapping[str, np.ndarray], orbit: np.ndarray
) -> list[SheetRow]:
  """Returns photographs, renders, depth, normals and novel views of a scene, cut to the animal.

  Args:
    photographs: straight RGBA (V, H, W, 4) in [0, 1].
    cameras: of the photographs, (V,).
    maps: the fit rendered at these cameras: `rgba` (uint8), `depth` and `normal`, (V, H, W, ...).
    orbit: views of the dataset, straight RGBA uint8 (n, S, S, 4).
  """
  count = len(photographs)
  picked = np.unique(np.linspace(0, count - 1, min(count, _MAX_COLUMNS)).round().astype(int))
  rendered = maps["rgba"]
  views: dict[str, list[np.ndarray]] = {"photograph": [], "render": [], "depth": [], "normal": []}
  for i in picked:
    x0, y0, x1, y1 = contact_sheet.animal_box([photographs[i, ..., 3], rendered[i, ..., 3] / 255.0])
    cut = np.s_[y0:y1, x0:x1]
    alpha, depth = rendered[i][cut][..., 3] / np.float32(255), maps["depth"][i][cut]
    pose = np.asarray(cameras.world_to_camera)[i]
    views["photograph"].append(contact_sheet.rgba_to_rgb(photographs[i][cut]))
    views["render"].append(contact_sheet.rgba_to_rgb(rendered[i][cut]))
    views["depth"].append(contact_sheet.color_depth(depth, alpha, *_depth_range(depth, alpha)))
    views["normal"].append(contact_sheet.color_normal(maps["normal"][i][cut], alpha, pose))
  novel = np.linspace(0, len(orbit), len(picked), endpoint=False).astype(int)
  views["novel view"] = [_cut_to_animal(orbit[i]) for i in novel]
  return [SheetRow(label, images) for label, images in views.items()]


def write_scene_pictures(
  folder: pathlib.Path,
  name: str,
  rows: Sequence[SheetRow],
  notes: str,
  scores: Mapping[str, float],
) -> None:
  """Writes `sheets/NAME.jpg` and `thumbs/NAME.jpg`; logs a warning where the disk refuses them.

  Args:
    folder: of the report.
    name: of the scene.
    rows: as `make_sheet_rows` returns them.
    notes: begins the line below the title.
    scores: metrics of the scene; the headlines follow the notes.
  """
  sheet = contact_sheet.draw_sheet(name, "   ·   ".join([notes, *_describe_scores(scores)]), rows)
  views = {row.label: row.views for row in rows}
  strip = contact_sheet.draw_strip([views[label][0] for label in _STRIP], _THUMB_CELL)
  try:
    for kind, picture in ((SHEETS_FOLDER, sheet), (THUMBS_FOLDER, strip)):
      buffer = io.BytesIO()
      picture.save(buffer, "JPEG", quality=_JPEG_QUALITY, subsampling=0)
      (folder / kind).mkdir(parents=True, exist_ok=True)
      atomic.write_bytes(folder / kind / f"{name}.jpg", buffer.getvalue())
  except OSError as error:
    logging.warning("%s: the contact sheet was not written (%s)", name, error.strerror)


def _describe_scores(scores: Mapping[str, float]) -> list[str]:
  """`input views: fg PSNR 30.9 dB, IoU 0.993`, and likewise for the novel views."""
  lines = []
  for kind in ("input", "novel"):
    values = [
      f"{metric_title(metric)} {format_metric(metric, scores[f'{kind}_{metric}'], with_unit=True)}"
      for metric in ("fg_psnr", "iou")
      if f"{kind}_{metric}" in scores
    ]
    if values:
      lines.append(f"{kind} views: {', '.join(values)}")
  return lines


def _cut_to_animal(rgba: np.ndarray) -> np.ndarray:
  """The animal of a uint8 RGBA view on white."""
  x0, y0, x1, y1 = contact_sheet.animal_box([rgba[..., 3] / 255.0])
  return contact_sheet.rgba_to_rgb(rgba[y0:y1, x0:x1])


def _depth_range(depth: np.ndarray, alpha: np.ndarray) -> tuple[float, float]:
  """The nearest and farthest depth of opaque pixels, without one percent on either side."""
  opaque = depth[alpha > 0.5]
  if len(opaque) == 0:
    return 0.0, 1.0
  near, far = np.percentile(opaque, [1, 99])
  return float(near), float(far)
