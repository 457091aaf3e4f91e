"""Fuses depth maps into a coloured triangle mesh, and measures its distance from the truth.

Fusion is the truncated signed distance of Curless and Levoy 1996 on a grid: every view votes on
every sample with the distance, along its optical axis, from the sample to the surface that it sees
there. A view in which the sample lies far behind a surface votes for inside, with little weight.

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

_SMALLEST_PART = 0.02  # of the largest part's volume; smaller parts are specks
# Weight of a view whose surface lies farther than the truncation in front of a sample. Without it,
# a single view that looks in through a gap, where nothing was fitted, hollows the body.
_HIDDEN_WEIGHT = 0.1
_SLABS_AT_ONCE = 8


@dataclasses.dataclass(frozen=True, kw_only=True)
class Mesh:
  """A triangle mesh.

  Attributes:
    vertices: (N, 3) world units.
    faces: (F, 3) int, counter-clockwise as seen from outside.
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
  """Returns signed distances (R, R, R) and colours (R, R, R, 3) on a grid.

  Distances are in units of the truncation, within [-1, 1], positive outside. Memory holds a few
  slabs of the grid at a time.

  Args:
    maps: `depth` and `alpha` (V, H, W), `rgb` (V, H, W, 3) over black. Where alpha is at most 0.5
      a view sees past everything.
    cameras: (V,).
    low: (3,) first sample of the grid, world units.
    high: (3,) last sample.
    resolution: R.
    truncation: () world units; a view has little weight further behind what it sees.
  """
  axes = [jnp.linspace(low[i], high[i], resolution) for i in range(3)]
  plane = jnp.stack(jnp.meshgrid(axes[1], axes[2], indexing="ij"), -1).reshape(-1, 2)

  def fuse_slab(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    points = jnp.concatenate([jnp.full((len(plane), 1), x), plane], -1)

    def add_view(total: jax.Array, view: tuple[Any, Any]) -> tuple[jax.Array, None]:
      return total + _vote(*view, points, truncation), None

    total, _ = jax.lax.scan(add_view, jnp.zeros((6, len(plane))), (cameras, maps))
    value = jnp.where(total[1] > 0, total[0] / jnp.maximum(total[1], 1.0), -1.0)
    color = (total[2:5] / jnp.maximum(total[5], 1e-6)).T
    return value.reshape(resolution, resolution), color.reshape(resolution, resolution, 3)

  return jax.lax.map(fuse_slab, axes[0], batch_size=_SLABS_AT_ONCE)


def _vote(
  camera: Cameras, seen: dict[str, jax.Array], points: jax.Array, truncation: jax.Array
) -> jax.Array:
  """Returns what one view adds at points (N, 3) to the six sums (6, N) of the fusion.

  The sums are weighted distance, weight, weighted red, green and blue, and the colours' weight.
  """
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
  weight = jnp.where(distance > -1.0, 1.0, _HIDDEN_WEIGHT) * known
  # Colour counts near the surface that the view sees.
  near = weight * (solid & (jnp.abs(distance) < 1.0))
  color = safe_divide(seen["rgb"][row, column], alpha[:, None], 1e-3)
  rows = [weight * jnp.clip(distance, -1.0, 1.0), weight, *(near * c for c in color.T), near]
  return jnp.stack(rows)


def extract_mesh(field: np.ndarray, colors: np.ndarray, low: np.ndarray, high: np.ndarray) -> Mesh:
  """Extracts the zero level of a grid of signed distances by marching cubes, without specks.

  Args:
    field: (R, R, R) signed distances, positive outside.
    colors: (R, R, R, 3) in [0, 1], 0 where unknown.
    low: (3,) first sample of the grid, world units.
    high: (3,) last sample.

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
  # A margin of outside closes the surface where it reaches the border of the box.
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
  """Returns colours (N, 3) at grid samples (N, 3); samples without one take a neighbour's."""
  found = colors[tuple(index.T)]
  for axis in range(3):
    for side in (-1, 1):
      moved = index.copy()
      moved[:, axis] = np.clip(moved[:, axis] + side, 0, colors.shape[axis] - 1)
      empty = found.sum(-1) == 0
      found[empty] = colors[tuple(moved[empty].T)]
  return np.clip(found, 0.0, 1.0).astype(np.float32)


def _vertex_normals(vertices: np.ndarray, faces: np.ndarray) -> np.ndarray:
  """Returns unit vertex normals (N, 3): sums of the normals of adjacent faces, weighted by area."""
  a, b, c = (vertices[faces[:, i]] for i in range(3))
  across = np.cross(b - a, c - a)
  total = np.zeros_like(vertices)
  for i in range(3):
    np.add.at(total, faces[:, i], across)
  length = np.linalg.norm(total, axis=1, keepdims=True)
  return (total / np.maximum(length, 1e-20)).astype(np.float32)


def sample_surface(mesh: Mesh, count: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
  """Returns points (N, 3) spread evenly by area over a mesh, and the normals (N, 3) there.

  Args:
    mesh: at least one face.
    count: N.
    seed: of the points.
  """
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
  """Measures the distance between two surfaces, each given as points spread over it.

  Args:
    points: (N, 3) on the surface, world units.
    normals: (N, 3) unit, outward.
    true_points: (M, 3) on the true surface.
    true_normals: (M, 3) unit, outward.

  Returns:
    `accuracy`, the mean distance from the surface to the truth, world units; `completeness`, from
    the truth to the surface; `chamfer`, the mean of both; `normal_error`, the mean angle in degrees
    to the nearest true normal.

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
