"""The rasterization operation: splats of one image in, the composited image out.

Under `jax.vmap`, nested as deep as one likes (scenes, then views), a whole batch is one sort and
one kernel launch: see `base.with_gradient`.
"""

from __future__ import annotations

import dataclasses
import warnings

import jax
import jax.numpy as jnp

from jaxsplat_mouse.ops.implementation_registry import ImplementationRegistry
from jaxsplat_mouse.ops.rasterize import blend
from jaxsplat_mouse.ops.rasterize.base import Bundle, Channels, Image, Implementation, Options
from jaxsplat_mouse.ops.rasterize.binning import sorts_packed
from jaxsplat_mouse.projection import Splats

IMPLEMENTATIONS = ImplementationRegistry(
  "rasterize",
  {name: f"jaxsplat_mouse.ops.rasterize.{name}" for name in ("reference", "xla", "pallas")},
)

_SMALL_TILES = 4
_MORE_ENTRIES = 1.5  # entries in small tiles over those in tiles of 8 pixels, in a typical fit


def suited(options: Options, implementation: str | None = None) -> Options:
  """Returns the options with tiles that suit an implementation, and more capacity if they need it.

  A CPU spends the same on every pixel of a tile, and splats are a few pixels wide: tiles of 4
  halve its work, where keys of 32 bits still hold their numbers. A GPU's warp fills tiles of 8.

  Args:
    options: for tiles of 8 pixels.
    implementation: as in `rasterize`.
  """
  if IMPLEMENTATIONS.choose(implementation) != "xla":
    return options
  small = dataclasses.replace(
    options, tile_size=_SMALL_TILES, capacity=int(_MORE_ENTRIES * options.capacity)
  )
  return small if sorts_packed(small) else options


def rasterize(splats: Splats, options: Options, implementation: str | None = None) -> Image:
  """Composites the splats of one image; `jax.vmap` it over views and scenes.

  Args:
    splats: (N,) splats as `projection.project` returns them.
    options: image size, outputs, capacity; `options.flat` must agree with the splats.
    implementation: `reference`, `xla` or `pallas`; None takes the default of the registry.

  Returns:
    the image. Gradients reach centers, shapes, opacities, colors, depths and normals; for the tiled
    implementations they stop at second order.

  Raises:
    ValueError: the implementation is unknown or cannot be imported, or the options do not fit the
      splats.
  """
  module = _find(implementation, options)
  if splats.flat != options.flat or splats.depths.ndim != 1:
    raise ValueError(
      f"rasterize: expected one image's splats with flat={options.flat}, got flat={splats.flat}, "
      f"depths {splats.depths.shape}; batch with jax.vmap"
    )
  bundle = to_bundle(splats, options)
  channels, overflow = module.composite_image(bundle, options)
  return _to_image(channels, overflow, options)


def _find(name: str | None, options: Options) -> Implementation:
  """The implementation, or the XLA path, with a warning, where the image is too large for it."""
  module: Implementation = IMPLEMENTATIONS.load(IMPLEMENTATIONS.choose(name))
  if module.fits(options):
    return module
  warnings.warn(
    f"rasterize: {options.num_tiles} tiles of {options.tile_size} pixels with room for "
    f"{options.capacity} entries are too many for the Pallas kernels; using the XLA path",
    stacklevel=3,
  )
  xla: Implementation = IMPLEMENTATIONS.load("xla")
  return xla


def to_bundle(splats: Splats, options: Options) -> Bundle:
  """Packs one image's splats for the kernels: a bundle without its image axis."""
  visible = splats.visible
  middle = jnp.sum(jnp.where(visible, splats.depths, 0.0)) / jnp.maximum(visible.sum(), 1)
  return Bundle(
    features=blend.pack(splats, options.geometry),
    depths=jax.lax.stop_gradient(splats.depths),
    ellipses=splats.ellipses,
    boxes=splats.boxes,
    reference=jax.lax.stop_gradient(1.0 / jnp.where(middle > 0, middle, 1.0)),
    falloff=0.5 * blend.LOG2E / splats.low_pass,
  )


def _to_image(channels: Channels, overflow: jax.Array, options: Options) -> Image:
  """Turns one image's channels into maps with the channel last."""
  layout, others = options.channel_layout.behind_color, channels.others
  transmittance, median = others[layout.transmittance], others[layout.median_depth]
  zero = jnp.zeros_like(transmittance)
  depth, normal, spread = zero, jnp.zeros((*zero.shape, 3)), zero
  if options.geometry:
    depth, normal = others[layout.depth], jnp.moveaxis(others[layout.normal], 0, -1)
    # sum over pairs w_i w_j (m_i - m_j)^2 = (sum w)(sum w m^2) - (sum w m)^2
    square = (1.0 - transmittance) * others[layout.squared_moment]
    spread = jnp.maximum(square - others[layout.moment] ** 2, 0.0)
  return Image(
    rgb=jnp.moveaxis(channels.colors, 0, -1),
    transmittance=transmittance,
    depth_sum=depth,
    median_depth=median,
    normal_sum=normal,
    spread=spread,
    overflow=overflow,
  )
