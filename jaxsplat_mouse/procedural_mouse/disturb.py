"""The faults of real captures, as small functions from scene to scene, drawn from a seed."""

from __future__ import annotations

import dataclasses
import math

import numpy as np

from jaxsplat_mouse.scene import Scene


def exposure_gains(views: int, seed: int, spread: float = 0.1) -> np.ndarray:
  """Draws gains (V, 3) per view and channel: a common factor, and a tint a third as strong.

  The gains are divided by their mean over the views, so that the set as a whole keeps its colour.

  Args:
    views: V.
    seed: of the gains.
    spread: largest deviation of the common factor from 1.
  """
  rng = np.random.default_rng([seed, views])
  gains = 1.0 + rng.uniform(-spread, spread, (views, 1))
  gains = gains * (1.0 + rng.uniform(-spread, spread, (views, 3)) / 3.0)
  return (gains / gains.mean(0)).astype(np.float32)


def apply_exposure(scene: Scene, gains: np.ndarray) -> Scene:
  """Multiplies the colours of every view by its gains (V, 3), and clips them to [0, 1]."""
  images = np.clip(scene.images * gains[:, None, None, :], 0.0, 1.0)
  return dataclasses.replace(scene, images=images.astype(np.float32))


def grow_masks(
  scene: Scene, pixels: int, background: tuple[float, float, float] = (0.5, 0.5, 0.5)
) -> Scene:
  """Dilates the silhouettes by a disc, or erodes them.

  New pixels show the background behind the animal; lost pixels become transparent.

  Args:
    scene: V views with float32 images.
    pixels: radius of the disc; negative erodes.
    background: colour in [0, 1].
  """
  alphas = np.asarray(scene.alphas)
  if pixels < 0:
    grown = 1.0 - _dilate(1.0 - alphas, -pixels)
  else:
    grown = _dilate(alphas, pixels)
  # Straight colour of a new pixel: the photograph over the background.
  share = np.divide(alphas, grown, out=np.zeros_like(alphas), where=grown > 0)
  share = np.clip(share, 0.0, 1.0)[..., None]
  images = scene.images * share + np.asarray(background, np.float32) * (1.0 - share)
  images = np.where(grown[..., None] > 0, images, 0.0).astype(np.float32)
  return dataclasses.replace(scene, images=images, alphas=grown.astype(np.float32))


def punch_holes(scene: Scene, seed: int, count: int = 2, radius: float = 0.012) -> Scene:
  """Cuts `count` discs out of every silhouette, as a failed segmentation does.

  Args:
    scene: the views.
    seed: of the places, anywhere on the silhouette.
    count: discs per view.
    radius: largest radius, as a share of the image's height; the smallest is half as large.
  """
  images, alphas = np.array(scene.images), np.array(scene.alphas)
  height, width = alphas.shape[1:]
  rows, columns = np.mgrid[:height, :width]
  for view, alpha in enumerate(alphas):
    rng = np.random.default_rng([seed, view])
    inside = np.flatnonzero(alpha > 0.5)
    for _ in range(count if len(inside) else 0):
      y, x = divmod(int(rng.choice(inside)), width)
      cut = (rows - y) ** 2 + (columns - x) ** 2 <= (radius * height * rng.uniform(0.5, 1)) ** 2
      alpha[cut], images[view][cut] = 0.0, 0.0
  return dataclasses.replace(scene, images=images, alphas=alphas)


def shake_cameras(scene: Scene, seed: int, degrees: float = 0.1, focal: float = 0.0) -> Scene:
  """Makes the calibration slightly wrong; the images stay the same.

  Args:
    scene: the views.
    seed: of the errors.
    degrees: standard deviation of each camera's rotation about each of its axes.
    focal: relative standard deviation of the focal lengths.
  """
  poses = np.array(scene.cameras.world_to_camera, np.float64)
  intrinsics = np.array(scene.cameras.intrinsics, np.float64)
  rng = np.random.default_rng([seed, len(poses)])
  for i in range(len(poses)):
    poses[i, :3] = rotation_about(math.radians(degrees) * rng.normal(size=3)) @ poses[i, :3]
    intrinsics[i, :2] *= 1.0 + focal * rng.normal()
  cameras = dataclasses.replace(
    scene.cameras,
    world_to_camera=poses.astype(np.float32),
    intrinsics=intrinsics.astype(np.float32),
  )
  return dataclasses.replace(scene, cameras=cameras)


def rotation_about(vector: np.ndarray) -> np.ndarray:
  """Returns the rotation (3, 3) by |vector| radians about a vector (3,) (Rodrigues)."""
  angle = float(np.linalg.norm(vector))
  x, y, z = vector / max(angle, 1e-12)
  k = np.array([[0.0, -z, y], [z, 0.0, -x], [-y, x, 0.0]])
  return np.eye(3) + math.sin(angle) * k + (1.0 - math.cos(angle)) * k @ k


def _dilate(alphas: np.ndarray, pixels: int) -> np.ndarray:
  """Returns the maximum over a disc around every pixel."""
  height, width = alphas.shape[1:]
  padded = np.pad(alphas, [(0, 0), (pixels, pixels), (pixels, pixels)], mode="edge")
  grown = alphas
  for dy in range(-pixels, pixels + 1):
    for dx in range(-pixels, pixels + 1):
      if dx * dx + dy * dy <= pixels * pixels:
        moved = padded[:, pixels + dy :, pixels + dx :][:, :height, :width]
        grown = np.maximum(grown, moved)
  return grown
