"""Divides pictures among several animals: whose silhouette each pixel belongs to.

All animals together have one silhouette. It is what plates, mattes and the check of the calibration
work with, since it casts no doubt on itself where one animal hides another. The silhouette of one
animal is its share of that; the shares of the others are hidden for it, not background, because the
animal may be behind them.
"""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Sequence

import numpy as np

from jaxsplat_mouse.capture.mattes import SOLID, clean_mask
from jaxsplat_mouse.errors import InputError

CONTESTED = 255  # the owner of pixels that the masks of two animals claim
_MOST_LABELS = 32  # different ids in one picture, from which it is taken for grey levels
_REACH = 64  # pixels around the animals in which every pixel has the nearest animal as its owner


@dataclasses.dataclass(frozen=True, kw_only=True)
class AnimalPartition:
  """The animals of one picture.

  Attributes:
    coverage: (H, W) uint8, the silhouette of all animals together.
    owner: (H, W) uint8, number of the animal whose pixel it is, outside of all silhouettes that of
      the nearest one; `CONTESTED` where two masks overlap.
    present: numbers of the animals that have a silhouette.
  """

  coverage: np.ndarray
  owner: np.ndarray
  present: frozenset[int]


def label_levels(labels: np.ndarray, ids: Sequence[int]) -> np.ndarray:
  """Turns label ids into one mask per animal.

  Args:
    labels: (H, W) integers, 0 for background.
    ids: of the A wanted animals.

  Returns:
    (A + 1, H, W) uint8 masks of 0 and 255; the last holds all other animals.
  """
  masks = [labels == wanted for wanted in ids]
  masks.append((labels != 0) & ~np.isin(labels, ids))
  return np.stack(masks).astype(np.uint8) * np.uint8(255)


def check_labels(path: pathlib.Path, field: str, labels: np.ndarray) -> None:
  """Refuses a picture that holds grey levels instead of label ids.

  Args:
    path: the picture, for messages.
    field: camera and frame, for messages.
    labels: (H, W) integers.

  Raises:
    InputError: there are too many different values.
  """
  found = np.unique(labels)
  if len(found) > _MOST_LABELS:
    problem = f"{len(found)} different values from {found[0]} to {found[-1]}; expected the integer"
    raise InputError(path, field, f"{problem} ids of a few animals and 0 for the background")


def divide_picture(levels: np.ndarray, specks: float) -> AnimalPartition:
  """Cleans the masks of all animals and divides the picture among them.

  Args:
    levels: (A, H, W) uint8, one mask per animal; 128 and more is animal, or 1 in masks of 0 and 1.
    specks: see `mattes.clean_mask`.
  """
  covers = [clean_mask(one, specks) for one in levels]
  claims = [
    (cover >= SOLID) & (one >= (1 if one.max(initial=0) == 1 else SOLID))
    for cover, one in zip(covers, levels, strict=True)
  ]
  # What a mask itself shows goes before what cleaning filled, as a tail across another animal.
  ranks = [
    cover.astype(np.int16) + 256 * claim for cover, claim in zip(covers, claims, strict=True)
  ]
  owner = np.argmax(np.stack(ranks), 0).astype(np.uint8)
  coverage = np.max(np.stack(covers), 0)
  owner[np.sum(np.stack(claims), 0) > 1] = CONTESTED
  present = frozenset(i for i, cover in enumerate(covers) if cover.any())
  return AnimalPartition(
    coverage=coverage, owner=_spread_owners(owner, coverage > 0), present=present
  )


def _spread_owners(owner: np.ndarray, owned: np.ndarray) -> np.ndarray:
  """Returns `owner` (H, W) with that of the nearest owned pixel wherever none owns a pixel."""
  import cv2

  if not owned.any():
    return owner
  rows, columns = np.flatnonzero(owned.any(1)), np.flatnonzero(owned.any(0))
  box = tuple(
    slice(max(int(line[0]) - _REACH, 0), int(line[-1]) + 1 + _REACH) for line in (rows, columns)
  )
  inner, filled = owner[box], owned[box]
  _, nearest = cv2.distanceTransformWithLabels(
    (~filled).astype(np.uint8), cv2.DIST_L2, 5, labelType=cv2.DIST_LABEL_PIXEL
  )
  table = np.zeros(int(nearest.max()) + 1, np.uint8)
  table[nearest[filled]] = inner[filled]
  result = owner.copy()
  result[box] = table[nearest]
  return result
