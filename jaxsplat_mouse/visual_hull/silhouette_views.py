"""Silhouettes and their cameras, the hull field at points, and running maxima of silhouettes.

Silhouettes are 8-bit coverage. One 32-bit word packs four neighbouring pixels, so that a bilinear
sample costs one gather: gathers are most of the cost of carving.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

from jaxsplat_mouse.math import rotate

# Growth steps of the running maximum. Each is at most the window that it extends, so no pixel is
# skipped; their sums (1 2 4 6 9 13 18 25 34 46 62 82) exceed a wanted radius by 40 % at most.
_DILATION_STEPS = (1, 1, 2, 2, 3, 4, 5, 7, 9, 12, 16, 20)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class SilhouetteViews:
  """Silhouettes of V views and their cameras, ready to be sampled at points.

  Attributes:
    coverage: (V, H, W) uint8, 255 where the animal fills the pixel or may: where it is hidden.
    quads: (V, H + 1, W + 1) uint32, the 2 x 2 pixels around every pixel corner.
    world_to_camera: (V, 4, 4).
    intrinsics: (V, 4) fx fy cx cy, pixels.
    frames: (V, 4) x0 y0 x1 y1, pixels; outside it the view is unknown.
    valid: (V,) bool, False for padding views.
    min_views: () int32, number of views that must have a point in frame before it can be solid.
    hidden: (V, H, W) bool, pixels that are as unknown as those out of frame; None for none.
  """

  coverage: jax.Array
  quads: jax.Array
  world_to_camera: jax.Array
  intrinsics: jax.Array
  frames: jax.Array
  valid: jax.Array
  min_views: jax.Array
  hidden: jax.Array | None = None

  @property
  def shown(self) -> jax.Array:
    """(V, H, W) uint8, the coverage of pixels that are not hidden; 0 where they are."""
    return self.coverage if self.hidden is None else jnp.where(self.hidden, 0, self.coverage)


def make_views(
  coverage: jax.Array,
  world_to_camera: jax.Array,
  intrinsics: jax.Array,
  frames: jax.Array,
  view_mask: jax.Array,
  min_views: int,
  hidden: jax.Array | None = None,
) -> SilhouetteViews:
  """Packs silhouettes for sampling.

  Args:
    coverage: (V, H, W) uint8, 255 where the animal fills the pixel or may.
    world_to_camera: (V, 4, 4).
    intrinsics: (V, 4) fx fy cx cy, pixels.
    frames: (V, 4) x0 y0 x1 y1, pixels.
    view_mask: (V,) bool, False for padding views.
    min_views: as in `HullConfig`.
    hidden: (V, H, W) bool, pixels that are unknown; None for none.
  """
  valid = jnp.asarray(view_mask, bool)
  count = valid.sum(dtype=jnp.int32)
  # One view may always have the point out of frame, unless there are only three.
  enough = jnp.minimum(jnp.minimum(min_views, count), jnp.maximum(count - 1, 3))
  return SilhouetteViews(
    coverage=coverage,
    quads=pack_quads(coverage),
    world_to_camera=jnp.asarray(world_to_camera, jnp.float32),
    intrinsics=jnp.asarray(intrinsics, jnp.float32),
    frames=jnp.asarray(frames, jnp.float32),
    valid=valid,
    min_views=enough,
    hidden=None if hidden is None else jnp.asarray(hidden, bool),
  )


def quantize(alphas: jax.Array) -> jax.Array:
  """Returns alphas in [0, 1] as uint8 coverage; uint8 alphas stay the same."""
  if alphas.dtype == jnp.uint8:
    return alphas
  return jnp.round(jnp.clip(alphas, 0.0, 1.0) * 255.0).astype(jnp.uint8)


def pack_quads(coverage: jax.Array) -> jax.Array:
  """Packs (V, H, W) uint8 into (V, H + 1, W + 1) uint32 of 2 x 2 neighbours, 0 off the image."""
  padded = jnp.pad(coverage, ((0, 0), (1, 1), (1, 1))).astype(jnp.uint32)
  top = padded[:, :-1, :-1] | padded[:, :-1, 1:] << 8
  return top | padded[:, 1:, :-1] << 16 | padded[:, 1:, 1:] << 24


def project_to_view(
  world_to_camera: jax.Array, intrinsics: jax.Array, points: jax.Array
) -> tuple[jax.Array, jax.Array, jax.Array]:
  """Projects points into one view.

  Args:
    world_to_camera: (4, 4).
    intrinsics: (4,) fx fy cx cy, pixels.
    points: (..., 3) world units.

  Returns:
    Pixel coordinates u, v (...) and camera depth z (...); behind the camera u and v are finite but
    meaningless.
  """
  x = rotate(world_to_camera, points) + world_to_camera[:3, 3]
  z = x[..., 2]
  inverse = 1.0 / jnp.where(z > 0, z, 1.0)
  u = intrinsics[0] * x[..., 0] * inverse + intrinsics[2]
  v = intrinsics[1] * x[..., 1] * inverse + intrinsics[3]
  return u, v, z


def _sample_quads(quads: jax.Array, u: jax.Array, v: jax.Array) -> jax.Array:
  """Samples packed coverage bilinearly at pixel coordinates u, v: in [0, 1], 0 off the image."""
  height, width = quads.shape[0] - 1, quads.shape[1] - 1
  column = jnp.clip(u + 0.5, 0.0, width + 0.999)
  row = jnp.clip(v + 0.5, 0.0, height + 0.999)
  left, top = jnp.floor(column), jnp.floor(row)
  a, b = column - left, row - top
  index = top.astype(jnp.int32) * (width + 1) + left.astype(jnp.int32)
  word = quads.reshape(-1).at[index].get(mode="promise_in_bounds")
  p00, p01, p10, p11 = (((word >> s) & 255).astype(jnp.float32) for s in (0, 8, 16, 24))
  upper, lower = p00 + a * (p01 - p00), p10 + a * (p11 - p10)
  return (upper + b * (lower - upper)) * (1.0 / 255.0)


def sample_view(view: SilhouetteViews, points: jax.Array) -> tuple[jax.Array, jax.Array]:
  """Samples the silhouette of one view, without its leading axis, at points (..., 3).

  Returns:
    Bilinear coverage (...) in [0, 1], and (...) bool, whether the point is in frame.
  """
  u, v, z = project_to_view(view.world_to_camera, view.intrinsics, points)
  x0, y0, x1, y1 = view.frames
  known = view.valid & (z > 0) & (u >= x0) & (u <= x1) & (v >= y0) & (v <= y1)
  # Half a pixel inside the frame, so that the sample blends in no unknown pixel.
  u, v = jnp.clip(u, x0 + 0.5, x1 - 0.5), jnp.clip(v, y0 + 0.5, y1 - 0.5)
  if view.hidden is not None:
    known &= ~_sample_nearest(view.hidden, u, v)
  return _sample_quads(view.quads, u, v), known


def _sample_nearest(image: jax.Array, u: jax.Array, v: jax.Array) -> jax.Array:
  """Samples an image (H, W) at the pixels that hold the coordinates u, v (...)."""
  height, width = image.shape
  column = jnp.clip(jnp.floor(u).astype(jnp.int32), 0, width - 1)
  row = jnp.clip(jnp.floor(v).astype(jnp.int32), 0, height - 1)
  return image.reshape(-1).at[row * width + column].get(mode="promise_in_bounds")


def scan_views(views: SilhouetteViews) -> SilhouetteViews:
  """Repeats `min_views` for every view, so that `lax.scan` can run over all fields."""
  repeated = jnp.broadcast_to(views.min_views, views.valid.shape)
  return dataclasses.replace(views, min_views=repeated)


def hull_field(views: SilhouetteViews, points: jax.Array) -> jax.Array:
  """Returns the hull field (...) in [0, 1] at points (..., 3): the smallest coverage of all views.

  Only views with the point in frame and not hidden count; a point that counts in fewer than
  `min_views` is empty. The surface of the hull is the 0.5 level.
  """

  def visit(carry: tuple[jax.Array, jax.Array], view: SilhouetteViews) -> tuple:
    lowest, seen = carry
    value, known = sample_view(view, points)
    return (jnp.minimum(lowest, jnp.where(known, value, 1.0)), seen + known), None

  shape = points.shape[:-1]
  start = (jnp.ones(shape, jnp.float32), jnp.zeros(shape, jnp.int32))
  (lowest, seen), _ = jax.lax.scan(visit, start, scan_views(views))
  return jnp.where(seen >= views.min_views, lowest, 0.0)


def dilate(images: jax.Array, radius_x: jax.Array, radius_y: jax.Array) -> jax.Array:
  """Returns the running maximum of images over windows of one size per view.

  The radii may be traced values: the window grows in steps until it is wide enough. Radii beyond
  the sum of `_DILATION_STEPS` are cut to that.

  Args:
    images: (V, H, W).
    radius_x: (V,) pixels to either side that a window covers at least.
    radius_y: (V,) likewise, up and down.
  """
  steps = jnp.asarray(_DILATION_STEPS)
  largest_step = max(_DILATION_STEPS)
  for axis, radius in ((2, radius_x), (1, radius_y)):
    size = images.shape[axis]
    padding = [(largest_step, largest_step) if a == axis else (0, 0) for a in range(3)]

    def wide_enough(state: tuple, radius: jax.Array = radius) -> jax.Array:
      return (state[0] < len(_DILATION_STEPS)) & (state[1] < radius.max())

    def grow(
      state: tuple, radius: jax.Array = radius, axis: int = axis, size: int = size,
      padding: list[tuple[int, int]] = padding,
    ) -> tuple:  # fmt: skip
      number, reach, now = state
      step = steps[number]
      padded = jnp.pad(now, padding)
      before = jax.lax.dynamic_slice_in_dim(padded, largest_step - step, size, axis)
      after = jax.lax.dynamic_slice_in_dim(padded, largest_step + step, size, axis)
      grown = jnp.maximum(now, jnp.maximum(before, after))
      return number + 1, reach + step, jnp.where((reach < radius)[:, None, None], grown, now)

    start = (jnp.int32(0), jnp.zeros((), steps.dtype), images)
    images = jax.lax.while_loop(wide_enough, grow, start)[2]
  return images
