"""Contact sheets: labelled rows of views on white; depth, normals and errors as colours."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

_INK, _GREY, _LINE = (34, 34, 38), (120, 122, 128), (226, 227, 231)
_MARGIN, _GAP, _LABEL = 28, 8, 104
# Colour scale of depth: dark violet, teal, pale yellow; evenly spaced, ever brighter.
_DEPTH_COLORS = np.array(
  [[52, 16, 84], [60, 62, 135], [38, 110, 140], [36, 156, 135], [110, 196, 96], [246, 232, 98]]
)
# Colour scale of errors: white, amber, dark red.
_ERROR_COLORS = np.array(
  [[255, 255, 255], [253, 218, 148], [240, 128, 60], [178, 34, 34], [70, 6, 20]]
)


@dataclasses.dataclass(frozen=True)
class SheetRow:
  """One row of a sheet: a label, and views as RGB uint8 (H, W, 3) of any sizes."""

  label: str
  views: Sequence[np.ndarray]


def draw_sheet(
  title: str, notes: str, rows: Sequence[SheetRow], captions: Sequence[str] = (), cell: int = 168
) -> Image.Image:
  """Draws a sheet with a title, rows of views, and captions below the columns.

  Args:
    title: the first line.
    notes: a smaller line below the title.
    rows: from top to bottom; shorter rows leave cells empty.
    captions: one for each column, or none.
    cell: side of the square that each view is scaled into, pixels.
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
  """Draws views (H, W, 3) side by side, each on a white square of `cell` pixels."""
  strip = Image.new("RGB", (cell * len(views), cell), "white")
  for i, view in enumerate(views):
    strip.paste(_fit_cell(view, cell), (i * cell, 0))
  return strip


def _font(size: int) -> ImageFont.ImageFont | ImageFont.FreeTypeFont:
  return ImageFont.load_default(size)


def _fit_cell(view: np.ndarray, cell: int) -> Image.Image:
  """Scales a view to fit a white square of `cell` pixels, and centres it there."""
  image = Image.fromarray(np.ascontiguousarray(view))
  scale = cell / max(image.size)
  size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
  square = Image.new("RGB", (cell, cell), "white")
  resampling = Image.Resampling.LANCZOS if scale < 1 else Image.Resampling.BICUBIC
  square.paste(image.resize(size, resampling), ((cell - size[0]) // 2, (cell - size[1]) // 2))
  return square


def animal_box(alphas: Sequence[np.ndarray], margin: float = 0.08) -> tuple[int, int, int, int]:
  """Returns a square around the silhouettes of all alphas, cut to the image.

  Args:
    alphas: (H, W) each, in [0, 1].
    margin: on each side, as a share of the silhouettes' larger side.

  Returns:
    x0, y0, x1, y1 in pixels; the whole image where every alpha is empty.
  """
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
  """Composites straight RGBA (H, W, 4), uint8 or in [0, 1], on white as uint8 (H, W, 3)."""
  rgba = rgba / np.float32(255) if rgba.dtype == np.uint8 else np.asarray(rgba, np.float32)
  return _to_bytes(rgba[..., :3] * rgba[..., 3:] + 1 - rgba[..., 3:])


def color_depth(depth: np.ndarray, alpha: np.ndarray, near: float, far: float) -> np.ndarray:
  """Colours depth on white: near is yellow, far is violet.

  Args:
    depth: (H, W), in any unit.
    alpha: (H, W) in [0, 1].
    near: the depth of the brightest colour.
    far: the depth of the darkest colour.

  Returns:
    uint8 (H, W, 3).
  """
  share = np.clip((far - depth) / max(far - near, 1e-6), 0, 1)
  return _over_white(_interpolate_colors(_DEPTH_COLORS, share), alpha)


def color_normal(normal: np.ndarray, alpha: np.ndarray, world_to_camera: np.ndarray) -> np.ndarray:
  """Colours normals as the camera sees them: right is red, up is green, toward the camera is blue.

  Args:
    normal: in world axes, (H, W, 3).
    alpha: (H, W) in [0, 1].
    world_to_camera: (4, 4), OpenCV axes.

  Returns:
    uint8 (H, W, 3), on white.
  """
  view = np.asarray(normal) @ np.asarray(world_to_camera)[:3, :3].T * np.array([1.0, -1.0, -1.0])
  length = np.linalg.norm(view, axis=-1, keepdims=True)
  return _over_white(0.5 + 0.5 * view / np.maximum(length, 1e-6), alpha)


def color_error(rendered: np.ndarray, truth: np.ndarray, full_scale: float = 0.25) -> np.ndarray:
  """Colours the mean absolute difference of two images: none is white, much is dark red.

  Args:
    rendered: uint8 (H, W, 3).
    truth: uint8 (H, W, 3).
    full_scale: the difference of the darkest colour, for values in [0, 1].

  Returns:
    uint8 (H, W, 3).
  """
  difference = np.abs(rendered.astype(np.float32) - truth).mean(-1) / 255
  return _to_bytes(_interpolate_colors(_ERROR_COLORS, np.clip(difference / full_scale, 0, 1)))


def _interpolate_colors(colors: np.ndarray, share: np.ndarray) -> np.ndarray:
  """Interpolates a colour scale (n, 3), evenly spaced, at shares (...) of its length."""
  places = np.linspace(0, 1, len(colors))
  return np.stack([np.interp(share, places, colors[:, c] / 255.0) for c in range(3)], -1)


def _over_white(color: np.ndarray, alpha: np.ndarray) -> np.ndarray:
  alpha = np.clip(np.asarray(alpha), 0, 1)[..., None]
  return _to_bytes(color * alpha + 1 - alpha)


def _to_bytes(image: np.ndarray) -> np.ndarray:
  return (np.clip(image, 0, 1) * 255 + 0.5).astype(np.uint8)
