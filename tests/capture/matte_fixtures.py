"""A disc with a thin tail before a textured background, with exact alpha."""

from __future__ import annotations

import cv2
import numpy as np

SIDE = 160
FUR = np.array([190.0, 120.0, 60.0])


def make_plate(seed: int = 0) -> np.ndarray:
  """An empty scene (SIDE, SIDE, 3) float32, levels."""
  noise = np.random.default_rng(seed).normal(size=(SIDE, SIDE, 3))
  texture = cv2.GaussianBlur(noise, (0, 0), 3)
  return (np.array([80.0, 110.0, 100.0]) + 14 * texture / texture.std()).astype(np.float32)


def make_alpha(x: float = 80.0, y: float = 80.0, radius: float = 28.0) -> np.ndarray:
  """Exact coverage (SIDE, SIDE) of a disc and a tail of 4 pixels."""
  fine = (np.arange(SIDE * 4) + 0.5) / 4
  inside = np.hypot(fine[None] - x, fine[:, None] - y) < radius
  tail = (np.abs(fine[:, None] - y) < 2) & (fine[None] > x) & (fine[None] < x + radius + 26)
  return (inside | tail).reshape(SIDE, 4, SIDE, 4).mean((1, 3)).astype(np.float32)


def photograph(
  alpha: np.ndarray, plate: np.ndarray, gain: float = 1.0, shadow: bool = False, seed: int = 0
) -> np.ndarray:
  """The photograph (SIDE, SIDE, 3) uint8, with fur, noise and, on request, a soft shadow."""
  rng = np.random.default_rng(seed)
  fur = FUR + 8 * cv2.GaussianBlur(rng.normal(size=(SIDE, SIDE, 1)), (0, 0), 1.5)[..., None] * 4
  ground = plate
  if shadow:
    ground = (
      plate * (1 - 0.4 * cv2.GaussianBlur(np.roll(alpha, (6, 4), (0, 1)), (0, 0), 6))[..., None]
    )
  image = gain * (alpha[..., None] * fur + (1 - alpha[..., None]) * ground)
  return np.clip(image + rng.normal(size=image.shape) + 0.5, 0, 255).astype(np.uint8)


def move(alpha: np.ndarray, pixels: float) -> np.ndarray:
  """A mask uint8 whose outline lies so many pixels outside that of `alpha`."""
  inside = (alpha > 0.5).astype(np.uint8)
  far, deep = (cv2.distanceTransform(s, cv2.DIST_L2, 5) for s in (1 - inside, inside))
  signed = np.where(inside > 0, 0.5 - deep, far - 0.5)
  return np.round(255 * np.clip(0.5 + pixels - signed, 0, 1)).astype(np.uint8)
