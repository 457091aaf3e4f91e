"""Several procedural mice in one place: exact views in which the nearer one hides the others."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence

import numpy as np

from jaxsplat_mouse.cameras import Cameras
from jaxsplat_mouse.procedural_mouse.mouse import Mouse, render_truth


@dataclasses.dataclass(frozen=True, kw_only=True)
class MiceViews:
  """Exact views of A mice by V cameras, NumPy float32.

  Attributes:
    rgba: (V, H, W, 4) in [0, 1], straight alpha, of all mice together.
    shares: (A, V, H, W) share of a pixel that shows each mouse.
    whole: (A, V, H, W, 4) each mouse as if it were alone.
  """

  rgba: np.ndarray
  shares: np.ndarray
  whole: np.ndarray

  @property
  def labels(self) -> np.ndarray:
    """(V, H, W) uint8 label masks: 1 and more for the mouse that shows, 0 for the background."""
    shown = self.shares.argmax(0) + 1
    return np.where(self.shares.sum(0) >= 0.5, shown, 0).astype(np.uint8)


def place_mouse(mouse: Mouse, x: float, y: float, yaw: float) -> Mouse:
  """Returns a mouse turned to a heading and moved along the floor.

  Args:
    mouse: as `make_mouse` centres it.
    x: how far it moves, world units.
    y: likewise.
    yaw: its heading, radians counter-clockwise from +X.
  """
  c, s = math.cos(yaw - mouse.yaw), math.sin(yaw - mouse.yaw)
  a, b, z = mouse.translation
  moved = (c * a - s * b + x, s * a + c * b + y, z)
  return dataclasses.replace(mouse, yaw=yaw, translation=moved)


def render_mice(
  mice: Sequence[Mouse], cameras: Cameras, samples: int = 2, edge_samples: int = 4
) -> MiceViews:
  """Renders exact views of mice that may hide each other.

  Each pixel is ordered by the mean depths of the mice in it.

  Args:
    mice: A of them, which may touch but not overlap.
    cameras: (V,) any pinhole cameras outside the mice.
    samples: rays along each side of a pixel.
    edge_samples: likewise for pixels on a silhouette.
  """
  views = [render_truth(mouse, cameras, samples, edge_samples=edge_samples) for mouse in mice]
  alphas = np.stack([view.alphas for view in views])
  depths = np.where(alphas > 0, np.stack([view.depth for view in views]), np.inf)
  shares = np.zeros_like(alphas)
  for i, alpha in enumerate(alphas):
    shares[i] = alpha
    for j, other in enumerate(alphas):
      nearer = (depths[j] < depths[i]) | ((depths[j] == depths[i]) & (j < i))
      shares[i] *= np.where(nearer, 1 - other, 1)
  whole = np.stack([view.rgba for view in views])
  total = shares.sum(0)
  color = (shares[..., None] * whole[..., :3]).sum(0) / np.maximum(total, 1e-6)[..., None]
  return MiceViews(rgba=np.concatenate([color, total[..., None]], -1), shares=shares, whole=whole)
