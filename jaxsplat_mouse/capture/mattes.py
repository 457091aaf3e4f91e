"""Silhouettes out of lossy masks, and the animal's own colour at its outline."""

from __future__ import annotations

import numpy as np

SOLID = 128  # level from which a mask pixel counts as animal
SPECK_SHARE = 1 / 500  # of the largest part's area: parts and holes smaller than this are repaired
MIN_SPECK = 16  # pixels, below which they are repaired whatever the animal's size
_SOFT = 2  # pixels on either side of the outline in which levels between are coverage
_BLACK, _WHITE = 12, 243  # levels that compression noise of black and white reaches
_CORE = 0.95  # coverage from which a pixel's colour is taken to be the animal's alone
_REACH = 5  # pixels to the side in which such colour is sought for an outline pixel


def clean_mask(levels: np.ndarray, specks: float = SPECK_SHARE) -> np.ndarray:
  """Coverage from a mask that went through a lossy codec.

  Levels of 128 and more are animal; in a mask of the levels 0 and 1 alone, as label images are, 1
  is. Parts and holes below `specks` of the largest part (or below `MIN_SPECK` pixels) are repaired;
  larger ones stay, as a tail may be cut off by a leg and daylight may shine under a belly. Levels
  within two pixels of the outline are kept as coverage, everything else becomes 0 or 255.

  Args:
    levels: (H, W) uint8.
    specks: share of the largest part's area.

  Returns:
    (H, W) uint8 coverage; all 0 where the mask is empty.
  """
  import cv2

  if levels.max(initial=0) == 1:
    levels = levels * np.uint8(255)
  solid = (levels >= SOLID).astype(np.uint8)
  box = _box(solid, 16)
  if box is None:
    return np.zeros_like(levels)
  x0, y0, x1, y1 = box
  solid = solid[y0:y1, x0:x1]
  count, labels, stats, _ = cv2.connectedComponentsWithStats(solid, connectivity=8)
  areas = stats[1:count, cv2.CC_STAT_AREA]
  speck = max(MIN_SPECK, float(areas.max()) * specks)
  kept = np.concatenate([[False], areas >= min(speck, areas.max())])[labels].astype(np.uint8)
  count, labels, stats, _ = cv2.connectedComponentsWithStats(1 - kept, connectivity=4)
  holes = stats[:, cv2.CC_STAT_AREA] < speck
  holes[0] = False
  kept |= holes[labels].astype(np.uint8)
  window = np.ones((2 * _SOFT + 1,) * 2, np.uint8)
  near, core = cv2.dilate(kept, window), cv2.erode(kept, window, borderValue=1)
  soft = (levels[y0:y1, x0:x1].astype(np.float32) - _BLACK) * (255.0 / (_WHITE - _BLACK))
  # A repaired pixel has the level of what it was mistaken for.
  soft = np.where((soft >= 127.5) == (kept > 0), soft, np.where(kept > 0, 255.0, 0.0))
  soft = np.clip(np.where(core > 0, 255.0, np.where(near > 0, soft, 0.0)), 0, 255)
  result = np.zeros_like(levels)
  result[y0:y1, x0:x1] = (soft + 0.5).astype(np.uint8)
  return result


def grow_mask(coverage: np.ndarray, pixels: int) -> np.ndarray:
  """A silhouette with its outline moved outward by `pixels`, inward where that is negative.

  Segmentation programs often give masks that are too wide all around. Moved inward, parts thinner
  than twice the distance vanish. The picture's border is no outline: what runs out of it does so
  afterwards too.

  Args:
    coverage: (H, W) uint8; levels between 0 and 255 move along.
    pixels: the distance; 0 changes nothing.
  """
  import cv2

  if pixels == 0:
    return coverage
  disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * abs(pixels) + 1,) * 2)
  move = cv2.dilate if pixels > 0 else cv2.erode
  return np.asarray(move(np.ascontiguousarray(coverage), disc), np.uint8)


def _box(solid: np.ndarray, margin: int) -> tuple[int, int, int, int] | None:
  """x0 y0 x1 y1 around what is set, with a margin; None where nothing is."""
  rows, columns = np.flatnonzero(solid.any(1)), np.flatnonzero(solid.any(0))
  if len(rows) == 0:
    return None
  height, width = solid.shape
  return (
    max(int(columns[0]) - margin, 0),
    max(int(rows[0]) - margin, 0),
    min(int(columns[-1]) + 1 + margin, width),
    min(int(rows[-1]) + 1 + margin, height),
  )


def border_share(coverage: np.ndarray) -> float:
  """Share of a picture's outermost pixels that have coverage."""
  edges = coverage[0], coverage[-1], coverage[1:-1, 0], coverage[1:-1, -1]
  return float(np.mean(np.concatenate(edges) > 0))


def silhouette_box(coverage: np.ndarray) -> tuple[int, int, int, int] | None:
  """x0 y0 x1 y1 of the pixels with any coverage; None where there are none."""
  return _box(coverage > 0, 0)


def foreground_color(photo: np.ndarray, coverage: np.ndarray) -> np.ndarray:
  """The animal's colour in and around its silhouette, without what lies behind it.

  A pixel of the outline is a mixture of animal and background, and a mask says where the outline is
  only to a pixel. Such pixels take the colour of the fully covered ones beside them, nearer ones
  counting more; where none is within five pixels, as along a thin tail, they keep their own.

  Args:
    photo: (H, W, 3) uint8.
    coverage: (H, W) uint8.

  Returns:
    (H, W, 3) float32 in [0, 1].
  """
  import cv2

  color = photo.astype(np.float32) * np.float32(1 / 255)
  covered = (coverage >= 255 * _CORE).astype(np.float32)
  # The codec stores colour at half resolution, so the first covered pixel still has background.
  core = np.asarray(cv2.erode(covered, np.ones((3, 3), np.uint8), borderValue=1), np.float32)
  size, sigma = (2 * _REACH + 1,) * 2, _REACH / 3
  weight = cv2.GaussianBlur(core, size, sigma)[..., None]
  nearby = cv2.GaussianBlur(color * core[..., None], size, sigma) / np.maximum(weight, 1e-6)
  mixed = (core[..., None] == 0) & (weight > 1e-4)
  return np.where(mixed, nearby, color)
