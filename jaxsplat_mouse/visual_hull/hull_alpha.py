"""Soft silhouettes of a hull in any cameras.

The alpha of a ray is the largest field value along it. The field crosses its level within about one
photograph pixel, so edges come out antialiased. Rays first walk through a grid of 4^3 blocks: one
that meets a solid block has alpha 1, one that meets no surface has alpha 0, and only the others,
near the outline, are sampled finely.
"""

from __future__ import annotations

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp

from jaxsplat_mouse.cameras import Cameras, pixel_rays
from jaxsplat_mouse.visual_hull.carve import BLOCK
from jaxsplat_mouse.visual_hull.hull import Hull, interpolate

_COARSE_STEPS = 128
_FINE_STEPS = 160
_SMALLEST_CHUNK = 8192
_MOST_CHUNKS = 8  # few enough for a GPU; at modest image sizes a chunk fits a CPU's caches


@jax.jit
def hull_alpha(hull: Hull, cameras: Cameras) -> jax.Array:
  """Renders silhouettes (V, H, W) in [0, 1] of a hull in cameras (V,), at their image size.

  For a smaller size, pass `cameras.resized(width, height)`.
  """
  origins, directions = _grid_rays(hull, cameras)
  near, far = _box_interval(origins, directions, hull.values.shape[0])
  state = _block_states(hull.values)

  def walk(ray: jax.Array) -> jax.Array:
    return _walk_blocks(state, origins[ray], directions[ray], near[ray], far[ray])

  spans = _for_marked(near < far, walk, jnp.zeros((len(near), 3)))
  first, last, solid = spans[:, 0], spans[:, 1], spans[:, 2] > 0

  def sample(ray: jax.Array) -> jax.Array:
    return _largest_value(hull.values, origins[ray], directions[ray], first[ray], last[ray])

  alpha = _for_marked((first < last) & ~solid, sample, solid.astype(jnp.float32))
  return alpha.reshape(-1, cameras.height, cameras.width)


def _for_marked(
  marked: jax.Array, f: Callable[[jax.Array], jax.Array], rows: jax.Array
) -> jax.Array:
  """Replaces the marked rows of an array, in chunks.

  Args:
    marked: (P,) bool.
    f: gives the new rows (C, ...) for indices (C,).
    rows: (P, ...).
  """
  total = len(marked)
  chunk = min(total, max(_SMALLEST_CHUNK, -(-total // _MOST_CHUNKS)))
  count = marked.sum()
  order = jnp.nonzero(marked, size=total, fill_value=0)[0]

  def finish(state: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
    start, rows = state
    # The last chunk starts earlier, to end with the list; what it repeats gets the same values.
    begin = jnp.minimum(start, total - chunk)
    index = jax.lax.dynamic_slice_in_dim(order, begin, chunk)
    live = jnp.arange(chunk) + begin < count
    return start + chunk, rows.at[jnp.where(live, index, total)].set(f(index), mode="drop")

  return jax.lax.while_loop(lambda state: state[0] < count, finish, (jnp.int32(0), rows))[1]


def _grid_rays(hull: Hull, cameras: Cameras) -> tuple[jax.Array, jax.Array]:
  """Returns origins and directions (P, 3) of all pixels' rays in grid units; t is camera depth."""
  origin, direction = jax.vmap(pixel_rays)(cameras)
  shape = direction.shape
  starts = jnp.broadcast_to(((origin - hull.origin) / hull.voxel_size)[:, None, None], shape)
  return starts.reshape(-1, 3), (direction / hull.voxel_size).reshape(-1, 3)


def _box_interval(
  origins: jax.Array, directions: jax.Array, resolution: int
) -> tuple[jax.Array, jax.Array]:
  """Returns depths (P,) where rays enter and leave the grid's box; enter >= leave if they miss."""
  steep = jnp.where(jnp.abs(directions) > 1e-12, directions, 1e-12)
  a, b = (0.0 - origins) / steep, (resolution - 1.0 - origins) / steep
  return jnp.maximum(jnp.minimum(a, b).max(-1), 0.0), jnp.maximum(a, b).min(-1)


def _block_states(values: jax.Array) -> jax.Array:
  """Returns the states (blocks^3,) uint8 of blocks and their border: 0 empty, 1 mixed, 3 solid."""
  window, stride = (BLOCK + 2,) * 3, (BLOCK,) * 3
  reduce = functools.partial(
    jax.lax.reduce_window, window_dimensions=window, window_strides=stride, padding=[(1, 1)] * 3
  )
  touched = reduce(values, jnp.uint8(0), jax.lax.max) > 0
  filled = reduce(values, jnp.uint8(255), jax.lax.min) == 255
  return (touched.astype(jnp.uint8) + 2 * filled.astype(jnp.uint8)).reshape(-1)


def _walk_blocks(
  state: jax.Array, origins: jax.Array, directions: jax.Array, near: jax.Array, far: jax.Array
) -> jax.Array:
  """Walks rays through the blocks.

  Args:
    state: (blocks^3,) of `_block_states`.
    origins: (P, 3) in grid units.
    directions: (P, 3).
    near: (P,) depth at which a ray enters the grid.
    far: (P,) depth at which it leaves.

  Returns:
    Rows (P, 3): first and last depth at which a ray can meet the surface (first >= last if it meets
    none), and 1 if it meets a solid block.
  """
  blocks = round(len(state) ** (1 / 3))
  stride = (far - near) / _COARSE_STEPS

  def step(number: jax.Array, carry: tuple) -> tuple:
    first, last, solid = carry
    t = near + (number + 0.5) * stride
    cell = jnp.floor((origins + t[:, None] * directions + 0.5) / BLOCK).astype(jnp.int32)
    cell = jnp.clip(cell, 0, blocks - 1)
    index = (cell[:, 0] * blocks + cell[:, 1]) * blocks + cell[:, 2]
    here = state.at[index].get(mode="promise_in_bounds")
    # A step and a half on either side covers block corners between two samples.
    return (
      jnp.where(here > 0, jnp.minimum(first, t - 1.5 * stride), first),
      jnp.where(here > 0, jnp.maximum(last, t + 1.5 * stride), last),
      solid | (here >= 2),
    )

  start = (far, near, jnp.zeros(len(origins), bool))
  first, last, solid = jax.lax.fori_loop(0, _COARSE_STEPS, step, start)
  return jnp.stack([jnp.maximum(first, near), jnp.minimum(last, far), solid], -1)


def _largest_value(
  values: jax.Array, origins: jax.Array, directions: jax.Array, first: jax.Array, last: jax.Array
) -> jax.Array:
  """Returns the largest field value (P,) in [0, 1] along rays between two depths (P,)."""
  pace = (last - first) / _FINE_STEPS

  def sample(number: jax.Array, best: jax.Array) -> jax.Array:
    t = first + (number + 0.5) * pace
    return jnp.maximum(best, interpolate(values, origins + t[:, None] * directions))

  best = jax.lax.fori_loop(0, _FINE_STEPS, sample, jnp.zeros(len(first)))
  return jnp.minimum(best / 255.0, 1.0)
