"""Pictures of a scene for the report: a contact sheet, and a strip of four views for lists."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence

import numpy as np
from absl import logging

from jaxsplat_mouse.cameras import Cameras
from jaxsplat_mouse.io import atomic
from jaxsplat_mouse.report import contact_sheet
from jaxsplat_mouse.report.contact_sheet import SheetRow
from jaxsplat_mouse.run.workdir import Workdir

SHEETS, THUMBS = "sheets", "thumbs"
_MOST_VIEWS = 8
_THUMB_CELL = 120
_STRIP = ("photograph", "render", "normal", "new view")
_QUALITY = 90  # of the JPEGs; colour is kept at full resolution


def make_rows(
  photographs: np.ndarray, cameras: Cameras, maps: Mapping[str, np.ndarray], orbit: np.ndarray
) -> list[SheetRow]:
  """Photographs, renders, depth, normals, and new views of one scene, cut to the animal.

  Args:
    photographs: straight RGBA (V, H, W, 4) in [0, 1].
    cameras: (V,) of them.
    maps: `rgba` (uint8), `depth`, `normal` of the fit there, (V, H, W, ...).
    orbit: uint8 RGBA (n, S, S, 4) of the dataset.
  """
  count = len(photographs)
  picked = np.unique(np.linspace(0, count - 1, min(count, _MOST_VIEWS)).round().astype(int))
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
  new = np.linspace(0, len(orbit), len(picked), endpoint=False).astype(int)
  views["new view"] = [_cut_on_white(orbit[i]) for i in new]
  return [SheetRow(label, images) for label, images in views.items()]


def save(
  workdir: Workdir, name: str, rows: Sequence[SheetRow], notes: str, scores: Mapping[str, float]
) -> None:
  """Writes a scene's pictures into the report; a scene is done without them.

  Args:
    workdir: the run.
    name: of the scene.
    rows: as `make_rows` gives them.
    notes: what the fit is made of.
    scores: metrics for the line below the title.
  """
  names = {"input_fg_psnr": "input fg PSNR {:.1f} dB", "input_iou": "IoU {:.3f}"}
  names |= {"novel_fg_psnr": "new views fg PSNR {:.1f} dB", "novel_iou": "IoU {:.3f}"}
  told = [text.format(scores[key]) for key, text in names.items() if key in scores]
  sheet = contact_sheet.draw_sheet(name, "   ·   ".join([notes, *told]), rows)
  views = {row.label: row.views for row in rows}
  strip = contact_sheet.draw_strip([views[label][0] for label in _STRIP], _THUMB_CELL)
  try:
    for folder, picture in ((SHEETS, sheet), (THUMBS, strip)):
      buffer = io.BytesIO()
      picture.save(buffer, "JPEG", quality=_QUALITY, subsampling=0)
      (workdir.report / folder).mkdir(parents=True, exist_ok=True)
      atomic.write_bytes(workdir.report / folder / f"{name}.jpg", buffer.getvalue())
  except OSError as error:
    logging.warning("%s: no contact sheet (%s)", name, error.strerror)


def _cut_on_white(rgba: np.ndarray) -> np.ndarray:
  """The animal of a uint8 RGBA view on white."""
  x0, y0, x1, y1 = contact_sheet.animal_box([rgba[..., 3] / 255.0])
  return contact_sheet.rgba_to_rgb(rgba[y0:y1, x0:x1])


def _depth_range(depth: np.ndarray, alpha: np.ndarray) -> tuple[float, float]:
  shown = depth[alpha > 0.5]
  if len(shown) == 0:
    return 0.0, 1.0
  low, high = np.percentile(shown, [1, 99])
  return float(low), float(high)
