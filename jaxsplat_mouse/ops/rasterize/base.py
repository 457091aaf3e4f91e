"""The contract that every rasterizer meets: options, inputs, outputs.

An implementation is two functions over one flat axis of I images, whatever batch of scenes and
views they came from:

    forward(bundle, options) -> channels, residuals, overflow (I,)
    backward(bundle, residuals, channels, gradient, options) -> gradient of bundle.features

`channels` are two arrays, the colour (I, 3, H, W), and all others (I, C - 1, H, W): the rest of the
C blended channels (`blend.num_channels`), then the final transmittance, then the median depth. The
colour stands alone because the photometric losses read it alone, plane by plane. Every residual has
the leading axis I, on which nothing else of its shape depends. Where `RESIDUALS_OF_BATCH` says that
residuals refer to each other across that axis, `backward` is given None for them when it runs on
another batch than `forward` did.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any, Protocol

import jax

Channels = tuple[jax.Array, jax.Array]

RASTER_IMPLEMENTATIONS = ("reference", "xla", "pallas")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
  """Static settings of one rasterization.

  Attributes:
    width: image width, pixels.
    height: image height, pixels.
    flat: discs (True) or ellipsoids.
    geometry: also blend depth, normals and the moments behind the distortion.
    capacity: splat-tile intersections kept per image; more are dropped from the far end and counted
      in `overflow`.
    tile_size: side of a square tile, pixels.
    alpha_max: ceiling of one splat's alpha (0.99 in Kerbl et al.; gsplat 1.5 has 0.999).
    interpret: run Pallas kernels in the interpreter (for hosts without a GPU).
  """

  width: int
  height: int
  flat: bool
  geometry: bool = True
  capacity: int = 1 << 17
  tile_size: int = 8
  alpha_max: float = 0.99
  interpret: bool = False

  @property
  def tiles_wide(self) -> int:
    """Tiles per row; the last one may reach past the image."""
    return math.ceil(self.width / self.tile_size)

  @property
  def tiles_high(self) -> int:
    """Tiles per column."""
    return math.ceil(self.height / self.tile_size)

  @property
  def num_tiles(self) -> int:
    """Tiles per image."""
    return self.tiles_wide * self.tiles_high


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class Bundle:
  """What a kernel needs of I images with N splats each.

  Attributes:
    features: (I, N, F) packed by `blend.pack`; the only differentiable input.
    depths: (I, N) sort keys.
    ellipses: (I, N, 6) as in `projection.Splats`.
    boxes: (I, N, 4) as in `projection.Splats`.
    reference: (I,) an inverse depth near the object, about which the moments of the inverse depth
      are taken so that their difference keeps its digits. Its value does not change the distortion.
    falloff: (I,) px^-2: exponent (base 2) of the screen-space filter of discs, per squared offset.
  """

  features: jax.Array
  depths: jax.Array
  ellipses: jax.Array
  boxes: jax.Array
  reference: jax.Array
  falloff: jax.Array


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class Image:
  """A composited image. Sums are over splats with weights w = alpha T; leading axes as the input's.

  Attributes:
    rgb: (H, W, 3) sum of w color, on black.
    transmittance: (H, W) what is left of the light behind the last splat; alpha = 1 - it.
    depth_sum: (H, W) sum of w depth (ray depth: camera z of the hit), 0 without geometry.
    median_depth: (H, W) depth of the last splat in front of which T > 0.5; 0 where there is none.
      Its gradient goes to the splat that takes T through 0.5.
    normal_sum: (H, W, 3) sum of w normal, world space.
    spread: (H, W) sum over pairs i < j of w_i w_j (1/d_i - 1/d_j)^2.
    overflow: () intersections that did not fit into `Options.capacity`.
  """

  rgb: jax.Array
  transmittance: jax.Array
  depth_sum: jax.Array
  median_depth: jax.Array
  normal_sum: jax.Array
  spread: jax.Array
  overflow: jax.Array


class Implementation(Protocol):
  """The two functions of a kernel module; see the module's docstring."""

  RESIDUALS_OF_BATCH: bool

  def forward(self, bundle: Bundle, options: Options) -> tuple[Channels, Any, jax.Array]:
    """Composites the images."""

  def backward(
    self,
    bundle: Bundle,
    residuals: Any,
    channels: Channels,
    gradient: Channels,
    options: Options,
  ) -> jax.Array:
    """Pulls the gradient of `channels` back to `bundle.features`."""
