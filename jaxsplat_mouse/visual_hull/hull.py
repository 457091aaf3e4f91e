"""The visual hull as a type, its configuration, and functions of its grid."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp


@dataclasses.dataclass(frozen=True, kw_only=True)
class HullConfig:
  """How a hull is carved.

  Attributes:
    resolution: samples along each side of the tight bounding box, 4 times a power of two.
    num_points: number of surface points.
    min_views: number of views that must have a point in frame before it can be solid; all but one
      if that is fewer, and at least three where there are three. Where the animal leaves the
      frames, fewer views let the hull grow fat wedges and more cut it off.
    slack: pixels by which silhouettes are widened before carving, so that small errors of
      calibration and masks cut off no tail; the hull grows as much.
    repair: whether other views overrule one dissenting silhouette; takes four views.
  """

  resolution: int = 256
  num_points: int = 20_000
  min_views: int = 4
  slack: int = 0
  repair: bool = True


DEFAULT_CONFIG = HullConfig()


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class Hull:
  """A soft solid on a grid, and points on its 0.5 level.

  Attributes:
    values: (R, R, R) uint8, 255 inside, x first; sample i is at origin + i * voxel_size.
    origin: (3,) world position of sample (0, 0, 0).
    voxel_size: (3,) world units; the box is tight, so axes differ.
    points: (N, 3) spread about evenly over the surface; neighbours are near in the list.
    normals: (N, 3) unit, outward.
    colors: (N, 3) in [0, 1].
    visibility: (N,) sum of the weights of the views that see a point; 0 where hidden from all.
    area: () of the surface, world units squared.
    centroid: (3,) of the volume.
    radius: () largest distance of the volume from the centroid.
    repaired: (V,) share of each silhouette that repair added.
    doubted: (V, H, W) bool, the pixels that repair added, and two more around them.
    shared: () bool, whether any volume is in enough frames.
    consistent: () bool, whether the silhouettes have a common solid.
  """

  values: jax.Array
  origin: jax.Array
  voxel_size: jax.Array
  points: jax.Array
  normals: jax.Array
  colors: jax.Array
  visibility: jax.Array
  area: jax.Array
  centroid: jax.Array
  radius: jax.Array
  repaired: jax.Array
  doubted: jax.Array
  shared: jax.Array
  consistent: jax.Array


def interpolate(values: jax.Array, position: jax.Array) -> jax.Array:
  """Interpolates a grid (R, S, T) trilinearly at grid positions (..., 3), clamped to the grid."""
  shape = values.shape
  x = jnp.clip(position, 0.0, jnp.array(shape, jnp.float32) - 1.001)
  low = jnp.floor(x)
  fraction, low = (x - low)[..., None, :], low.astype(jnp.int32)
  base = (low[..., 0] * shape[1] + low[..., 1]) * shape[2] + low[..., 2]
  corner = jnp.array([[i, j, k] for i in (0, 1) for j in (0, 1) for k in (0, 1)])
  offset = (corner[:, 0] * shape[1] + corner[:, 1]) * shape[2] + corner[:, 2]
  read = values.reshape(-1).at[base[..., None] + offset].get(mode="promise_in_bounds")
  weight = jnp.where(corner == 1, fraction, 1.0 - fraction)
  return (read.astype(jnp.float32) * weight[..., 0] * weight[..., 1] * weight[..., 2]).sum(-1)


def halve(values: jax.Array) -> jax.Array:
  """Averages 2 x 2 x 2 samples: (R, R, R) uint8 to (R/2, R/2, R/2) float32 in [0, 1]."""
  total = jnp.zeros([size // 2 for size in values.shape], jnp.int32)
  for i in (0, 1):
    for j in (0, 1):
      for k in (0, 1):
        total += values[i::2, j::2, k::2]
  return total.astype(jnp.float32) * (1.0 / (8 * 255))


def volume_moments(
  values: jax.Array, origin: jax.Array, voxel_size: jax.Array
) -> tuple[jax.Array, jax.Array]:
  """Measures the solid part of a hull's grid.

  The radius counts cells of 2^3 samples that are at least a quarter full, so that a single sample
  of mask noise does not set the animal's size.

  Args:
    values: (R, R, R) uint8.
    origin: (3,) of sample (0, 0, 0), world units.
    voxel_size: (3,) world units.

  Returns:
    The centroid (3,), and the largest distance () from it.
  """
  half = halve(values)
  # Cell i lies midway between samples 2 i and 2 i + 1.
  axes = [origin[a] + (2 * jnp.arange(n) + 0.5) * voxel_size[a] for a, n in enumerate(half.shape)]
  total = jnp.maximum(half.sum(), 1e-6)
  marginals = [half.sum(tuple(b for b in range(3) if b != a)) for a in range(3)]
  centroid = jnp.stack([(x * m).sum() / total for x, m in zip(axes, marginals, strict=True)])
  x, y, z = (a - c for a, c in zip(axes, centroid, strict=True))
  squared = (x * x)[:, None, None] + (y * y)[:, None] + z * z
  return centroid, jnp.sqrt(jnp.where(half >= 0.25, squared, 0.0).max())
