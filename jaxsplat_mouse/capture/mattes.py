"""Silhouettes from lossy masks, and the animal's colour without its background.

Functions here take and return arrays; `frame_reader` applies them to the pictures of a recording.
"""

from __future__ import annotations

import numpy as np

SOLID = 128  # level from which a mask pixel counts as animal
SPECK_SHARE = 1 / 500  # of the largest part's area: smaller parts and holes are repaired
MIN_SPECK = 16  # pixels; smaller parts and holes are repaired whatever the animal's size
_SOFT = 2  # pixels on either side of the outline where intermediate levels are coverage
_BLACK, _WHITE = 12, 243  # levels that compression noise of black and white reaches
_CORE = 0.95  # coverage from which a pixel is taken to have the animal's colour alone
_REACH = 5  # pixels around an outline pixel in which such colour is looked for


def clean_mask(levels: np.ndarray, specks: float = SPECK_SHARE) -> np.ndarray:
  """Computes coverage from a mask that went through a lossy codec.

  Levels of 128 and more are animal; in a mask of the levels 0 and 1 alone, as in label images, 1
  is. Parts and holes below `specks` of the largest part (or below `MIN_SPECK` pixels) are repaired;
  larger ones stay, since a leg may cut off a tail and daylight may shine under a belly. Levels
  within two pixels of the outline are kept as coverage, everything else becomes 0 or 255.

  Args:
    levels: (H, W) uint8.
    specks: share of the largest part's area.

  Returns:
    (H, W) uint8 coverage; all 0 where the mask is empty.
  """
  if levels.max(initial=0) == 1:
    levels = levels * np.uint8(255)
  solid = (levels >= SOLID).astype(np.uint8)
  box = _bounding_box(solid, 16)
  result = np.zeros_like(levels)
  if box is None:
    return result
  x0, y0, x1, y1 = box
  kept = _repair_specks(solid[y0:y1, x0:x1], specks)
  result[y0:y1, x0:x1] = _soft_coverage(levels[y0:y1, x0:x1], kept)
  return result


def _repair_specks(solid: np.ndarray, specks: float) -> np.ndarray:
  """Returns a mask (H, W) uint8 of 0 and 1 without small parts and holes."""
  import cv2

  count, labels, stats, _ = cv2.connectedComponentsWithStats(solid, connectivity=8)
  areas = stats[1:count, cv2.CC_STAT_AREA]
  speck = max(MIN_SPECK, float(areas.max()) * specks)
  kept = np.concatenate([[False], areas >= min(speck, areas.max())])[labels].astype(np.uint8)
  count, labels, stats, _ = cv2.connectedComponentsWithStats(1 - kept, connectivity=4)
  holes = stats[:, cv2.CC_STAT_AREA] < speck
  holes[0] = False
  return kept | holes[labels].astype(np.uint8)


def _soft_coverage(levels: np.ndarray, kept: np.ndarray) -> np.ndarray:
  """Returns uint8 coverage (H, W): the mask's levels along the outline of `kept`, else 0 or 255."""
  import cv2

  window = np.ones((2 * _SOFT + 1,) * 2, np.uint8)
  near, core = cv2.dilate(kept, window), cv2.erode(kept, window, borderValue=1)
  soft = (levels.astype(np.float32) - _BLACK) * (255.0 / (_WHITE - _BLACK))
  # A repaired pixel still has the level of what it was mistaken for.
  soft = np.where((soft >= 127.5) == (kept > 0), soft, np.where(kept > 0, 255.0, 0.0))
  soft = np.clip(np.where(core > 0, 255.0, np.where(near > 0, soft, 0.0)), 0, 255)
  return (soft + 0.5).astype(np.uint8)


def grow_mask(coverage: np.ndarray, pixels: int) -> np.ndarray:
  """Moves the outline of a silhouette outward by `pixels`, or inward where that is negative.

  Masks of segmentation programs are often too wide all around. Moved inward, parts thinner than
  twice the distance vanish. The picture's border is no outline: an animal that leaves the picture
  still does so afterwards.

  Args:
    coverage: (H, W) uint8; intermediate levels move along.
    pixels: the distance; 0 changes nothing.

  Returns:
    (H, W) uint8 coverage.
  """
  import cv2

  if pixels == 0:
    return coverage
  disc = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * abs(pixels) + 1,) * 2)
  move = cv2.dilate if pixels > 0 else cv2.erode
  return np.asarray(move(np.ascontiguousarray(coverage), disc), np.uint8)


def _bounding_box(solid: np.ndarray, margin: int) -> tuple[int, int, int, int] | None:
  """x0 y0 x1 y1 around the nonzero pixels, with a margin in pixels; None where all are zero."""
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
  """x0 y0 x1 y1 of the pixels with any coverage; None for an empty silhouette."""
  return _bounding_box(coverage > 0, 0)


def foreground_color(photo: np.ndarray, coverage: np.ndarray) -> np.ndarray:
  """Estimates the animal's colour in and around its silhouette, without the background's.

  A pixel of the outline is a mixture of animal and background, and a mask places the outline only
  to a pixel. Such pixels take the colour of the fully covered ones beside them, nearer ones with
  more weight; where none is within five pixels, as along a thin tail, they keep their own.

  Args:
    photo: (H, W, 3) uint8.
    coverage: (H, W) uint8.

  Returns:
    (H, W, 3) float32 in [0, 1].
  """
  import cv2

  color = photo.astype(np.float32) * np.float32(1 / 255)
  covered = (coverage >= 255 * _CORE).astype(np.float32)
  # Codecs store colour at half resolution, so the first covered pixel still has background in it.
  core = np.asarray(cv2.erode(covered, np.ones((3, 3), np.uint8), borderValue=1), np.float32)
  size, sigma = (2 * _REACH + 1,) * 2, _REACH / 3
  weight = cv2.GaussianBlur(core, size, sigma)[..., None]
  nearby = cv2.GaussianBlur(color * core[..., None], size, sigma) / np.maximum(weight, 1e-6)
  mixed = (core[..., None] == 0) & (weight > 1e-4)
  return np.where(mixed, nearby, color)
