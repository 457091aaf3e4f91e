"""Traces exact views of the animal: cones find the blocks that show it, rays shade their pixels.

Cones around blocks of 16 x 16 and 4 x 4 pixels drop the empty parts of an image; the rays of the
other blocks start where their cone came near the surface. Pixels on a silhouette get a finer grid
of rays. Rays are processed in chunks of one size, so nothing compiles twice.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import jax
import jax.numpy as jnp
import numpy as np

from jaxsplat_mouse.cameras import Cameras
from jaxsplat_mouse.procedural_mouse.distance_field import SAFE_STEP, DistanceField, body_distance
from jaxsplat_mouse.procedural_mouse.parameters import Coat
from jaxsplat_mouse.procedural_mouse.shading import Lighting, shade

_CHUNK = 16384
_LAST_CHUNK = 1024  # rays, when few are left
_STEPS = 6  # per call; the rays still on their way are then gathered into full chunks
_ROUNDS = 50
_TOLERANCE = 4e-5  # world units
_NEAR = 0.02
_COARSE, _FINE = 16, 4  # sides of the blocks, pixels
_GROUP_PIXELS = 2**21  # views are traced together up to this many pixels


@dataclasses.dataclass(frozen=True, kw_only=True)
class TruthViews:
  """Exact views of V cameras, NumPy float32.

  Attributes:
    rgba: (V, H, W, 4) in [0, 1], straight alpha, colour 0 where alpha is 0.
    depth: (V, H, W) camera z averaged over the visible part of the pixel; 0 where alpha is 0.
    normal: (V, H, W, 3) outward world normal, unit length; 0 where alpha is 0.
  """

  rgba: np.ndarray
  depth: np.ndarray
  normal: np.ndarray

  @property
  def images(self) -> np.ndarray:
    """(V, H, W, 3) straight colour."""
    return self.rgba[..., :3]

  @property
  def alphas(self) -> np.ndarray:
    """(V, H, W) coverage."""
    return self.rgba[..., 3]


@dataclasses.dataclass(frozen=True)
class _Pinholes:
  """Camera constants on the host, float64."""

  rotation: np.ndarray  # (V, 3, 3) world to camera
  center: np.ndarray  # (V, 3)
  intrinsics: np.ndarray  # (V, 4)

  @classmethod
  def of(cls, cameras: Cameras) -> _Pinholes:
    matrix = np.asarray(cameras.world_to_camera, np.float64).reshape(-1, 4, 4)
    rotation = matrix[:, :3, :3]
    center = -np.einsum("vji,vj->vi", rotation, matrix[:, :3, 3])
    return cls(rotation, center, np.asarray(cameras.intrinsics, np.float64).reshape(-1, 4))

  def directions(self, view: np.ndarray, u: np.ndarray, v: np.ndarray) -> np.ndarray:
    """Returns world directions (3, N) with camera z = 1 through pixels.

    Args:
      view: (N,) index of each pixel's camera.
      u: (N,) pixel coordinates.
      v: (N,) likewise.
    """
    fx, fy, cx, cy = self.intrinsics[view].T
    x, y, r = (u - cx) / fx, (v - cy) / fy, self.rotation
    return np.stack([x * r[view, 0, i] + y * r[view, 1, i] + r[view, 2, i] for i in range(3)])


@jax.jit
def _march(
  body: DistanceField,
  origin: jax.Array,
  direction: jax.Array,
  state: jax.Array,
  limit: jax.Array,
  spread: jax.Array,
  margin: jax.Array,
) -> tuple[jax.Array, jax.Array]:
  """Advances cones (spread > 0) or rays (spread 0) by up to `_STEPS` steps.

  A sphere of radius d around the cone's axis at t is empty. The part of the cone up to t + s lies
  inside the sphere if s + spread (t + s) <= d.

  Args:
    body: the animal.
    origin: (3, N).
    direction: (3, N) unit vectors.
    state: (3, N) distance along the ray, smallest distance to the animal so far, and where it was.
    limit: (N,) where the ray leaves the animal's surroundings.
    spread: (N,) tangent of half the cone's angle.
    margin: () width of a layer around the animal that counts as part of it.

  Returns:
    The new state, and (N,) bool, whether the ray neither arrived nor left.
  """
  tolerance = lambda t: _TOLERANCE + 0.25 * spread * t

  def step(carry: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
    i, state, active = carry
    t = state[0]
    d = body_distance(body, *[o + t * k for o, k in zip(origin, direction, strict=True)])
    closer = active & (d < state[1])
    d = d - margin
    # Near the surface a ray takes full steps, forward and back.
    trust = jnp.where((jnp.abs(d) < _NEAR) & (spread == 0.0), 1.0, SAFE_STEP)
    free = (trust * d - spread * t) / (1.0 + spread)
    moving = active & (jnp.where(spread == 0.0, jnp.abs(free), free) > tolerance(t))
    ahead = jnp.where(moving, t + free, t)
    nearest, where = jnp.where(closer, d, state[1]), jnp.where(closer, t, state[2])
    return i + 1, jnp.stack([ahead, nearest, where]), moving & (ahead < limit)

  proceed = lambda carry: (carry[0] < _STEPS) & jnp.any(carry[2])
  start = (jnp.int32(0), state, state[0] < limit)
  _, state, active = jax.lax.while_loop(proceed, step, start)
  return state, active


@jax.jit
def _shade(
  body: DistanceField, coat: Coat, lighting: Lighting, point: jax.Array, direction: jax.Array
) -> jax.Array:
  """Returns (8, N): rgb, normal, weight of fur, hair streaks."""
  rgb, normal, fur, streak = shade(body, coat, lighting, tuple(point), tuple(direction))
  return jnp.stack([*rgb, *normal, fur, streak])


def chunk_slices(count: int, size: int = _CHUNK) -> Iterator[tuple[slice, int]]:
  """Yields slices of at most `size`, each with the padding that fills it."""
  for start in range(0, count, size):
    stop = min(start + size, count)
    yield slice(start, stop), size - (stop - start)


def pad_chunk(array: np.ndarray, padding: int, value: float = 0.0) -> np.ndarray:
  """Pads the last axis of an array at its end.

  Args:
    array: (..., N).
    padding: number of new entries.
    value: of the new entries.
  """
  if padding == 0:
    return np.ascontiguousarray(array)
  return np.pad(array, [(0, 0)] * (array.ndim - 1) + [(0, padding)], constant_values=value)


def _workers() -> ThreadPoolExecutor:
  """Returns a pool of one thread per core: a chunk runs on one core, in any order."""
  return ThreadPoolExecutor(min(os.cpu_count() or 1, 16))


def _trace(
  body: DistanceField,
  origin: np.ndarray,
  direction: np.ndarray,
  start: np.ndarray,
  limit: np.ndarray,
  spread: np.ndarray,
  margin: float,
) -> np.ndarray:
  """Marches any number of rays or cones to their end.

  Args:
    body: the animal.
    origin: (3, N).
    direction: (3, N) unit vectors.
    start: (N,) distance along the ray to start from.
    limit: (N,) where the ray leaves the animal's surroundings.
    spread: (N,) tangent of half the cone's angle, 0 for rays.
    margin: width of a layer around the animal that counts as part of it.

  Returns:
    The final state (3, N) of `_march`.
  """
  state = np.stack([start, np.full_like(start, 1e3), start]).astype(np.float32)
  alive = np.flatnonzero(start < limit)

  def advance(chunk: tuple[slice, int]) -> np.ndarray:
    part, padding = chunk
    index = alive[part]
    inputs = [pad_chunk(a[..., index], padding) for a in (origin, direction, state, limit, spread)]
    new, active = _march(body, *inputs, np.float32(margin))
    state[:, index] = np.asarray(new)[:, : len(index)]
    return np.asarray(active)[: len(index)]

  with _workers() as pool:
    for _ in range(_ROUNDS):
      if len(alive) == 0:
        break
      size = _CHUNK if len(alive) > _LAST_CHUNK else _LAST_CHUNK
      alive = alive[np.concatenate(list(pool.map(advance, chunk_slices(len(alive), size))))]
  return state


def _shade_all(
  body: DistanceField, coat: Coat, lighting: Lighting, point: np.ndarray, direction: np.ndarray
) -> np.ndarray:
  """Applies `_shade` to any number of points (3, N)."""
  out = np.zeros((8, point.shape[1]), np.float32)

  def fill(chunk: tuple[slice, int]) -> None:
    part, padding = chunk
    new = _shade(
      body, coat, lighting, *[pad_chunk(a[:, part], padding) for a in (point, direction)]
    )
    out[:, part] = np.asarray(new)[:, : part.stop - part.start]

  with _workers() as pool:
    list(pool.map(fill, chunk_slices(point.shape[1])))
  return out


@dataclasses.dataclass(frozen=True)
class _ViewGroup:
  """The constants of tracing one group of views."""

  body: DistanceField
  coat: Coat
  lighting: Lighting
  fur: float
  pinholes: _Pinholes
  bounds: tuple[np.ndarray, float]  # centre and radius of a sphere around the animal


def _span(group: _ViewGroup, view: np.ndarray, unit: np.ndarray, spread: np.ndarray) -> tuple:
  """Returns where rays enter and leave the bounding sphere; start >= limit where they miss."""
  center, radius = group.bounds
  offset = center - group.pinholes.center[view]
  along = np.einsum("in,ni->n", unit, offset)
  squared = (offset**2).sum(-1) - along**2
  reach = radius + group.fur + spread * (np.abs(along) + radius)
  half = np.sqrt(np.maximum(reach**2 - squared, 0.0))
  start = np.maximum(along - half, 0.0)
  limit = np.where((half > 0) & (along + half > 0), along + half, -1.0)
  return start.astype(np.float32), limit.astype(np.float32)


def _march_blocks(
  group: _ViewGroup,
  view: np.ndarray,
  y: np.ndarray,
  x: np.ndarray,
  size: int,
  start: np.ndarray | None,
) -> tuple[np.ndarray, np.ndarray]:
  """Marches cones around blocks of size x size pixels with corners x, y.

  Returns:
    (N,) bool, whether a block can show the animal, and (N,) the distance to start its rays from.
  """
  axis = group.pinholes.directions(view, x + 0.5 * size, y + 0.5 * size)
  unit = axis / np.linalg.norm(axis, axis=0)
  cosine = np.ones(len(view))
  for dx in (0, size):
    for dy in (0, size):
      corner = group.pinholes.directions(view, x + dx, y + dy)
      cosine = np.minimum(cosine, (corner * unit).sum(0) / np.linalg.norm(corner, axis=0))
  spread = 1.001 * np.sqrt(np.maximum(1.0 / cosine**2 - 1.0, 0.0))
  near, limit = _span(group, view, unit, spread)
  # A point of this cone lies at most sqrt(1 + spread^2) farther along the larger block's axis.
  start = near if start is None else np.maximum(start / np.sqrt(1 + spread**2), near)
  start = start.astype(np.float32)
  as_float = lambda a: np.asarray(a, np.float32)
  origin = as_float(group.pinholes.center[view].T)
  state = _trace(group.body, origin, as_float(unit), start, limit, as_float(spread), group.fur)
  return (state[0] < limit) & (limit > 0), state[0]


def _find_blocks(group: _ViewGroup, views: int, height: int, width: int) -> tuple[np.ndarray, ...]:
  """Returns view, y, x and start distance of all fine blocks that can show the animal."""
  grid = np.meshgrid(
    np.arange(views), np.arange(0, height, _COARSE), np.arange(0, width, _COARSE), indexing="ij"
  )
  view, y, x = (g.reshape(-1) for g in grid)
  keep, start = _march_blocks(group, view, y, x, _COARSE, None)
  inner = np.arange(0, _COARSE, _FINE)
  dy, dx = (g.reshape(1, -1) for g in np.meshgrid(inner, inner, indexing="ij"))
  many = dy.shape[1]
  y, x = ((a[keep, None] + d).reshape(-1) for a, d in ((y, dy), (x, dx)))
  view, start = np.repeat(view[keep], many), np.repeat(start[keep], many)
  keep, start = _march_blocks(group, view, y, x, _FINE, start)
  return view[keep], y[keep], x[keep], start[keep]


def _sample(
  group: _ViewGroup, view: np.ndarray, y: np.ndarray, x: np.ndarray, start: np.ndarray, samples: int
) -> np.ndarray:
  """Averages samples x samples rays in each pixel.

  Returns:
    (N, 8): premultiplied rgb, alpha, premultiplied camera z, premultiplied normal.
  """
  offsets = (np.arange(samples) + 0.5) / samples
  dy, dx = (g.reshape(1, -1) for g in np.meshgrid(offsets, offsets, indexing="ij"))
  rays = samples * samples
  u, v = (x[:, None] + dx).reshape(-1), (y[:, None] + dy).reshape(-1)
  of_view = np.repeat(view, rays)
  ray = group.pinholes.directions(of_view, u, v)
  norm = np.linalg.norm(ray, axis=0)
  unit = (ray / norm).astype(np.float32)
  origin = group.pinholes.center[of_view].T.astype(np.float32)
  _, limit = _span(group, of_view, unit, np.zeros(len(norm)))
  state = _trace(group.body, origin, unit, np.repeat(start, rays), limit, np.zeros_like(limit), 0.0)
  hit = (state[0] < limit) & (state[1] < 20 * _TOLERANCE)
  seen = np.flatnonzero(hit | (state[1] < group.fur))
  t = np.where(hit, state[0], state[2])[seen]
  point = origin[:, seen] + t * unit[:, seen]
  shaded = _shade_all(group.body, group.coat, group.lighting, point, unit[:, seen])
  alpha = np.where(hit[seen], 1.0, _fur_alpha(group, state[1][seen], shaded[6], shaded[7]))
  out = np.zeros((8, len(norm)), np.float32)
  out[:, seen] = alpha * np.concatenate(
    [shaded[:3], np.ones((1, len(seen))), (t / norm[seen])[None], shaded[3:6]]
  )
  return out.reshape(8, -1, rays).mean(-1).T


def _fur_alpha(group: _ViewGroup, d: np.ndarray, fur: np.ndarray, streak: np.ndarray) -> np.ndarray:
  """Returns the opacity of rays that pass the skin at distance d, through its hair."""
  length = group.fur * (0.15 + 0.85 * fur)
  depth = np.clip(1.0 - d / np.maximum(length, 1e-6), 0.0, 1.0)
  return np.clip(depth**1.5 * (0.5 + streak), 0.0, 1.0) if group.fur > 0 else np.zeros_like(d)


def _edges(alpha: np.ndarray) -> np.ndarray:
  """Returns (V, H, W) bool, the pixels whose 3 x 3 neighbourhood varies in coverage."""
  low, high = alpha, alpha
  for axis in (1, 2):
    wide = np.pad(low, [(0, 0), *[(int(a == axis),) * 2 for a in (1, 2)]], mode="edge")
    tall = np.pad(high, [(0, 0), *[(int(a == axis),) * 2 for a in (1, 2)]], mode="edge")
    n = alpha.shape[axis]
    low = np.minimum.reduce([np.take(wide, range(i, i + n), axis) for i in range(3)])
    high = np.maximum.reduce([np.take(tall, range(i, i + n), axis) for i in range(3)])
  return high > low


def _render_group(
  group: _ViewGroup, height: int, width: int, samples: int, edge_samples: int
) -> np.ndarray:
  """Renders a group of views, (V, H, W, 8) with channels as in `_sample`."""
  views = len(group.pinholes.center)
  tall, wide = (-(-side // _COARSE) * _COARSE for side in (height, width))
  view, y, x, start = _find_blocks(group, views, height, width)
  inner = np.arange(_FINE)
  dy, dx = (g.reshape(1, -1) for g in np.meshgrid(inner, inner, indexing="ij"))
  y, x = (y[:, None] + dy).reshape(-1), (x[:, None] + dx).reshape(-1)
  view, start = np.repeat(view, _FINE**2), np.repeat(start, _FINE**2)
  image = np.zeros((views, tall, wide, 8), np.float32)
  image[view, y, x] = _sample(group, view, y, x, start, samples)
  if edge_samples > samples:
    redo = _edges(image[..., 3])[view, y, x] & (y < height) & (x < width)
    view, y, x, start = (a[redo] for a in (view, y, x, start))
    image[view, y, x] = _sample(group, view, y, x, start, edge_samples)
  return image[:, :height, :width]


def trace_views(
  body: DistanceField,
  coat: Coat,
  lighting: Lighting,
  cameras: Cameras,
  bounds: tuple[np.ndarray, float],
  *,
  samples: int,
  edge_samples: int,
  fur: float,
) -> TruthViews:
  """Traces the views of all cameras, in groups.

  Args:
    body: the animal.
    coat: its colours and pattern.
    lighting: lights in the world.
    cameras: (V,).
    bounds: centre (3,) and radius of a sphere around the animal, world units.
    samples: rays along each side of a pixel.
    edge_samples: likewise for pixels on the silhouette.
    fur: length of soft hair outside the surface, world units.
  """
  pinholes = _Pinholes.of(cameras)
  height, width = cameras.height, cameras.width
  size = max(1, _GROUP_PIXELS // (height * width))
  parts = []
  for first in range(0, len(pinholes.center), size):
    some = slice(first, first + size)
    some_pinholes = _Pinholes(
      pinholes.rotation[some], pinholes.center[some], pinholes.intrinsics[some]
    )
    group = _ViewGroup(body, coat, lighting, fur, some_pinholes, bounds)
    parts.append(_render_group(group, height, width, samples, edge_samples))
  total = np.concatenate(parts)
  alpha = total[..., 3:4]
  straight = np.divide(total, alpha, out=np.zeros_like(total), where=alpha > 0)
  normal = straight[..., 5:8]
  length = np.linalg.norm(normal, axis=-1, keepdims=True)
  normal = np.divide(normal, length, out=np.zeros_like(normal), where=length > 0)
  rgba = np.concatenate([np.clip(straight[..., :3], 0, 1), np.clip(alpha, 0, 1)], -1)
  return TruthViews(rgba=rgba, depth=straight[..., 4], normal=normal)
