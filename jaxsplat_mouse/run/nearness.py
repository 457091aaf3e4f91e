"""How near two moments of a recording are: the overlap of their silhouettes, camera by camera.

A fit that starts from another moment's splats is spared what the two have in common. The canonical
frame takes the animal's place and size out, so they are taken out here too: every silhouette is
moved to its centroid and scaled to its area before it is compared with the other moment's in the
same camera. What remains is a turn of the animal or another posture, which no six silhouettes hide.
"""

from __future__ import annotations

import dataclasses
import pathlib

import numpy as np

from jaxsplat_mouse.dataset import camera_file
from jaxsplat_mouse.errors import InputError
from jaxsplat_mouse.io import images

_SIDE = 48  # samples along each side of a centred silhouette
_REACH = 2.5  # half that side, in square roots of the silhouette's area: a tail is long
_SAME_AXES = 0.02  # largest difference of two cameras' axes that still look the same way
_FEWEST_VIEWS = 3


@dataclasses.dataclass(frozen=True, kw_only=True)
class Silhouettes:
  """The centred silhouettes of one moment.

  Attributes:
    masks: (V, S, S) bool.
    axes: (V, 3, 3) rotation of each camera, world to camera.
  """

  masks: np.ndarray
  axes: np.ndarray


def read_silhouettes(folder: pathlib.Path) -> Silhouettes | None:
  """Reads the silhouettes of a scene folder.

  Returns:
    the silhouettes; None where a file is missing or broken, which the scene's own batch reports.
  """
  try:
    cameras = camera_file.parse(folder / camera_file.CAMERAS_FILE)
    masks = [_read_silhouette(folder / name) for name in cameras.names]
  except (InputError, OSError):
    return None
  axes = np.asarray(cameras.world_to_camera, np.float64)[:, :3, :3]
  return Silhouettes(masks=np.stack([centred(mask) for mask in masks]), axes=axes)


def _read_silhouette(path: pathlib.Path) -> np.ndarray:
  rgba = images.read_image(path, "")
  if rgba.shape[2] == 3 or rgba[..., 3].min() == 255:
    rgba = images.rgba_from_white(rgba[..., :3])
  return rgba[..., 3] > 127


def centred(mask: np.ndarray) -> np.ndarray:
  """Samples a silhouette (H, W) about its centroid, in the scale of its own area.

  Returns:
    (S, S) bool; all False for an empty silhouette.
  """
  rows, columns = mask.sum(1), mask.sum(0)
  area = int(rows.sum())
  if area == 0:
    return np.zeros((_SIDE, _SIDE), bool)
  steps = _REACH * np.sqrt(area) * np.linspace(-1, 1, _SIDE)
  height, width = mask.shape
  y = np.round(rows @ np.arange(height) / area + steps).astype(int)
  x = np.round(columns @ np.arange(width) / area + steps).astype(int)
  sampled = mask[np.clip(y, 0, height - 1)[:, None], np.clip(x, 0, width - 1)]
  return sampled & ((y >= 0) & (y < height))[:, None] & ((x >= 0) & (x < width))


def overlap(one: Silhouettes | None, other: Silhouettes | None) -> float:
  """Returns the mean IoU in [0, 1] of two moments' silhouettes in the cameras that both have.

  Moments of different rigs, and those that cannot be read, overlap by 0.
  """
  if one is None or other is None:
    return 0.0
  apart = np.abs(one.axes[:, None] - other.axes[None]).max((-1, -2))
  nearest = apart.argmin(1)
  same = np.flatnonzero(apart[np.arange(len(nearest)), nearest] < _SAME_AXES)
  if len(same) < max(_FEWEST_VIEWS, len(one.masks) // 2):
    return 0.0
  a, b = one.masks[same], other.masks[nearest[same]]
  return float(np.mean((a & b).sum((1, 2)) / np.maximum((a | b).sum((1, 2)), 1)))
