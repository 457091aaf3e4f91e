"""Crop windows: one size for a whole preparation, placed around the animal in each photograph."""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from jaxsplat_mouse.capture import lens
from jaxsplat_mouse.capture.lens import CropRegion, Pinhole
from jaxsplat_mouse.capture.rig import Rig

_MULTIPLE = 16
_PAD = 4  # pixels beside the margin, for the reach of the resampling
# A silhouette longer than this many times the 90th percentile counts as wrong, provided that there
# are enough silhouettes to judge.
_OUTLIER, _ENOUGH = 2.0, 12
_POINTS = 9  # on each side of a box in the raw image


@dataclasses.dataclass(frozen=True, kw_only=True)
class CropWindow:
  """The size of all crops of a preparation.

  Attributes:
    side: pixels of a crop; fewer where a photograph is smaller.
    scale: crop pixels per pixel at native resolution, at most 1.
    limit: side in native pixels above which a silhouette counts as wrong.
  """

  side: int
  scale: float
  limit: float

  def holds(self, box: np.ndarray, margin: float = 0.0) -> bool:
    """Returns whether a silhouette's box (4,), native pixels, fits with its margin."""
    longest = float(max(box[2] - box[0], box[3] - box[1]))
    return longest * (1 + 2 * margin) <= self.side / self.scale


def pinhole_box(
  rig: Rig, view: int, pinhole: Pinhole, box: tuple[int, int, int, int]
) -> np.ndarray:
  """Maps a rectangle of a raw image into the pinhole's image.

  Args:
    rig: the cameras.
    view: number of the camera.
    pinhole: the ideal camera that replaces it.
    box: x0 y0 x1 y1 in raw pixels.

  Returns:
    x0 y0 x1 y1 (4,) of the rectangle's image with one pixel on each side, pinhole pixels; NaN where
    the lens model has no inverse.
  """
  x0, y0, x1, y1 = box
  x, y = np.linspace(x0, x1, _POINTS), np.linspace(y0, y1, _POINTS)
  border = [(a, b) for a in x for b in (y0, y1)] + [(a, b) for a in (x0, x1) for b in y]
  points = lens.to_pinhole(rig, view, pinhole, np.array(border, np.float64))
  return np.concatenate([points.min(0) - 1, points.max(0) + 1])


def choose_window(boxes: np.ndarray, margin: float, size: int) -> CropWindow:
  """Chooses the window that holds every plausible silhouette.

  Args:
    boxes: (N, 4) of all silhouettes in native pixels, NaN for none; at least one is finite.
    margin: on each side, as a share of the longer side.
    size: largest side of a crop, pixels; 0 for no limit.

  Returns:
    A window whose side is a multiple of 16, or `size` where that is smaller.
  """
  sides = np.maximum(boxes[:, 2] - boxes[:, 0], boxes[:, 3] - boxes[:, 1])
  sides = sides[np.isfinite(sides)]
  usual = np.percentile(sides, 90, method="lower") if len(sides) >= _ENOUGH else sides.max()
  limit = _OUTLIER * float(usual)
  wanted = float(sides[sides <= limit].max()) * (1 + 2 * margin) + 2 * _PAD
  side = math.ceil(wanted / _MULTIPLE) * _MULTIPLE
  if size and side > size:
    return CropWindow(side=size, scale=size / wanted, limit=limit)
  return CropWindow(side=side, scale=1.0, limit=limit)


def place_window(window: CropWindow, pinhole: Pinhole, box: np.ndarray) -> CropRegion:
  """Places a window around one silhouette, moved or shortened to stay inside the photograph.

  Every pixel of a crop is known, so a silhouette that meets the crop's edge leaves the photograph.

  Args:
    window: the size.
    pinhole: the ideal camera that replaces the silhouette's.
    box: x0 y0 x1 y1 (4,) of the silhouette in pinhole pixels.
  """
  starts, sides = [], []
  for axis in (0, 1):
    low, high = pinhole.seen[axis], pinhole.seen[axis + 2]
    side = min(window.side, int((high - low) * window.scale))
    native = side / window.scale
    start = round((box[axis] + box[axis + 2] - native) / 2)
    starts.append(int(np.clip(start, low, max(low, math.floor(high - native)))))
    sides.append(side)
  return CropRegion(
    left=starts[0], top=starts[1], width=sides[0], height=sides[1], scale=window.scale
  )
