"""How far silhouettes of one moment contradict each other under given cameras, in pixels.

The ray of an outline's point touches the animal, so somewhere along it there is a point that lies
in every other silhouette. The *depth of entry* of the ray is the largest, over its points, of the
smallest signed distance that any other view gives the point: below zero where no point of the ray
lies in all silhouettes. Cameras are right when no ray's depth of entry is below zero (silhouette
coherence, Hernandez, Schmitt, Cipolla 2007). Nothing is carved, and distances keep their slope
however far two cones miss each other, so errors of tens of pixels have a useful gradient.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from jaxsplat_mouse.math import rotate, safe_normalize

_COARSE = 64  # points along a ray at which its depth of entry is sought
_FINE = 9  # points around the best of them
_FAR = 1e4  # signed distance, pixels, of a point that a view does not have in frame
NO_DEPTH = 1e3  # from here on a depth of entry stands for none: no other view has the ray in frame
_SUPERSAMPLING = 4  # of the grid that distances are measured on
_LEVEL = 127.5
_FEWEST_PIXELS = 16  # of a silhouette
_BORDER = 2.0  # pixels: an outline so near to the border of the frame may be cut off by it


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class Outlines:
  """Silhouettes of M moments in V views, as their outlines and signed distances.

  Attributes:
    rays: (M, V, P, 2) x / z and y / z of points on the outlines, in the frame of their camera.
    weights: (M, V, P) 1 for points, 0 for padding, missing views and what the frame cuts off.
    distances: (M, V, S, S) signed distance to the outline, pixels, positive inside.
    intrinsics: (M, V, 4) fx fy cx cy of `distances`, pixels.
    frames: (M, V, 4) x0 y0 x1 y1, pixels of `distances`: outside it a view knows nothing.
    centroids: (M, V, 2) of the silhouettes, x / z and y / z.
    whole: (M, V) bool: there is a silhouette, and it lies inside the frame.
  """

  rays: np.ndarray
  weights: np.ndarray
  distances: np.ndarray
  intrinsics: np.ndarray
  frames: np.ndarray
  centroids: np.ndarray
  whole: np.ndarray

  def select(self, moments: Sequence[int] | np.ndarray) -> Outlines:
    """Returns some of the moments."""
    index = np.asarray(moments, int)
    return jax.tree.map(lambda leaf: leaf[index], self)


def trace_outline(
  alpha: np.ndarray,
  intrinsics: np.ndarray,
  frame: np.ndarray,
  *,
  side: int = 256,
  points: int = 64,
  scale: float = 1.0,
) -> Outlines:
  """Traces one silhouette.

  Args:
    alpha: (H, W) uint8 coverage.
    intrinsics: (4,) fx fy cx cy of `alpha`, pixels.
    frame: (4,) x0 y0 x1 y1, pixels of `alpha`: what the camera saw.
    side: S, of the grid of distances.
    points: P.
    scale: grid pixels per pixel of `alpha`, the same for the whole recording.

  Returns:
    Outlines without the leading axes M and V; all weights are 0 for an empty silhouette.
  """
  import cv2

  empty = Outlines(
    rays=np.zeros((points, 2), np.float32),
    weights=np.zeros(points, np.float32),
    distances=np.zeros((side, side), np.float32),
    intrinsics=np.array([1, 1, 0, 0], np.float32),
    frames=np.zeros(4, np.float32),
    centroids=np.zeros(2, np.float32),
    whole=np.array(False),
  )
  rows, columns = np.nonzero(alpha >= 128)
  if len(rows) < _FEWEST_PIXELS:
    return empty
  low, high = np.array([columns.min(), rows.min()]), np.array([columns.max(), rows.max()]) + 1
  corner = (low + high) / 2 - side / (2 * scale)
  pace = 1 / (_SUPERSAMPLING * scale)  # of the supersampled grid, pixels of `alpha`
  line = (np.arange(_SUPERSAMPLING * side) + 0.5) * pace
  levels = _sample(alpha, *np.meshgrid(line + corner[0], line + corner[1]))
  inside = (levels >= _LEVEL).astype(np.uint8)
  if inside.sum() < _FEWEST_PIXELS:
    return empty
  deep, far = (cv2.distanceTransform(a, cv2.DIST_L2, 5) for a in (inside, 1 - inside))
  signed = np.where(inside > 0, deep - 0.5, 0.5 - far) / _SUPERSAMPLING
  contours, _ = cv2.findContours(inside, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
  contour = max(contours, key=len)[:, 0]
  contour = contour[((np.arange(points) + 0.5) * len(contour) / points).astype(int)]
  pixels = _on_edge(alpha, (contour + 0.5) * pace + corner, pace * _outward(signed, contour))
  free = (pixels > frame[:2] + _BORDER).all(1) & (pixels < frame[2:] - _BORDER).all(1)
  focal, center = intrinsics[:2], intrinsics[2:]
  weight = alpha[rows, columns].astype(np.float64)
  centroid = np.array([(columns * weight).sum(), (rows * weight).sum()]) / weight.sum() + 0.5
  whole = (low > frame[:2] + _BORDER).all() and (high < frame[2:] - _BORDER).all()
  blocks = signed.reshape(side, _SUPERSAMPLING, side, _SUPERSAMPLING)
  return Outlines(
    rays=((pixels - center) / focal).astype(np.float32),
    weights=free.astype(np.float32),
    distances=blocks.mean((1, 3)).astype(np.float32),
    intrinsics=(scale * np.concatenate([focal, center - corner])).astype(np.float32),
    frames=(scale * (np.asarray(frame) - np.tile(corner, 2))).astype(np.float32),
    centroids=((centroid - center) / focal).astype(np.float32),
    whole=np.array(whole),
  )


def _sample(alpha: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
  """Bilinear levels of `alpha` (H, W) at pixel coordinates of one shape; 0 beyond its border."""
  import cv2

  # OpenCV counts pixels from the centre of the first.
  column, row = (np.ascontiguousarray(c - 0.5, np.float32) for c in (x, y))
  return np.asarray(cv2.remap(alpha.astype(np.float32), column, row, cv2.INTER_LINEAR))


def _outward(signed: np.ndarray, contour: np.ndarray) -> np.ndarray:
  """Unit normals (P, 2), x first, at grid points (P, 2) of a signed distance, positive inside."""
  import cv2

  down, across = np.gradient(cv2.GaussianBlur(signed, (0, 0), 2.0))
  normal = -np.stack([across, down], -1)[contour[:, 1], contour[:, 0]]
  return normal / np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-6)


def _on_edge(alpha: np.ndarray, points: np.ndarray, normals: np.ndarray) -> np.ndarray:
  """Points (P, 2) moved along `normals` (P, 2), by two at most, to where alpha is one half."""
  steps = np.linspace(-2.0, 2.0, 17)
  line = points[:, None] + steps[:, None] * normals[:, None]
  levels = _sample(alpha, line[..., 0], line[..., 1])
  leaves = (levels[:, :-1] >= _LEVEL) & (levels[:, 1:] < _LEVEL)
  offset = np.where(leaves, np.abs(steps[:-1]), np.inf)
  row, best = np.arange(len(points)), offset.argmin(1)
  before, after = levels[row, best], levels[row, best + 1]
  part = (before - _LEVEL) / np.maximum(before - after, 1e-6)
  found = np.where(leaves.any(1), steps[best] + part * (steps[1] - steps[0]), 0.0)
  return points + found[:, None] * normals


def stack_outlines(rows: Sequence[Sequence[Outlines]]) -> Outlines:
  """Stacks M rows of V single outlines."""
  views = [jax.tree.map(lambda *leaves: np.stack(leaves), *row) for row in rows]
  return jax.tree.map(lambda *leaves: np.stack(leaves), *views)


def view_distance(
  distances: jax.Array, intrinsics: jax.Array, frame: jax.Array, x: jax.Array
) -> jax.Array:
  """Signed distance (...,), pixels, of points (..., 3) in the frame of one camera.

  Beyond the grid it falls with the distance from the grid; out of frame it is `_FAR`.
  """
  size = distances.shape[0]
  depth = jnp.maximum(x[..., 2], 1e-6)
  u = intrinsics[0] * x[..., 0] / depth + intrinsics[2]
  v = intrinsics[1] * x[..., 1] / depth + intrinsics[3]
  column, row = jnp.clip(u - 0.5, 0.0, size - 1.001), jnp.clip(v - 0.5, 0.0, size - 1.001)
  left, top = jnp.floor(column), jnp.floor(row)
  a, b = column - left, row - top
  index = top.astype(jnp.int32) * size + left.astype(jnp.int32)
  flat = distances.reshape(-1)
  p00, p01, p10, p11 = (flat[index + shift] for shift in (0, 1, size, size + 1))
  upper, lower = p00 + a * (p01 - p00), p10 + a * (p11 - p10)
  beyond = jnp.abs(u - 0.5 - column) + jnp.abs(v - 0.5 - row)
  inside = (u > frame[0]) & (u < frame[2]) & (v > frame[1]) & (v < frame[3]) & (x[..., 2] > 0)
  return jnp.where(inside, upper + b * (lower - upper) - beyond, _FAR)


def _soft_max(values: jax.Array, temperature: jax.Array, axis: int) -> jax.Array:
  """Mean of `values` with weights exp(values / temperature): their maximum for a small one."""
  weights = jax.nn.softmax(values / temperature, axis)
  return (values * weights).sum(axis)


def depths_of_entry(
  poses: jax.Array,
  focal: jax.Array,
  moment: Outlines,
  center: jax.Array,
  radius: jax.Array,
  temperature: jax.Array,
) -> jax.Array:
  """Depths of entry (V, P), pixels, of all outlines of one moment; see the module.

  Differentiable in poses and focal lengths: where along its ray the best point lies is found
  without gradients, and around it maximum and minimum are soft.

  Args:
    poses: (V, 4, 4) world to camera.
    focal: (V,) factors on the focal lengths.
    moment: Outlines (V, ...).
    center: (3,) of a sphere around the animal.
    radius: () of that sphere.
    temperature: () pixels, of the soft maximum and minimum.
  """
  rays = moment.rays / focal[:, None, None]
  intrinsics = moment.intrinsics * jnp.stack([focal, focal, *[jnp.ones_like(focal)] * 2], -1)
  origins = -(poses[:, :3, :3] * poses[:, :3, 3][:, :, None]).sum(1)
  local = jnp.concatenate([rays, jnp.ones_like(rays[..., :1])], -1)
  directions = (poses[:, None, :3, :3] * local[..., :, None]).sum(2)
  directions = safe_normalize(directions)
  known = moment.weights.sum(-1) > 0
  number = jnp.arange(len(poses))

  def smallest(t: jax.Array, soft: bool) -> jax.Array:
    """Smallest distance (V, P, T) that another view gives the points at t (V, P, T)."""
    points = origins[:, None, None] + t[..., None] * directions[:, :, None]

    def visit(pose: jax.Array, view: Outlines, k: jax.Array, j: jax.Array) -> jax.Array:
      x = rotate(pose, points) + pose[:3, 3]
      found = view_distance(view.distances, k, view.frames, x)
      return jnp.where((j == number)[:, None, None] | ~known[j], _FAR, found)

    all_views = jax.vmap(visit)(poses, moment, intrinsics, number)
    return -_soft_max(-all_views, temperature, 0) if soft else all_views.min(0)

  middle = ((center - origins)[:, None] * directions).sum(-1)
  spread = jnp.linspace(-1.0, 1.0, _COARSE) * radius
  coarse = jax.lax.stop_gradient(middle[..., None] + spread)
  best = jnp.argmax(jax.lax.stop_gradient(smallest(coarse, False)), -1)
  around = jnp.linspace(-1.0, 1.0, _FINE) * (2.0 * radius / (_COARSE - 1))
  place = jnp.take_along_axis(coarse, best[..., None], -1)
  fine = jax.lax.stop_gradient(place + around)
  return _soft_max(smallest(fine, True), temperature, -1)
