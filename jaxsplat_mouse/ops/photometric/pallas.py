"""L1 and structural similarity in one GPU pass, and the gradient of both in another.

A program owns some columns and rows of a plane (one channel of one image) and walks down. It blurs
each row horizontally with shifted loads, which the first-level cache serves, and adds it to the
vertical sums of the rows around it. Those are a transposed FIR filter, s_k <- s_(k+1) + g_k h: 10
registers and 11 multiply-adds per map take the place of 11 loads.

The first pass ends in the SSIM map, of which only the sum is kept, and in its derivatives in the
three window means, the only maps that are stored; the second blurs those (the window is symmetric)
and applies the chain rule. Where render and photograph are equal, most of a frame around an animal,
similarity is 1, all derivatives that matter are 0, and a program ends after comparing the two.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.experimental import pallas as pl
from jax.experimental.pallas import triton as plt

from jaxsplat_mouse import losses
from jaxsplat_mouse.ops.batching import fold_images
from jaxsplat_mouse.ops.pallas_math import fma

_COLUMNS = 128  # of a plane per program
_ROWS = 32
_WARPS = 4

_Values = tuple[jax.Array, ...]


def compare_image(
  x: jax.Array, y: jax.Array, observed: jax.Array | None, interpret: bool
) -> tuple[jax.Array, jax.Array]:
  """See `api.photometric`.

  Kernels read planes (C, H, W), which is how the rasterizer writes them: the transposes to
  (H, W, C) and back cancel.
  """
  y = lax.stop_gradient(y)
  seen = None if observed is None else (observed > 0).astype(jnp.float32)
  planes = [jnp.moveaxis(a, -1, 0) for a in (losses.hide(x, y, observed), y)]
  l1, similarity = _sums_of_image(*planes, seen, interpret)
  pixels = jnp.float32(x.shape[0] * x.shape[1]) if seen is None else seen.sum()
  count = jnp.maximum(pixels, 1.0) * x.shape[-1]
  return l1 / count, similarity / count


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def _sums_of_image(
  x: jax.Array, y: jax.Array, seen: jax.Array | None, interpret: bool
) -> tuple[jax.Array, jax.Array]:
  """Sums of |x - y| and of the SSIM map of one image (C, H, W) over the seen pixels (H, W)."""
  return _forward(x, y, seen, interpret)[0]


def _forward(x: jax.Array, y: jax.Array, seen: jax.Array | None, interpret: bool) -> Any:
  run = fold_images(functools.partial(_flat_sums, interpret=interpret))
  l1, similarity, kept = run(x, y, seen)
  return (l1, similarity), (x, y, kept)


def _backward(interpret: bool, saved: Any, cotangents: Any) -> Any:
  pull = fold_images(functools.partial(_flat_gradient, interpret=interpret))
  return pull(*saved, *cotangents), None, None


_sums_of_image.defvjp(_forward, _backward)


def _window(interpret: bool) -> SsimWindow:
  return SsimWindow(losses.WINDOW, interpret)


def _flat_sums(x: jax.Array, y: jax.Array, seen: jax.Array | None, interpret: bool) -> Any:
  """`sums` of I images, with residuals that lead with the image axis."""
  l1, similarity, kept = sums(x, y, seen, _window(interpret))
  strips, *partials = kept
  strips = jnp.moveaxis(strips, -1, 0).reshape(*x.shape[:2], *strips.shape[:2])
  return l1, similarity, (strips, *(a.reshape(x.shape) for a in partials))


def _flat_gradient(
  x: jax.Array, y: jax.Array, kept: Any, by_l1: jax.Array, by_ssim: jax.Array, interpret: bool
) -> jax.Array:
  """`gradient` of I images, from the residuals of `_flat_sums`."""
  strips, *partials = kept
  planes = x.shape[0] * x.shape[1]
  strips = jnp.moveaxis(strips.reshape(planes, *strips.shape[2:]), 0, -1)
  partials = [a.reshape(planes, *a.shape[2:]) for a in partials]
  return gradient(x, y, (strips, *partials), by_l1, by_ssim, _window(interpret))


class SsimWindow:
  """The symmetric window of SSIM, and whether to run interpreted."""

  def __init__(self, weights: Sequence[float], interpret: bool) -> None:
    """Keeps the settings.

    Args:
      weights: an odd number of them, which sum to 1.
      interpret: run interpreted.
    """
    self.weights, self.interpret = tuple(weights), interpret
    self.reach = len(self.weights) // 2


def sums(
  x: jax.Array, y: jax.Array, seen: jax.Array | None, window: SsimWindow
) -> tuple[jax.Array, jax.Array, Any]:
  """Sums |x - y| and the SSIM map of each image, the latter with weight `seen`.

  Args:
    x: renders (I, C, H, W), equal to y where not seen.
    y: photographs (I, C, H, W).
    seen: (I, H, W) weights of the pixels' windows; None: all 1.
    window: of SSIM.

  Returns:
    both sums (I,), and the residuals of `gradient`.
  """
  planes = _Planes(x)
  numbers = jax.ShapeDtypeStruct(planes.grid, jnp.float32)
  maps = [jax.ShapeDtypeStruct(planes.shape, jnp.float32)] * 3
  l1, similarity, *partials = planes.launch(
    functools.partial(
      _similarity_kernel, window=window, channels=x.shape[1], masked=seen is not None
    ),
    (planes.flat(x), planes.flat(y), *([] if seen is None else [seen])),
    (numbers, numbers, *maps),
    window,
  )
  total = lambda a: a.sum((0, 1)).reshape(x.shape[:2]).sum(1)
  return total(l1), total(similarity), (l1, *partials)


def gradient(
  x: jax.Array,
  y: jax.Array,
  kept: Any,
  by_l1: jax.Array,
  by_similarity: jax.Array,
  window: SsimWindow,
) -> jax.Array:
  """Returns dL/dx (I, C, H, W).

  Args:
    x: as in `sums`.
    y: likewise.
    kept: residuals of `sums`.
    by_l1: (I,) dL/d(sum of |x - y|).
    by_similarity: (I,) dL/d(sum of the SSIM map).
    window: as in `sums`.
  """
  planes = _Planes(x)
  l1, *partials = kept
  (result,) = planes.launch(
    functools.partial(_gradient_kernel, window=window, channels=x.shape[1]),
    (planes.flat(x), planes.flat(y), l1, *partials, by_l1, by_similarity),
    (jax.ShapeDtypeStruct(planes.shape, jnp.float32),),
    window,
  )
  return result.reshape(x.shape)


class _Planes:
  """Images (I, C, H, W) as planes (I C, H, W), and the grid of programs over them."""

  def __init__(self, images: jax.Array) -> None:
    self.shape = (images.shape[0] * images.shape[1], *images.shape[2:])
    planes, height, width = self.shape
    self.grid = (pl.cdiv(width, _COLUMNS), pl.cdiv(height, _ROWS), planes)

  def flat(self, images: jax.Array) -> jax.Array:
    """The images as planes."""
    return images.reshape(self.shape)

  def launch(
    self, kernel: Callable[..., None], inputs: Any, outputs: Any, window: SsimWindow
  ) -> list[jax.Array]:
    """Runs a program per (columns, rows, plane), which sees every operand whole."""
    whole = lambda a: pl.BlockSpec(a.shape, lambda *_: (0,) * len(a.shape))
    return pl.pallas_call(
      kernel,
      grid=self.grid,
      in_specs=[whole(a) for a in inputs],
      out_specs=[whole(a) for a in outputs],
      out_shape=list(outputs),
      compiler_params=plt.CompilerParams(num_warps=_WARPS, num_stages=1),
      interpret=window.interpret,
    )(*inputs)


class _Strip:
  """A program's columns and rows, and the blur of the rows around them."""

  def __init__(self, shape: tuple[int, int, int], window: SsimWindow) -> None:
    """Finds the program's strip of planes (P, H, W)."""
    _, self.height, self.width = shape
    self.window, self.plane = window, pl.program_id(2)
    self.place = tuple(pl.program_id(k) for k in range(3))
    self.first = pl.program_id(1) * _ROWS
    self.column = pl.program_id(0) * _COLUMNS + lax.iota(jnp.int32, _COLUMNS)

  def load(self, planes: Any, row: jax.Array, shift: int = 0) -> jax.Array:
    """One row of the strip, moved by `shift` columns; 0 beyond the plane."""
    return self.load_at(planes, self.plane, row, shift)

  def load_at(self, planes: Any, plane: Any, row: jax.Array, shift: int = 0) -> jax.Array:
    """`load` of any plane."""
    column = self.column + shift
    inside = (column >= 0) & (column < self.width) & (row >= 0) & (row < self.height)
    return plt.load(planes.at[plane, row, column], mask=inside, other=0.0)

  def store(self, planes: Any, row: jax.Array, value: jax.Array) -> None:
    """Writes one row of the strip."""
    inside = (self.column < self.width) & (row < self.height)
    plt.store(planes.at[self.plane, row, self.column], value, mask=inside)

  def clear(self, planes: Sequence[Any]) -> None:
    """Writes zeros into the strip."""

    def row(index: jax.Array, _: Any) -> None:
      for plane in planes:
        self.store(plane, index, jnp.zeros((_COLUMNS,), jnp.float32))

    lax.fori_loop(self.first, self.first + _ROWS, row, None)

  def differs(self, x: Any, y: Any) -> jax.Array:
    """Whether x and y differ anywhere in the windows of the strip's pixels."""

    def row(index: jax.Array, found: jax.Array) -> jax.Array:
      for shift in (-self.window.reach, self.window.reach):
        unequal = self.load(x, index, shift) != self.load(y, index, shift)
        found = jnp.maximum(found, unequal.astype(jnp.int32))
      return found

    reach = self.window.reach
    rows = self.first - reach, self.first + _ROWS + reach
    return jnp.max(lax.fori_loop(*rows, row, jnp.zeros((_COLUMNS,), jnp.int32))) > 0

  def fma(self, a: jax.Array | float, b: jax.Array, c: jax.Array) -> jax.Array:
    """a b + c."""
    return fma(a, b, c, self.window.interpret)

  def blur(
    self,
    across: Callable[[jax.Array], _Values],
    count: int,
    use: Callable[[jax.Array, _Values, Any], Any],
    total: Any,
  ) -> Any:
    """Walks down the strip with blurred maps.

    Args:
      across: row -> `count` maps there, blurred horizontally.
      count: number of maps.
      use: (row, blurred maps of that row, total) -> total, for every row of the strip.
      total: to start from.

    Returns:
      the last total.
    """
    reach, zero = self.window.reach, jnp.zeros((_COLUMNS,), jnp.float32)

    def enter(row: jax.Array, totals: tuple[_Values, ...]) -> tuple[_Values, tuple[_Values, ...]]:
      down = [
        [self.fma(w, h, older) for older, w in zip((*s, zero), self.window.weights, strict=True)]
        for s, h in zip(totals, across(row), strict=True)
      ]
      return tuple(s[0] for s in down), tuple(tuple(s[1:]) for s in down)

    def finish(row: jax.Array, carry: Any) -> Any:
      totals, total = carry
      blurred, totals = enter(row + reach, totals)
      return totals, use(row, blurred, total)

    totals = ((zero,) * (2 * reach),) * count
    totals = lax.fori_loop(
      self.first - reach, self.first + reach, lambda r, s: enter(r, s)[1], totals
    )
    return lax.fori_loop(self.first, self.first + _ROWS, finish, (totals, total))[1]


def _similarity_kernel(
  x: Any, y: Any, *refs: Any, window: SsimWindow, channels: int, masked: bool
) -> None:
  """Writes both sums, and seen times SSIM's slopes in the means of d = x - y, of d^2 and of x y."""
  *seen, l1, similarity, by_mean, by_square, by_product = refs
  partials = by_mean, by_square, by_product
  own = _Strip(x.shape, window)
  zero = jnp.zeros((_COLUMNS,), jnp.float32)

  def weight(row: jax.Array) -> jax.Array:
    if masked:
      return own.load_at(seen[0], own.plane // channels, row)
    return jnp.where((own.column < own.width) & (row < own.height), 1.0, 0.0)

  def across(row: jax.Array) -> _Values:
    d_mean = squares = product = y_mean = zero
    for shift, w in enumerate(window.weights, -window.reach):
      a, b = own.load(x, row, shift), own.load(y, row, shift)
      d = a - b
      d_mean, y_mean = own.fma(w, d, d_mean), own.fma(w, b, y_mean)
      squares, product = own.fma(w * d, d, squares), own.fma(w * a, b, product)
    return d_mean, squares, product, y_mean

  def use(row: jax.Array, blurred: _Values, total: _Values) -> _Values:
    value, slopes = losses.similarity_map(*blurred)
    w = weight(row)
    for planes, slope in zip(partials, slopes, strict=True):
      own.store(planes, row, w * slope)
    apart = jnp.abs(own.load(x, row) - own.load(y, row))
    return total[0] + apart, own.fma(w, value, total[1])

  def store(totals: _Values) -> None:
    l1[own.place], similarity[own.place] = jnp.sum(totals[0]), jnp.sum(totals[1])

  differs = own.differs(x, y)

  @pl.when(differs)
  def _() -> None:
    store(own.blur(across, 4, use, (zero, zero)))

  @pl.when(jnp.logical_not(differs))
  def _() -> None:
    rows = own.first, own.first + _ROWS
    store((zero, lax.fori_loop(*rows, lambda row, total: total + weight(row), zero)))
    own.clear(partials)


def _gradient_kernel(
  x: Any,
  y: Any,
  l1: Any,
  by_mean: Any,
  by_square: Any,
  by_product: Any,
  by_l1: Any,
  by_similarity: Any,
  result: Any,
  *,
  window: SsimWindow,
  channels: int,
) -> None:
  """Blurs the derivatives and applies the chain rule."""
  own = _Strip(x.shape, window)
  image = own.plane // channels
  weights = by_l1[image], by_similarity[image]
  zero = jnp.zeros((_COLUMNS,), jnp.float32)

  def across(row: jax.Array) -> _Values:
    totals = [zero] * 3
    for shift, w in enumerate(window.weights, -window.reach):
      maps = (own.load(planes, row, shift) for planes in (by_mean, by_square, by_product))
      totals = [own.fma(w, value, total) for value, total in zip(maps, totals, strict=True)]
    return tuple(totals)

  def use(row: jax.Array, blurred: _Values, _: None) -> None:
    mean, square, product = blurred
    b = own.load(y, row)
    d = own.load(x, row) - b
    of_similarity = own.fma(2.0 * d, square, own.fma(b, product, mean))
    sign = jnp.where(d > 0, 1.0, jnp.where(d < 0, -1.0, 0.0))
    own.store(result, row, own.fma(weights[1], of_similarity, weights[0] * sign))

  near = _near(l1, own)

  @pl.when(near)
  def _() -> None:
    own.blur(across, 3, use, None)

  @pl.when(jnp.logical_not(near))
  def _() -> None:
    own.clear([result])


def _near(l1: Any, own: _Strip) -> jax.Array:
  """Whether x and y differ in the program's strip or in one beside it.

  Windows of windows reach no farther: 10 pixels.
  """
  neighbor = lax.iota(jnp.int32, 16)
  across, down = own.place[0] + neighbor % 4 - 1, own.place[1] + neighbor // 4 - 1
  inside = (neighbor % 4 < 3) & (neighbor // 4 < 3)
  inside &= (across >= 0) & (across < l1.shape[0]) & (down >= 0) & (down < l1.shape[1])
  sums = plt.load(l1.at[across, down, own.plane], mask=inside, other=0.0)
  return jnp.max((sums != 0).astype(jnp.int32)) > 0
