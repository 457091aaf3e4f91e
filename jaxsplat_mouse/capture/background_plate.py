"""The scene without the animal, per camera: the temporal median of what masks call background.

Cameras and scene stand still while the animal walks, so every pixel that it leaves at some moment
is seen as background. Each pixel keeps a bounded random sample of the levels at which it was
background (reservoir sampling, Vitter 1985); memory depends on the picture, not on the recording's
length. Exposure drifts: each picture is divided by one gain before its levels are kept.
"""

from __future__ import annotations

import dataclasses

import numpy as np

SAMPLES = 15  # levels that a pixel keeps
_MIN_SAMPLES = 3  # from which a pixel's median is trusted
_AWAY = 9  # pixels between an outline and what counts as background, for masks that are too narrow
_USABLE = 16, 244  # levels from which a gain is measured: neither black nor saturated
_NOISE = 2.0  # levels; a decoded video is not more exact than that
_STRIP = 64  # rows whose median is taken at once


@dataclasses.dataclass(frozen=True, kw_only=True)
class BackgroundPlate:
  """The empty scene of one camera.

  Attributes:
    color: (H, W, 3) float32, levels 0 to 255; 0 where unknown.
    spread: (H, W) float32, standard deviation of the levels over time, robust.
    known: (H, W) bool, seen as background often enough.
    moments: number of pictures that it was made of.
  """

  color: np.ndarray
  spread: np.ndarray
  known: np.ndarray
  moments: int


class PlateBuilder:
  """Collects the pictures of one camera, one at a time, and returns their plate."""

  def __init__(self, seed: int = 0):
    """Starts without pictures; `seed` chooses what the reservoirs replace."""
    self._random = np.random.default_rng(seed)
    self._samples = np.zeros((0, 0, 0, 3), np.uint8)
    self._counts = np.zeros((0, 0), np.int32)
    self._first: tuple[np.ndarray, np.ndarray] | None = None
    self._masked = False
    self.gains: list[float] = []

  def add(self, photo: np.ndarray, coverage: np.ndarray | None = None) -> None:
    """Adds a picture.

    Args:
      photo: (H, W, 3) uint8.
      coverage: (H, W) uint8 silhouette; None where there is none, and all of it is taken.
    """
    background = np.ones(photo.shape[:2], bool)
    if coverage is not None:
      self._masked = True
      background = _away_from(coverage)
    if self._first is None:
      self._samples = np.full((SAMPLES, *photo.shape), 255, np.uint8)
      self._counts = np.zeros(photo.shape[:2], np.int32)
      self._first = photo.copy(), background
    reference, known = self._first
    gain = exposure_gain(photo, reference.astype(np.float32), background & known)
    self.gains.append(gain)
    levels = np.clip(photo * np.float32(1 / gain) + np.float32(0.5), 0, 255).astype(np.uint8)
    # Slot `count` while there is room; then a random one with probability SAMPLES / (count + 1).
    slots = np.where(
      self._counts < SAMPLES,
      self._counts,
      (self._random.random(background.shape, np.float32) * (self._counts + 1)).astype(np.int32),
    )
    rows, columns = np.nonzero(background & (slots < SAMPLES))
    self._samples[slots[rows, columns], rows, columns] = levels[rows, columns]
    self._counts += background

  def build(self) -> BackgroundPlate:
    """Returns the plate at the middle one of the exposures.

    Raises:
      ValueError: no picture was added.
    """
    if self._first is None:
      raise ValueError("a plate takes at least one picture")
    shape = self._counts.shape
    color, spread = np.zeros((*shape, 3), np.float32), np.zeros(shape, np.float32)
    for top in range(0, shape[0], _STRIP):
      rows = slice(top, top + _STRIP)
      counts = np.minimum(self._counts[rows], SAMPLES)
      find = _median_and_spread if self._masked else _mode_and_spread
      color[rows], spread[rows] = find(self._samples[:, rows], counts)
    known = self._counts >= _MIN_SAMPLES
    gain = np.float32(np.median(self.gains))
    return BackgroundPlate(
      color=np.where(known[..., None], color * gain, 0),
      spread=np.maximum(spread * gain, np.float32(_NOISE)),
      known=known,
      moments=len(self.gains),
    )


def _away_from(coverage: np.ndarray) -> np.ndarray:
  """Returns the pixels (H, W) bool at some distance from a silhouette."""
  import cv2

  window = np.ones((2 * _AWAY + 1,) * 2, np.uint8)
  return np.asarray(cv2.dilate((coverage > 0).astype(np.uint8), window)) == 0


def exposure_gain(photo: np.ndarray, plate: np.ndarray, background: np.ndarray) -> float:
  """Returns the exposure of a picture relative to a plate; 1 where nothing can be compared.

  Args:
    photo: (H, W, 3) uint8.
    plate: (H, W, 3) float32 levels.
    background: (H, W) bool, the pixels that show the background in both.
  """
  rows = slice(None, None, 3)
  here, there = photo[rows, rows].astype(np.float32), plate[rows, rows]
  low, high = _USABLE
  usable = background[rows, rows] & (np.minimum(here, there) > low).all(-1)
  usable &= (np.maximum(here, there) < high).all(-1)
  if usable.sum() < 64:
    return 1.0
  return float(np.median(here[usable].sum(-1) / there[usable].sum(-1)))


def _mode_and_spread(samples: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Likewise, of samples that the animal may be in: the densest of them are the background's.

  The ground repeats itself and the animal does not, so the third of the samples that lie closest
  together is ground even where the animal is half of the time (half-sample mode; Robertson and
  Cryer 1974).

  Args:
    samples: (SAMPLES, H, W, 3) uint8; 255 where there is none.
    counts: (H, W) of samples.
  """
  level = samples.astype(np.float32).sum(-1)
  level[np.arange(len(samples))[:, None, None] >= counts] = np.inf
  order = np.argsort(level, axis=0)
  level = np.take_along_axis(level, order, 0)
  count = max(len(samples) // 3, 2)
  with np.errstate(invalid="ignore"):
    width = level[count - 1 :] - level[: len(samples) - count + 1]
  start = np.where(np.isfinite(width), width, np.inf).argmin(0)
  chosen = np.take_along_axis(order, start + np.arange(count)[:, None, None], 0)
  picked = np.take_along_axis(samples, chosen[..., None], 0).astype(np.float32)
  middle = np.median(picked, axis=0)
  return middle, 2 * np.abs(picked - middle).mean((0, -1))


def _median_and_spread(samples: np.ndarray, counts: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Median (H, W, 3) and robust standard deviation (H, W) of the first `counts` samples.

  Args:
    samples: (SAMPLES, H, W, 3) uint8; 255 where there is none.
    counts: (H, W) of samples.
  """
  ordered = np.sort(samples, axis=0)
  # The middle of an even number is the mean of two.
  low, high = np.maximum(counts - 1, 0) // 2, counts // 2
  high = np.minimum(high, np.maximum(counts - 1, 0))
  pick = lambda array, index: np.take_along_axis(array, index[None, ..., None], 0)[0]
  middle = (pick(ordered, low).astype(np.float32) + pick(ordered, high)) / 2
  off = np.abs(samples.astype(np.float32) - middle).mean(-1)
  off[np.arange(len(samples))[:, None, None] >= counts] = np.inf
  off.sort(axis=0)
  deviation = np.take_along_axis(off, low[None], 0)[0]
  return middle, np.float32(1.4826) * np.where(counts > 0, deviation, 0)
