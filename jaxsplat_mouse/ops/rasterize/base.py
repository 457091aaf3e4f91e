"""The contract of the rasterizers: options, inputs, outputs, differentiation.

An implementation is a module with two functions:

    composite_image(bundle, options) -> channels, overflow ()     one image; map it with `jax.vmap`
    fits(options) -> whether it can composite an image of this size

The tiled ones make the first from a forward and a backward pass over one flat axis of I images,
whatever batch of scenes and views these came from (see `with_gradient`):

    forward(bundle, options) -> channels, residuals, overflow (I,)
    backward(bundle, residuals, channels, gradient, options) -> gradient of bundle.features

Every residual has the leading axis I, on which nothing else of its shape depends.
"""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple, Protocol

import jax
import jax.numpy as jnp

from jaxsplat_mouse.ops.batching import fold_images
from jaxsplat_mouse.ops.rasterize.layout import NUM_COLORS, ChannelLayout, FeatureLayout

ALPHA_MAX = 0.99  # ceiling of one splat's alpha (Kerbl et al. 2023; gsplat 1.5 has 0.999)


class Channels(NamedTuple):
  """The channels of `layout.ChannelLayout` as two arrays, with or without an image axis I in front.

  The colour stands alone because the photometric losses read it alone, plane by plane.

  Attributes:
    colors: (3, H, W).
    others: (C - 1, H, W) the other blended channels, the transmittance and the median depth.
  """

  colors: jax.Array
  others: jax.Array

  @classmethod
  def split(cls, planes: jax.Array) -> Channels:
    """Splits all channels (..., C + 2, H, W) in two."""
    return cls(planes[..., :NUM_COLORS, :, :], planes[..., NUM_COLORS:, :, :])


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
    alpha_max: ceiling of one splat's alpha; another than `ALPHA_MAX` is for comparisons only.
    interpret: run Pallas kernels in the interpreter (for hosts without a GPU).
  """

  width: int
  height: int
  flat: bool
  geometry: bool = True
  capacity: int = 1 << 17
  tile_size: int = 8
  alpha_max: float = ALPHA_MAX
  interpret: bool = False

  @property
  def feature_layout(self) -> FeatureLayout:
    """Where a packed splat's features stand."""
    return FeatureLayout(self.flat, self.geometry)

  @property
  def channel_layout(self) -> ChannelLayout:
    """Where a pixel's channels stand."""
    return ChannelLayout(self.geometry)

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
  """What the kernels read of I images with N splats each; of one image without the axis I.

  Attributes:
    features: (I, N, F) packed by `blend.pack`; the only input that receives a gradient.
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


class Forward(Protocol):
  """Composites I images; see the module."""

  def __call__(self, bundle: Bundle, options: Options) -> tuple[Channels, Any, jax.Array]:
    """Returns channels, residuals and overflow (I,)."""


class Backward(Protocol):
  """Pulls the gradient of the channels back; see the module."""

  def __call__(
    self,
    bundle: Bundle,
    residuals: Any,
    channels: Channels,
    gradient: Channels,
    options: Options,
  ) -> jax.Array:
    """Returns the gradient of the features."""


class Implementation(Protocol):
  """A module of this folder that composites splats; see the docstring above."""

  def composite_image(self, bundle: Bundle, options: Options) -> tuple[Channels, jax.Array]:
    """Composites one image; returns its channels and overflow ()."""

  def fits(self, options: Options) -> bool:
    """Whether an image of this size can be composited."""


def with_gradient(
  forward: Forward, backward: Backward, residuals_of_batch: bool = False
) -> Callable[[Bundle, Options], tuple[Channels, jax.Array]]:
  """Makes `Implementation.composite_image` of a forward and a backward pass.

  Every mapped axis is folded into the axis I of both passes, so that a batch, however nested, is
  one launch.

  Args:
    forward: composites I images; see the module.
    backward: pulls the gradient of the channels back to the features; see the module.
    residuals_of_batch: residuals refer to each other across the axis I; `backward` then receives
      None for them when it runs on another batch than `forward` did.

  Returns:
    the function of one image, with a gradient of first order.
  """
  made_together = (1,) if residuals_of_batch else ()  # the residuals

  @functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
  def composite_image(bundle: Bundle, options: Options) -> tuple[Channels, jax.Array]:
    channels, _, overflow = fold_images(functools.partial(forward, options=options))(bundle)
    return channels, overflow

  def run_forward(bundle: Bundle, options: Options) -> Any:
    folded = fold_images(functools.partial(forward, options=options))
    channels, residuals, overflow = folded(bundle)
    return (channels, overflow), (bundle, residuals, channels)

  def run_backward(options: Options, saved: Any, gradients: Any) -> tuple[Bundle]:
    bundle, residuals, channels = saved
    pull = fold_images(functools.partial(backward, options=options), made_together)
    features = pull(bundle, residuals, channels, gradients[0])
    return (dataclasses.replace(jax.tree.map(jnp.zeros_like, bundle), features=features),)

  composite_image.defvjp(run_forward, run_backward)
  return composite_image
