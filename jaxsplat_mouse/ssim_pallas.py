"""Structural similarity and its gradient in two GPU passes that keep the window sums on chip.

A program owns some columns of an image's rows (H, W C), in which neighbouring pixels are C elements
apart, and walks down. Each row is weighed horizontally with shifted loads, which the first-level
cache serves, and enters the vertical sums of the rows around it. Those are a transposed FIR filter,
s_k <- s_(k+1) + g_k h: 10 registers and 11 multiply-adds per map take the place of 11 loads.

The first pass ends in the SSIM map, of which only the sum is kept, and in its derivatives in the
three window means; the second blurs those (the window is symmetric) and applies the chain rule.
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

_COLUMNS = 256  # elements of a row per program
_ROWS = 64  # rows per program
_WARPS = 4

Values = tuple[jax.Array, ...]


def ssim_sum(
  x: jax.Array,
  y: jax.Array,
  y_mean: jax.Array,
  seen: jax.Array,
  *,
  window: Sequence[float],
  c1: float,
  c2: float,
  interpret: bool = False,
) -> tuple[jax.Array, jax.Array]:
  """Sum () of the SSIM map over pixels with weight `seen`, and its gradient in x (H, W, C).

  Args:
    x: the render (H, W, C).
    y: the photograph (H, W, C).
    y_mean: (H, W, C) y blurred with the window.
    seen: (H, W) weights of the pixels' windows.
    window: an odd number of symmetric weights that sum to 1.
    c1: the constant of the luminance term.
    c2: the constant of the contrast term.
    interpret: run the kernels interpreted.
  """
  height, width, channels = x.shape
  rows = [a.reshape(height, width * channels) for a in (x, y, y_mean)]
  strip = functools.partial(_Strip, tuple(window), height, width * channels, channels)
  launch = functools.partial(_launch, height=height, elements=width * channels, interpret=interpret)
  plane = jax.ShapeDtypeStruct(rows[0].shape, jnp.float32)
  sums, *partials = launch(
    functools.partial(_similarity_kernel, strip=strip, c1=c1, c2=c2),
    (*rows, seen),
    (None, plane, plane, plane),
  )
  (gradient,) = launch(
    functools.partial(_gradient_kernel, strip=strip), (*partials, *rows[:2]), (plane,)
  )
  return sums.sum(), gradient.reshape(x.shape)


def _launch(
  kernel: Callable[..., None],
  inputs: Any,
  outputs: Any,
  *,
  height: int,
  elements: int,
  interpret: bool,
) -> Any:
  """Runs a grid of (columns, rows); None among the outputs stands for one number per program."""
  grid = (pl.cdiv(elements, _COLUMNS), pl.cdiv(height, _ROWS))
  numbers = jax.ShapeDtypeStruct(grid, jnp.float32)
  shapes = [numbers if a is None else a for a in outputs]
  whole = lambda a: pl.BlockSpec(a.shape, lambda *_: (0,) * len(a.shape))
  return pl.pallas_call(
    kernel,
    grid=grid,
    in_specs=[whole(a) for a in inputs],
    out_specs=[whole(a) for a in shapes],
    out_shape=shapes,
    compiler_params=plt.CompilerParams(num_warps=_WARPS, num_stages=1),
    interpret=interpret,
  )(*inputs)


class _Strip:
  """A program's columns and rows, and the weighing of rows around them."""

  def __init__(self, window: Sequence[float], height: int, elements: int, step: int) -> None:
    """Finds the program's strip of a plane (height, elements); neighbours are `step` apart."""
    self.window, self.height, self.elements, self.step = window, height, elements, step
    self.reach = len(window) // 2
    self.first = pl.program_id(1) * _ROWS
    self.column = pl.program_id(0) * _COLUMNS + lax.iota(jnp.int32, _COLUMNS)

  def load(self, plane: Any, row: jax.Array, shift: int = 0) -> jax.Array:
    """One row of the strip, moved by `shift` pixels; 0 beyond the plane."""
    column = self.column + shift * self.step
    inside = (column >= 0) & (column < self.elements) & (row >= 0) & (row < self.height)
    return plt.load(plane.at[row, column], mask=inside, other=0.0)

  def store(self, plane: Any, row: jax.Array, value: jax.Array) -> None:
    """Writes one row of the strip."""
    inside = (self.column < self.elements) & (row < self.height)
    plt.store(plane.at[row, self.column], value, mask=inside)

  def blur(
    self,
    maps: Callable[[jax.Array, int], Values],
    count: int,
    use: Callable[[jax.Array, Values, jax.Array], jax.Array],
  ) -> jax.Array:
    """Walks down the strip with blurred maps.

    Args:
      maps: (row, shift) -> `count` maps there, 0 beyond the plane.
      count: how many.
      use: (row, blurred maps of that row, total) -> total, for every row of the strip.

    Returns:
      the last total, which starts at 0.
    """
    zero = jnp.zeros((_COLUMNS,), jnp.float32)

    def enter(row: jax.Array, sums: tuple[Values, ...]) -> tuple[Values, tuple[Values, ...]]:
      across = [zero] * count
      for shift, weight in enumerate(self.window, -self.reach):
        values = maps(row, shift)
        across = [total + weight * value for total, value in zip(across, values, strict=True)]
      down = [
        [older + weight * h for older, weight in zip((*s, zero), self.window, strict=True)]
        for s, h in zip(sums, across, strict=True)
      ]
      return tuple(s[0] for s in down), tuple(tuple(s[1:]) for s in down)

    def finish(row: jax.Array, carry: Any) -> Any:
      sums, total = carry
      blurred, sums = enter(row + self.reach, sums)
      return sums, use(row, blurred, total)

    sums = ((zero,) * (2 * self.reach),) * count
    sums = lax.fori_loop(
      self.first - self.reach, self.first + self.reach, lambda r, s: enter(r, s)[1], sums
    )
    return lax.fori_loop(self.first, self.first + _ROWS, finish, (sums, zero))[1]


def _similarity_kernel(
  x: Any,
  y: Any,
  y_mean: Any,
  seen: Any,
  total: Any,
  by_mean: Any,
  by_square: Any,
  by_product: Any,
  *,
  strip: Callable[[], _Strip],
  c1: float,
  c2: float,
) -> None:
  """The map's sum, and seen times its derivatives in the means of d = x - y, of d^2 and of x y."""
  own = strip()

  def maps(row: jax.Array, shift: int) -> Values:
    a, b = own.load(x, row, shift), own.load(y, row, shift)
    return a - b, (a - b) * (a - b), a * b

  def use(row: jax.Array, blurred: Values, total: jax.Array) -> jax.Array:
    similarity, partials = similarity_map(*blurred, y_mean=own.load(y_mean, row), c1=c1, c2=c2)
    pixel = own.column // own.step
    inside = (own.column < own.elements) & (row < own.height)
    weight = plt.load(seen.at[row, pixel], mask=inside, other=0.0)
    for plane, partial in zip((by_mean, by_square, by_product), partials, strict=True):
      own.store(plane, row, weight * partial)
    return total + weight * similarity

  total[pl.program_id(0), pl.program_id(1)] = jnp.sum(own.blur(maps, 3, use))


def _gradient_kernel(
  by_mean: Any,
  by_square: Any,
  by_product: Any,
  x: Any,
  y: Any,
  gradient: Any,
  *,
  strip: Callable[[], _Strip],
) -> None:
  """Blurs the derivatives and applies the chain rule."""
  own = strip()

  def maps(row: jax.Array, shift: int) -> Values:
    return tuple(own.load(plane, row, shift) for plane in (by_mean, by_square, by_product))

  def use(row: jax.Array, blurred: Values, total: jax.Array) -> jax.Array:
    mean, square, product = blurred
    a, b = own.load(x, row), own.load(y, row)
    own.store(gradient, row, mean + 2.0 * (a - b) * square + b * product)
    return total

  own.blur(maps, 3, use)


def similarity_map(
  d_mean: jax.Array,
  d_squares: jax.Array,
  product: jax.Array,
  *,
  y_mean: jax.Array,
  c1: float,
  c2: float,
) -> tuple[jax.Array, Values]:
  """The SSIM map and its derivatives in the first three arguments, the means of d, d^2 and x y.

  Luminance and contrast are written as 1 - (mean d)^2 / A and 1 - (var d) / B, so that equal images
  give exactly 1 and no gradient.
  """
  x_mean = y_mean + d_mean
  luminance = 2.0 * x_mean * y_mean + c1
  contrast = 2.0 * (product - x_mean * y_mean) + c2
  mean_squared = d_mean * d_mean
  variance = d_squares - mean_squared
  a, b = 1.0 / (luminance + mean_squared), 1.0 / (contrast + variance)
  kept_luminance, lost_contrast = 1.0 - mean_squared * a, variance * b
  similarity = kept_luminance * (1.0 - lost_contrast)
  slope = (contrast - luminance) * (x_mean * (1.0 - similarity) - d_mean)
  slope += x_mean * similarity * (mean_squared - variance)
  partials = (2.0 * slope * a * b, -similarity * b, 2.0 * kept_luminance * lost_contrast * b)
  return similarity, partials
