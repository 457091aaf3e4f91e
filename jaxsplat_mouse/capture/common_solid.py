"""The solid that the silhouettes of a moment have in common: its place, its size, its agreement.

The solid is a visual hull. Silhouettes are first reduced to one small size, so that a hull takes a
fraction of a second and every moment and every calibration hypothesis runs one compiled program.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from jaxsplat_mouse import metrics
from jaxsplat_mouse.cameras import Cameras
from jaxsplat_mouse.capture.crops import Crop
from jaxsplat_mouse.scene import Scene
from jaxsplat_mouse.visual_hull.build import build_hull, hull_extent
from jaxsplat_mouse.visual_hull.hull import HullConfig
from jaxsplat_mouse.visual_hull.hull_alpha import hull_alpha

SIDE = 128  # pixels of a reduced silhouette
_HIDDEN = 0.1  # share of a reduced pixel that other animals may cover before it counts as hidden
# Without repair: a single dissenting silhouette must show, not be overruled.
_CONFIG = HullConfig(resolution=64, num_points=64, repair=False)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SolidAgreement:
  """How well the common solid explains each silhouette.

  Attributes:
    iou: (V,) intersection over union of the solid's silhouette and the given one; 0 where there is
      no common solid.
    alphas: (V, SIDE, SIDE) silhouettes of the solid in the reduced views.
  """

  iou: np.ndarray
  alphas: np.ndarray


def reduced_size(width: int, height: int) -> tuple[int, int]:
  """Width and height of an image whose longer side is reduced to `SIDE` pixels."""
  factor = SIDE / max(height, width)
  return max(1, int(width * factor)), max(1, int(height * factor))


def silhouette_scene(crops: Sequence[Crop], world_to_camera: np.ndarray, views: int) -> Scene:
  """Builds a scene of the reduced silhouettes of one moment, without colour.

  Args:
    crops: of V cameras, at most `views`.
    world_to_camera: (V, 4, 4), the poses of these cameras.
    views: number of views of the result, of which those after the first V are padding.
  """
  alphas = np.zeros((views, SIDE, SIDE), np.float32)
  intrinsics = np.ones((views, 4), np.float32)
  poses = np.tile(np.eye(4, dtype=np.float32), (views, 1, 1))
  frames = np.tile(np.array([0, 0, SIDE, SIDE], np.float32), (views, 1))
  hidden = np.zeros((views, SIDE, SIDE), bool)
  for i, crop in enumerate(crops):
    height, width = crop.rgba.shape[:2]
    w, h = reduced_size(width, height)
    alphas[i, :h, :w] = _reduce(crop.rgba[..., 3], w, h) / 255.0
    intrinsics[i] = crop.intrinsics * np.array([w / width, h / height] * 2)
    frames[i, 2:] = w, h
    poses[i] = world_to_camera[i]
    if crop.hidden is not None:
      hidden[i, :h, :w] = _reduce(crop.hidden, w, h) > _HIDDEN
      alphas[i][hidden[i]] = 0
  return Scene(
    cameras=Cameras(world_to_camera=poses, intrinsics=intrinsics, width=SIDE, height=SIDE),
    images=np.zeros((views, SIDE, SIDE, 3), np.float32),
    alphas=alphas,
    frames=frames,
    view_mask=np.arange(views) < len(crops),
    hidden=hidden if hidden.any() else None,
  )


def _reduce(alpha: np.ndarray, width: int, height: int) -> np.ndarray:
  import cv2

  return cv2.resize(alpha.astype(np.float32), (width, height), interpolation=cv2.INTER_AREA)


def measure_agreement(scene: Scene) -> SolidAgreement:
  """Carves the common solid of a silhouette scene and compares it with each silhouette."""
  count = scene.num_views
  try:
    hull = build_hull(scene, _CONFIG)
  except ValueError:
    return SolidAgreement(iou=np.zeros(count), alphas=np.zeros((count, SIDE, SIDE), np.float32))
  alphas = np.array(hull_alpha(hull, scene.cameras)[:count])
  for alpha, (_, _, w, h) in zip(alphas, scene.frames[:count].astype(int), strict=True):
    alpha[h:], alpha[:, w:] = 0, 0
  if scene.hidden is not None:
    alphas[scene.hidden[:count]] = 0
  scores = [metrics.iou(a, b) for a, b in zip(alphas, scene.alphas[:count], strict=True)]
  return SolidAgreement(iou=np.nan_to_num(np.array(scores)), alphas=alphas)


def solid_silhouettes(scene: Scene) -> np.ndarray:
  """Returns the alphas (V, SIDE, SIDE) of the common solid in the views of a silhouette scene.

  Raises:
    ValueError: there is no common solid.
  """
  return np.asarray(hull_alpha(build_hull(scene, _CONFIG), scene.cameras))


def solid_extent(scene: Scene) -> tuple[np.ndarray, float]:
  """Computes centroid (3,) and radius of the common solid, world units.

  Raises:
    ValueError: there is no common solid.
  """
  return hull_extent(scene, _CONFIG)
