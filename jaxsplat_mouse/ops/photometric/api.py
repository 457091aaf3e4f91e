"""How far a render is from a photograph: L1 and SSIM together, one kernel forward and one back.

On a CUDA GPU both come out of one pass over the images (`photometric_pallas`), elsewhere from
`losses`. Under `jax.vmap`, nested as deep as one likes, mapped axes are folded into one image axis,
so that a whole batch is one launch. Kernels read planes (C, H, W), which is how the rasterizer
writes them: the transposes to (H, W, C) and back cancel.
"""

from __future__ import annotations

import functools
import warnings
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax

from jaxsplat_mouse import losses
from jaxsplat_mouse.ops.batching import fold_images
from jaxsplat_mouse.ops.rasterize.api import default_implementation

IMPLEMENTATIONS = ("xla", "pallas")


def photometric(
  x: jax.Array,
  y: jax.Array,
  observed: jax.Array | None = None,
  implementation: str | None = None,
  interpret: bool = False,
) -> tuple[jax.Array, jax.Array]:
  """L1 and SSIM of one image, as in `losses`; `jax.vmap` it over views and scenes.

  Args:
    x: the render (H, W, C); the only argument that receives a gradient.
    y: the photograph (H, W, C).
    observed: (H, W), see `losses`.
    implementation: `xla` or `pallas`; None takes that of the rasterizer.
    interpret: run the kernels interpreted.

  Returns:
    mean absolute difference () and mean structural similarity ().

  Raises:
    ValueError: unknown implementation.
  """
  implementation = implementation or default_implementation()
  if implementation not in IMPLEMENTATIONS:
    raise ValueError(f"photometric: implementation {implementation!r} is not in {IMPLEMENTATIONS}")
  if implementation == "pallas" and not _kernels():
    implementation = "xla"
  if implementation == "xla":
    return losses.l1(x, y, observed), losses.structural_similarity(x, y, observed)
  y = lax.stop_gradient(y)
  seen = None if observed is None else (observed > 0).astype(jnp.float32)
  planes = [jnp.moveaxis(a, -1, 0) for a in (losses.hide(x, y, observed), y)]
  l1, similarity = _sums(*planes, seen, interpret)
  pixels = jnp.float32(x.shape[0] * x.shape[1]) if seen is None else seen.sum()
  count = jnp.maximum(pixels, 1.0) * x.shape[-1]
  return l1 / count, similarity / count


@functools.cache
def _kernels() -> Any:
  """The kernels' module, or None, said aloud, where this JAX cannot import it."""
  try:
    from jaxsplat_mouse.ops.photometric import pallas
  except ImportError as error:
    warnings.warn(f"photometric: no Pallas kernels here ({error}); using XLA", stacklevel=3)
    return None
  return pallas


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def _sums(
  x: jax.Array, y: jax.Array, seen: jax.Array | None, interpret: bool
) -> tuple[jax.Array, jax.Array]:
  """Sums of |x - y| and of the SSIM map of one image (C, H, W) over the seen pixels (H, W)."""
  return _sums_forward(x, y, seen, interpret)[0]


def _sums_forward(x: jax.Array, y: jax.Array, seen: jax.Array | None, interpret: bool) -> Any:
  l1, similarity, kept = fold_images(functools.partial(_flat_sums, interpret=interpret))(x, y, seen)
  return (l1, similarity), (x, y, kept)


def _sums_backward(interpret: bool, saved: Any, cotangents: Any) -> Any:
  pull = fold_images(functools.partial(_flat_gradient, interpret=interpret))
  return pull(*saved, *cotangents), None, None


_sums.defvjp(_sums_forward, _sums_backward)


def _window(interpret: bool) -> Any:
  return _kernels().SsimWindow(losses.WINDOW, losses.SSIM_C1, losses.SSIM_C2, interpret)


def _flat_sums(x: jax.Array, y: jax.Array, seen: jax.Array | None, interpret: bool) -> Any:
  l1, similarity, kept = _kernels().sums(x, y, seen, _window(interpret))
  # Residuals lead with the image axis.
  strips, *partials = kept
  strips = jnp.moveaxis(strips, -1, 0).reshape(*x.shape[:2], *strips.shape[:2])
  return l1, similarity, (strips, *(a.reshape(x.shape) for a in partials))


def _flat_gradient(
  x: jax.Array, y: jax.Array, kept: Any, by_l1: jax.Array, by_ssim: jax.Array, interpret: bool
) -> jax.Array:
  strips, *partials = kept
  planes = x.shape[0] * x.shape[1]
  strips = jnp.moveaxis(strips.reshape(planes, *strips.shape[2:]), 0, -1)
  partials = [a.reshape(planes, *a.shape[2:]) for a in partials]
  window = _window(interpret)
  return _kernels().gradient(x, y, (strips, *partials), by_l1, by_ssim, window)
