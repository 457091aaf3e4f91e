"""The rasterization op: choice of implementation, differentiation and batching.

`rasterize` takes one image's splats. Under `jax.vmap`, nested as deep as one likes (scenes, then
views), every mapped axis is folded into one flat image axis, so that a whole batch is one sort
and one kernel launch; the fold happens inside the forward and the backward function of the custom
VJP alike.
"""

from __future__ import annotations

import dataclasses
import functools
import warnings
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp

from jaxsplat_mouse.ops.batching import fold_images
from jaxsplat_mouse.ops.rasterize import blend, reference, xla
from jaxsplat_mouse.ops.rasterize.base import (
  RASTER_IMPLEMENTATIONS,
  Bundle,
  Channels,
  Image,
  Options,
)
from jaxsplat_mouse.ops.rasterize.binning import sorts_packed
from jaxsplat_mouse.projection import Splats

_SMALL_TILES = 4
_MORE_ENTRIES = 1.5  # that these take over tiles of 8 pixels, of splats as wide as a fit's


def default_implementation() -> str:
  """`pallas` on a CUDA GPU, `xla` anywhere else."""
  return "pallas" if jax.default_backend() == "gpu" and _pallas_module() else "xla"


def suited(options: Options, implementation: str | None = None) -> Options:
  """The options with tiles that suit an implementation, and as much more room as these take.

  A CPU spends the same on every pixel of a tile, and splats are a few pixels wide: tiles of 4
  halve its work, where keys of 32 bits still hold their numbers. A GPU's warp fills tiles of 8.
  """
  if (implementation or default_implementation()) != "xla":
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
    implementation: `reference`, `xla` or `pallas`; None takes `default_implementation()`.

  Returns:
    the image. Gradients reach centers, shapes, opacities, colors, depths and normals; for the tiled
    implementations they stop at second order.

  Raises:
    ValueError: unknown implementation, or options that do not fit the splats.
  """
  implementation = implementation or default_implementation()
  if implementation not in RASTER_IMPLEMENTATIONS:
    raise ValueError(
      f"rasterize: implementation {implementation!r} is not in {RASTER_IMPLEMENTATIONS}"
    )
  if splats.flat != options.flat or splats.depths.ndim != 1:
    raise ValueError(
      f"rasterize: expected one image's splats with flat={options.flat}, got flat={splats.flat}, "
      f"depths {splats.depths.shape}; batch with jax.vmap"
    )
  bundle = to_bundle(splats, options)
  if implementation == "reference":
    together = reference.composite(jax.tree.map(lambda a: a[None], bundle), options)[0]
    channels = together[:3], together[3:]
    overflow = jnp.zeros((), jnp.int32)
  else:
    channels, overflow = _tiled(bundle, options, _served(implementation, options))
  return _to_image(channels, overflow, options)


def to_bundle(splats: Splats, options: Options) -> Bundle:
  """What the kernels take of one image's splats: a bundle without its image axis."""
  seen = splats.boxes[:, 2] >= splats.boxes[:, 0]
  middle = jnp.sum(jnp.where(seen, splats.depths, 0.0)) / jnp.maximum(seen.sum(), 1)
  return Bundle(
    features=blend.pack(splats, options.geometry),
    depths=jax.lax.stop_gradient(splats.depths),
    ellipses=splats.ellipses,
    boxes=splats.boxes,
    reference=jax.lax.stop_gradient(1.0 / jnp.where(middle > 0, middle, 1.0)),
    falloff=0.5 * blend.LOG2E / splats.low_pass,
  )


def _to_image(channels: Channels, overflow: jax.Array, options: Options) -> Image:
  colors, others = channels
  transmittance, median = others[-2], others[-1]
  zero = jnp.zeros_like(transmittance)
  depth, normal, spread = zero, jnp.zeros((*zero.shape, 3)), zero
  if options.geometry:
    depth, normal = others[0], jnp.moveaxis(others[1:4], 0, -1)
    # sum over pairs w_i w_j (m_i - m_j)^2 = (sum w)(sum w m^2) - (sum w m)^2
    spread = jnp.maximum((1.0 - transmittance) * others[5] - others[4] ** 2, 0.0)
  return Image(
    rgb=jnp.moveaxis(colors, 0, -1),
    transmittance=transmittance,
    depth_sum=depth,
    median_depth=median,
    normal_sum=normal,
    spread=spread,
    overflow=overflow,
  )


@functools.cache
def _pallas_module() -> Any:
  """The Pallas kernels, or None, said aloud, where this JAX cannot import them."""
  try:
    from jaxsplat_mouse.ops.rasterize import pallas
  except ImportError as error:
    warnings.warn(f"rasterize: no Pallas kernels here ({error}); using the XLA path", stacklevel=2)
    return None
  return pallas


def _module(implementation: str) -> Any:
  if implementation == "xla":
    return xla
  module = _pallas_module()
  if module is None:
    raise ValueError("rasterize: implementation 'pallas' needs a JAX with Pallas for Triton")
  return module


def _served(implementation: str, options: Options) -> str:
  """`implementation`, or `xla`, said aloud, where the image is too large for the kernels."""
  if implementation != "pallas" or _module("pallas").fits(1, options):
    return implementation
  warnings.warn(
    f"rasterize: {options.num_tiles} tiles of {options.tile_size} pixels with room for "
    f"{options.capacity} entries are too many for the Pallas kernels; using the XLA path",
    stacklevel=3,
  )
  return "xla"


@functools.partial(jax.custom_vjp, nondiff_argnums=(1, 2))
def _tiled(bundle: Bundle, options: Options, implementation: str) -> tuple[Channels, jax.Array]:
  channels, _, overflow = _folded("forward", options, implementation)(bundle)
  return channels, overflow


def _tiled_forward(bundle: Bundle, options: Options, implementation: str) -> Any:
  channels, residuals, overflow = _folded("forward", options, implementation)(bundle)
  return (channels, overflow), (bundle, residuals, channels)


def _tiled_backward(options: Options, implementation: str, saved: Any, gradients: Any) -> Any:
  bundle, residuals, channels = saved
  features = _folded("backward", options, implementation)(bundle, residuals, channels, gradients[0])
  zeros = jax.tree.map(jnp.zeros_like, bundle)
  return (Bundle(**{**vars(zeros), "features": features}),)


_tiled.defvjp(_tiled_forward, _tiled_backward)


def _folded(name: str, options: Options, implementation: str) -> Callable[..., Any]:
  """A kernel function for one image, whose vmaps become its image axis."""
  module = _module(implementation)
  bound = name == "backward" and module.RESIDUALS_OF_BATCH
  run = functools.partial(getattr(module, name), options=options)
  return fold_images(run, made_together=(1,) if bound else ())  # the residuals
