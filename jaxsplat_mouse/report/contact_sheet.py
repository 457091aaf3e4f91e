"""Pictures of a scene for people: labelled rows of small views on white, and maps in colour."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

_INK, _GREY, _LINE = (34, 34, 38), (120, 122, 128), (226, 227, 231)
_MARGIN, _GAP, _LABEL = 28, 8, 104
# Anchors of a map from dark violet over teal to pale yellow, evenly spaced, brighter all the way.
_SCALE = np.array(
  [[52, 16, 84], [60, 62, 135], [38, 110, 140], [36, 156, 135], [110, 196, 96], [246, 232, 98]]
)
# White over amber to dark red, for errors.
_HEAT = np.array([[255, 255, 255], [253, 218, 148], [240, 128, 60], [178, 34, 34], [70, 6, 20]])


@dataclasses.dataclass(frozen=True)
class SheetRow:
  """One row of a sheet: a label and views, uint8 (H, W, 3) of any sizes."""

  label: str
  views: Sequence[np.ndarray]


def draw_sheet(
  title: str, notes: str, rows: Sequence[SheetRow], captions: Sequence[str] = (), cell: int = 168
) -> Image.Image:
  """A sheet with a title, rows of views cut to squares of `cell` pixels, and column captions.

  Args:
    title: above everything.
    notes: a smaller line below it.
    rows: from top to bottom; shorter ones leave cells empty.
    captions: below each column.
    cell: side of a view on the sheet, pixels.
  """
  columns = max(len(row.views) for row in rows)
  width = 2 * _MARGIN + _LABEL + columns * cell + (columns - 1) * _GAP
  top = _MARGIN + 58
  height = top + len(rows) * (cell + _GAP) + (26 if captions else 0) + _MARGIN - _GAP
  sheet = Image.new("RGB", (width, height), "white")
  draw = ImageDraw.Draw(sheet)
  draw.text((_MARGIN, _MARGIN - 6), title, _INK, _font(24))
  draw.text((_MARGIN, _MARGIN + 26), notes, _GREY, _font(14))
  for i, row in enumerate(rows):
    y = top + i * (cell + _GAP)
    draw.text((_MARGIN, y + cell / 2), row.label, _INK, _font(16), anchor="lm")
    for j, view in enumerate(row.views):
      x = _MARGIN + _LABEL + j * (cell + _GAP)
      sheet.paste(_fit_cell(view, cell), (x, y))
      draw.rectangle((x, y, x + cell - 1, y + cell - 1), outline=_LINE)
  for j, caption in enumerate(captions):
    middle = _MARGIN + _LABEL + j * (cell + _GAP) + cell / 2
    y = top + len(rows) * (cell + _GAP) + 2
    draw.text((middle, y), caption, _GREY, _font(13), anchor="ma")
  return sheet


def draw_strip(views: Sequence[np.ndarray], cell: int) -> Image.Image:
  """Views side by side, each on a white square of `cell` pixels."""
  strip = Image.new("RGB", (cell * len(views), cell), "white")
  for i, view in enumerate(views):
    strip.paste(_fit_cell(view, cell), (i * cell, 0))
  return strip


def _font(size: int) -> ImageFont.ImageFont | ImageFont.FreeTypeFont:
  return ImageFont.load_default(size)


def _fit_cell(view: np.ndarray, cell: int) -> Image.Image:
  """The view on a white square, centred, scaled to fit."""
  image = Image.fromarray(np.ascontiguousarray(view))
  scale = cell / max(image.size)
  size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
  square = Image.new("RGB", (cell, cell), "white")
  filter_kind = Image.Resampling.LANCZOS if scale < 1 else Image.Resampling.BICUBIC
  square.paste(image.resize(size, filter_kind), ((cell - size[0]) // 2, (cell - size[1]) // 2))
  return square


def animal_box(alphas: Sequence[np.ndarray], margin: float = 0.08) -> tuple[int, int, int, int]:
  """x0 y0 x1 y1 of a square that holds the silhouettes of all views (H, W), cut to the image."""
  shown = np.max([np.asarray(a) for a in alphas], 0) > 0.1
  height, width = shown.shape
  rows, columns = np.nonzero(shown)
  if len(rows) == 0:
    return 0, 0, width, height
  half = max(np.ptp(rows), np.ptp(columns)) * (0.5 + margin) + 2
  middle = (columns.min() + columns.max() + 1) / 2, (rows.min() + rows.max() + 1) / 2
  x0, y0 = (max(0, int(c - half)) for c in middle)
  return x0, y0, min(width, int(middle[0] + half)), min(height, int(middle[1] + half))


def rgba_to_rgb(rgba: np.ndarray) -> np.ndarray:
  """Straight RGBA (H, W, 4), uint8 or in [0, 1], on white as uint8 (H, W, 3)."""
  rgba = rgba / np.float32(255) if rgba.dtype == np.uint8 else np.asarray(rgba, np.float32)
  return _to_bytes(rgba[..., :3] * rgba[..., 3:] + 1 - rgba[..., 3:])


def color_depth(depth: np.ndarray, alpha: np.ndarray, near: float, far: float) -> np.ndarray:
  """Depth (H, W) as colour on white, near bright and far dark."""
  share = np.clip((far - depth) / max(far - near, 1e-6), 0, 1)
  return _over_white(_ramp(_SCALE, share), alpha)


def color_normal(normal: np.ndarray, alpha: np.ndarray, world_to_camera: np.ndarray) -> np.ndarray:
  """World normals (H, W, 3) as seen from the camera: x red, up green, toward the camera blue."""
  view = np.asarray(normal) @ np.asarray(world_to_camera)[:3, :3].T * np.array([1.0, -1.0, -1.0])
  length = np.linalg.norm(view, axis=-1, keepdims=True)
  return _over_white(0.5 + 0.5 * view / np.maximum(length, 1e-6), alpha)


def color_error(rendered: np.ndarray, truth: np.ndarray, full_scale: float = 0.25) -> np.ndarray:
  """Mean absolute difference of two uint8 images (H, W, 3) as heat; `full_scale` is darkest."""
  difference = np.abs(rendered.astype(np.float32) - truth).mean(-1) / 255
  return _to_bytes(_ramp(_HEAT, np.clip(difference / full_scale, 0, 1)))


def _ramp(anchors: np.ndarray, share: np.ndarray) -> np.ndarray:
  """Colour in [0, 1] (..., 3) at a share (...) of the way along the anchors."""
  places = np.linspace(0, 1, len(anchors))
  return np.stack([np.interp(share, places, anchors[:, c] / 255.0) for c in range(3)], -1)


def _over_white(color: np.ndarray, alpha: np.ndarray) -> np.ndarray:
  alpha = np.clip(np.asarray(alpha), 0, 1)[..., None]
  return _to_bytes(color * alpha + 1 - alpha)


def _to_bytes(image: np.ndarray) -> np.ndarray:
  return (np.clip(image, 0, 1) * 255 + 0.5).astype(np.uint8)
