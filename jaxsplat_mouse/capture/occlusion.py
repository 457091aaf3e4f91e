"""Where other animals may hide one: their pixels that the solid of its silhouettes reaches.

Without its hidden pixels, the hull of an animal is all that it can be. Pixels of another animal
that this hull does not reach show that nothing of the animal is there: they are background for it,
and only the others stay unobserved.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from jaxsplat_mouse.capture import common_solid
from jaxsplat_mouse.capture.crops import Crop
from jaxsplat_mouse.capture.rig import Rig

_MARGIN = 3  # reduced pixels around the solid's silhouette that it may reach all the same


def keep_near(rig: Rig, crops: Sequence[Crop]) -> list[Crop]:
  """Returns the crops of one animal with only those hidden pixels behind which it may be.

  Args:
    rig: the cameras.
    crops: of one moment.

  Raises:
    ValueError: the silhouettes have no common solid.
  """
  if all(crop.hidden is None for crop in crops):
    return list(crops)
  poses = rig.world_to_camera[[crop.view for crop in crops]]
  scene = common_solid.silhouette_scene(crops, poses, len(rig))
  reached = common_solid.solid_silhouettes(scene) > 0
  return [_limit(crop, one) for crop, one in zip(crops, reached[: len(crops)], strict=True)]


def _limit(crop: Crop, reached: np.ndarray) -> Crop:
  """Returns a crop whose hidden pixels are near what the solid reaches in its reduced image."""
  import cv2

  if crop.hidden is None:
    return crop
  height, width = crop.hidden.shape
  w, h = common_solid.reduced_size(width, height)
  window = np.ones((2 * _MARGIN + 1,) * 2, np.uint8)
  near = cv2.dilate(reached[:h, :w].astype(np.uint8), window)
  near = cv2.resize(near, (width, height), interpolation=cv2.INTER_NEAREST)
  hidden = crop.hidden & (near > 0)
  return dataclasses.replace(crop, hidden=hidden if hidden.any() else None)
