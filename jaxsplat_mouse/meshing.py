"""Depth maps in, a coloured triangle mesh out, and how far it is from the truth.

Fusion is the truncated signed distance of Curless and Levoy 1996 on a grid: every view votes on
every sample with the distance between the sample and what the view sees there, along its axis.
Views from which a sample lies far behind a surface vote for inside, with little weight.

    python -m jaxsplat_mouse.mesh --workdir=DIR
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxsplat_mouse.cameras import Cameras
from jaxsplat_mouse.math import rotate, safe_divide

_SMALLEST_PART = 0.02  # of the largest one's volume: what is smaller is a speck
# Weight of a view that sees something farther than the truncation in front of a sample. Without it
# one view that looks in through a gap, where no camera looked and nothing was fitted, hollows a
# body.
_HIDDEN = 0.1
_SLABS_AT_ONCE = 8


@dataclasses.dataclass(frozen=True, kw_only=True)
class Mesh:
  """A triangle mesh.

  Attributes:
    vertices: (N, 3) world units.
    faces: (F, 3) int, counter-clockwise seen from outside.
    normals: (N, 3) unit, outward.
    colors: (N, 3) in [0, 1].
  """

  vertices: np.ndarray
  faces: np.ndarray
  normals: np.ndarray
  colors: np.ndarray


@functools.partial(jax.jit, static_argnames="resolution")
def fuse_depth_maps(
  maps: dict[str, jax.Array],
  cameras: Cameras,
  low: jax.Array,
  high: jax.Array,
  resolution: int,
  truncation: jax.Array,
) -> tuple[jax.Array, jax.Array]:
  """Signed distances (R, R, R) over `truncation`, positive outside, and colours (R, R, R, 3).

  Args:
    maps: `depth` and `alpha` (V, H, W), `rgb` (V, H, W, 3) over black. Where alpha is below one
      half a view sees past everything.
    cameras: (V,).
    low: (3,) first sample of the grid.
    high: (3,) last sample.
    resolution: R.
    truncation: () world units; a view has little say further behind what it sees.
  """
  axes = [jnp.linspace(low[i], high[i], resolution) for i in range(3)]
  plane = jnp.stack(jnp.meshgrid(axes[1], axes[2], indexing="ij"), -1).reshape(-1, 2)

  def slab(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    points = jnp.concatenate([jnp.full((len(plane), 1), x), plane], -1)

    def vote(total: jax.Array, view: tuple[Any, Any]) -> tuple[jax.Array, None]:
      camera, seen = view
      local = rotate(camera.world_to_camera, points) + camera.world_to_camera[:3, 3]
      z = jnp.maximum(local[:, 2], 1e-6)
      fx, fy, cx, cy = camera.intrinsics
      column = jnp.floor(local[:, 0] / z * fx + cx).astype(jnp.int32)
      row = jnp.floor(local[:, 1] / z * fy + cy).astype(jnp.int32)
      known = (local[:, 2] > 1e-6) & (column >= 0) & (column < camera.width)
      known &= (row >= 0) & (row < camera.height)
      column, row = jnp.clip(column, 0, camera.width - 1), jnp.clip(row, 0, camera.height - 1)
      alpha, depth = seen["alpha"][row, column], seen["depth"][row, column]
      solid = alpha > 0.5
      distance = jnp.where(solid, (depth - z) / truncation, 1.0)
      weight = jnp.where(distance > -1.0, 1.0, _HIDDEN) * known
      # Colour counts near the surface that the view sees.
      near = weight * (solid & (jnp.abs(distance) < 1.0))
      color = safe_divide(seen["rgb"][row, column], alpha[:, None], 1e-3)
      rows = [weight * jnp.clip(distance, -1.0, 1.0), weight, *(near * c for c in color.T), near]
      return total + jnp.stack(rows), None

    total, _ = jax.lax.scan(vote, jnp.zeros((6, len(plane))), (cameras, maps))
    value = jnp.where(total[1] > 0, total[0] / jnp.maximum(total[1], 1.0), -1.0)
    color = (total[2:5] / jnp.maximum(total[5], 1e-6)).T
    return value.reshape(resolution, resolution), color.reshape(resolution, resolution, 3)

  return jax.lax.map(slab, axes[0], batch_size=_SLABS_AT_ONCE)


def extract_mesh(field: np.ndarray, colors: np.ndarray, low: np.ndarray, high: np.ndarray) -> Mesh:
  """The zero level of signed distances (R, R, R), specks left out (marching cubes).

  Raises:
    ImportError: scikit-image is not installed.
    ValueError: there is no surface.
  """
  from skimage import measure

  field = np.array(field, np.float32)
  parts, count = measure.label(field < 0, return_num=True, connectivity=1)
  if count == 0:
    raise ValueError("no surface: every sample is outside")
  sizes = np.bincount(parts.reshape(-1))
  sizes[0] = 0
  small = np.flatnonzero(sizes < _SMALLEST_PART * sizes.max())
  field[np.isin(parts, small[small > 0])] = 1.0
  spacing = (np.asarray(high) - low) / (np.array(field.shape) - 1)
  # Outside all round, so that what reaches the box's border is closed there.
  padded = np.pad(field, 1, constant_values=1.0)
  vertices, faces, _, _ = measure.marching_cubes(padded, 0.0)
  index = np.clip(np.round(vertices - 1).astype(int), 0, np.array(field.shape) - 1)
  vertices = (vertices - 1) * spacing + low
  return Mesh(
    vertices=vertices.astype(np.float32),
    faces=faces,
    normals=_vertex_normals(vertices, faces),
    colors=_nearest_colors(np.asarray(colors), index),
  )


def _nearest_colors(colors: np.ndarray, index: np.ndarray) -> np.ndarray:
  """Colours (N, 3) at grid samples (N, 3); of samples without one, that of a neighbour."""
  found = colors[tuple(index.T)]
  for axis in range(3):
    for side in (-1, 1):
      moved = index.copy()
      moved[:, axis] = np.clip(moved[:, axis] + side, 0, colors.shape[axis] - 1)
      empty = found.sum(-1) == 0
      found[empty] = colors[tuple(moved[empty].T)]
  return np.clip(found, 0.0, 1.0).astype(np.float32)


def _vertex_normals(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
  """Unit normals (N, 3): sums of those of the faces around, weighted by area."""
  a, b, c = (vertices[faces[:, i]] for i in range(3))
  across = np.cross(b - a, c - a)
  total = np.zeros_like(vertices)
  for i in range(3):
    np.add.at(total, faces[:, i], across)
  length = np.linalg.norm(total, axis=1, keepdims=True)
  return (total / np.maximum(length, 1e-20)).astype(np.float32)


def sample_surface(mesh: Mesh, count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
  """Points (count, 3) spread evenly by area over a mesh, and the normals there (count, 3)."""
  rng = np.random.default_rng(seed)
  a, b, c = (mesh.vertices[mesh.faces[:, i]] for i in range(3))
  across = np.cross(b - a, c - a)
  area = np.linalg.norm(across, axis=1)
  face = rng.choice(len(area), count, p=area / area.sum())
  u, v = rng.uniform(size=(2, count, 1))
  u, v = np.where(u + v > 1, 1 - u, u), np.where(u + v > 1, 1 - v, v)
  points = a[face] + u * (b - a)[face] + v * (c - a)[face]
  return points, across[face] / np.maximum(area[face], 1e-20)[:, None]


def compare_surfaces(
  points: np.ndarray, normals: np.ndarray, true_points: np.ndarray, true_normals: np.ndarray
) -> dict[str, float]:
  """How far two surfaces are apart, each as points spread over it with outward normals.

  Returns:
    `accuracy`, mean distance from the surface to the truth; `completeness`, from the truth to it;
    `chamfer`, the mean of both; `normal_error`, mean angle in degrees to the nearest true normal.

  Raises:
    ImportError: SciPy is not installed.
  """
  from scipy import spatial

  accuracy, nearest = spatial.cKDTree(true_points).query(points)
  completeness, _ = spatial.cKDTree(points).query(true_points)
  cosine = np.clip((normals * true_normals[nearest]).sum(-1), -1.0, 1.0)
  return {
    "accuracy": float(accuracy.mean()),
    "completeness": float(completeness.mean()),
    "chamfer": float((accuracy.mean() + completeness.mean()) / 2),
    "normal_error": float(np.degrees(np.arccos(cosine)).mean()),
  }
