"""Photographs and their cameras as tokens: patches of pixels, and where their rays are.

An animal covers a few percent of a photograph, so the patches that show none of it are left out,
save for a ring of one patch around it: a seventh of the tokens at 256 pixels.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
from jax import lax

from jaxsplat_mouse.cameras import Cameras, pixel_rays
from jaxsplat_mouse.learn.gslrm.architecture import Architecture
from jaxsplat_mouse.math import safe_divide, safe_normalize


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class PosedImages:
  """Photographs of one moment, or a batch of moments with a leading axis.

  Attributes:
    rgba: (..., V, H, W, 4) straight colour and alpha in [0, 1].
    cameras: (..., V) in the canonical frame: the animal lies within 1 of the origin.
  """

  rgba: jax.Array
  cameras: Cameras


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class Cells:
  """The cells of K patches, Q x Q each: squares of pixels that become one Gaussian.

  Attributes:
    origins: (K, 3) centres of the patches' cameras, world units.
    directions: (K, Q, Q, 3) unit vectors of the rays through the cells' centres.
    distances: (K, Q, Q) along these rays to the point nearest the world's origin, world units.
    footprints: (K, Q, Q) width of a cell at that distance, world units.
    colors: (K, Q, Q, 3) mean straight colour of the covered pixels.
    coverage: (K, Q, Q) mean alpha.
  """

  origins: jax.Array
  directions: jax.Array
  distances: jax.Array
  footprints: jax.Array
  colors: jax.Array
  coverage: jax.Array


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class Tokens:
  """What the network sees of one sample.

  Attributes:
    features: (K, F) numbers of a patch's pixels in the order row, column, channel.
    cells: of the same patches.
    count: () int32, the patches in use; they come first, the others fill up.
    dropped: () int32, covered patches for which there was no room.
  """

  features: jax.Array
  cells: Cells
  count: jax.Array
  dropped: jax.Array


def embed_inputs(images: PosedImages, architecture: Architecture) -> Tokens:
  """Cuts the photographs of one sample into patches and chooses those that the network sees.

  Args:
    images: (V,) photographs.
    architecture: patch, stride and number of tokens. Without a limit all patches are tokens, in the
      order view, row, column.

  Raises:
    ValueError: a side of the photographs is no multiple of the patch.
  """
  patch = architecture.patch
  if images.cameras.height % patch or images.cameras.width % patch:
    size = f"{images.cameras.width} x {images.cameras.height}"
    raise ValueError(f"photographs of {size} pixels: expected multiples of the patch, {patch}")
  features = _cut(_pixel_features(images, architecture), patch)
  cells = _cells(images, architecture)
  total = features.shape[0]
  features = features.reshape(total, -1)
  if architecture.max_tokens == 0:
    everything, none = jnp.asarray(total, jnp.int32), jnp.zeros((), jnp.int32)
    return Tokens(features=features, cells=cells, count=everything, dropped=none)
  score = _patch_scores(images.rgba[..., 3], patch)
  best, index = lax.top_k(score, min(architecture.max_tokens, total))
  covered = (score >= 1.0).sum()
  return Tokens(
    features=features[index] * (best > 0)[:, None],
    cells=jax.tree.map(lambda leaf: leaf[index], cells),
    count=(best > 0).sum(),
    dropped=jnp.maximum(covered - index.shape[0], 0),
  )


def _pixel_features(images: PosedImages, architecture: Architecture) -> jax.Array:
  """(V, H, W, C): colour on white, unit direction, nearest point to the origin, and alpha."""
  origins, directions = _unit_rays(images.cameras)
  alphas = images.rgba[..., 3:]
  white = images.rgba[..., :3] * alphas + (1.0 - alphas)
  nearest = origins + _distances(origins, directions)[..., None] * directions
  parts = [2.0 * white - 1.0, directions, nearest]
  if not architecture.facelift:  # White fur before white would otherwise be background.
    parts.append(2.0 * alphas - 1.0)
  return jnp.concatenate(parts, -1)


def _unit_rays(cameras: Cameras) -> tuple[jax.Array, jax.Array]:
  """Origins (V, 1, 1, 3) and unit directions (V, H, W, 3) of the rays of V cameras."""
  origins, directions = jax.vmap(pixel_rays)(cameras)
  return origins[:, None, None], safe_normalize(directions)


def _distances(origins: jax.Array, directions: jax.Array) -> jax.Array:
  """Distances (V, H, W) along unit rays to the point nearest the world's origin."""
  return -(origins * directions).sum(-1)


def _cells(images: PosedImages, architecture: Architecture) -> Cells:
  """The cells of all patches, in the order view, row, column."""
  stride, size = architecture.stride, architecture.cells
  cameras = images.cameras.resized(images.cameras.width // stride, images.cameras.height // stride)
  origins, directions = _unit_rays(cameras)
  distances = _distances(origins, directions)
  alphas = images.rgba[..., 3:]
  coverage = _pool(alphas, stride)
  # 1e-6 is far below the coverage of a cell with a single faint pixel of an 8-bit photograph.
  colors = safe_divide(_pool(images.rgba[..., :3] * alphas, stride), coverage, 1e-6)
  patches = distances[:, ::size, ::size]  # one number a patch
  centers = jnp.broadcast_to(origins, (*patches.shape, 3))
  return Cells(
    origins=centers.reshape(-1, 3),
    directions=_cut(directions, size),
    distances=_cut(distances, size),
    footprints=_cut(distances / cameras.intrinsics[:, None, None, 0], size),
    colors=_cut(colors, size),
    coverage=_cut(coverage[..., 0], size),
  )


def _pool(values: jax.Array, size: int) -> jax.Array:
  """Means of values (V, H, W, C) over squares of `size` pixels."""
  views, height, width, channels = values.shape
  squares = values.reshape(views, height // size, size, width // size, size, channels)
  return squares.mean((2, 4))


def _cut(values: jax.Array, size: int) -> jax.Array:
  """Cuts values (V, H, W, ...) into (P, size, size, ...), in the order view, row, column."""
  views, height, width, *rest = values.shape
  split = values.reshape(views, height // size, size, width // size, size, *rest)
  return jnp.swapaxes(split, 2, 3).reshape(-1, size, size, *rest)


def _patch_scores(alphas: jax.Array, patch: int) -> jax.Array:
  """Ranks (P,) of patches: above 1 with coverage, below it beside one with coverage, else 0.

  Args:
    alphas: (V, H, W).
    patch: side, pixels.
  """
  window = (1, patch, patch)
  highest = lax.reduce_window(alphas, 0.0, lax.max, window, window, "VALID")
  around = lax.reduce_window(highest, 0.0, lax.max, (1, 3, 3), (1, 1, 1), "SAME")
  return jnp.where(highest > 0, 1.0 + highest, 0.5 * around).reshape(-1)
