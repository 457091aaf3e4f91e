"""Single GPU instructions for the bodies of Pallas kernels.

XLA compiles Triton kernels with strict rounding: a product and a sum stay two instructions unless
the kernel asks for one. `fma` does; that takes a third off the rasterizer's arithmetic.
"""

from __future__ import annotations

from collections.abc import Sequence

import jax
import jax.numpy as jnp
from jax.experimental.pallas import triton as plt

WARP = 32

_PLAIN = {"ex2": jnp.exp2, "lg2": jnp.log2, "rcp": lambda x: 1.0 / x}


def fma(a: jax.Array | float, b: jax.Array | float, c: jax.Array, interpret: bool) -> jax.Array:
  """Returns a b + c with one rounding, in float32.

  Args:
    a: shapes are broadcast against each other.
    b: likewise.
    c: likewise.
    interpret: run interpreted; the result is then rounded twice.
  """
  if interpret:
    return a * b + c
  shape = jnp.broadcast_shapes(jnp.shape(a), jnp.shape(b), jnp.shape(c))
  args = [jnp.broadcast_to(jnp.asarray(v, jnp.float32), shape) for v in (a, b, c)]
  return _instruction("fma.rn.f32 $0, $1, $2, $3;", args)


def approximate(name: str, x: jax.Array, interpret: bool) -> jax.Array:
  """Returns a function's value to a few units in the last place, by one GPU instruction.

  Args:
    name: `ex2` (2^x), `lg2` (log2 x) or `rcp` (1/x).
    x: argument, float32.
    interpret: run interpreted, with full precision.
  """
  return _PLAIN[name](x) if interpret else _instruction(f"{name}.approx.ftz.f32 $0, $1;", [x])


def exchange(x: jax.Array, mask: int, interpret: bool) -> jax.Array:
  """Swaps the elements of lanes i and i ^ mask.

  Args:
    x: (32,) one element per lane of a single warp.
    mask: a power of two below 32.
    interpret: run interpreted.
  """
  if interpret:
    return x.reshape(-1, 2, mask)[:, ::-1].reshape(x.shape)
  return _instruction(f"shfl.sync.bfly.b32 $0, $1, {mask}, 0x1f, 0xffffffff;", [x])


def sum_lanes(
  values: Sequence[jax.Array], lane: jax.Array, count: int, interpret: bool
) -> jax.Array:
  """Sums at most `count` values over `count` neighbouring lanes, one sum per lane.

  Each step adds up two lanes' halves of the values, so that L values over L lanes take L - 1
  exchanges and not L log L.

  Args:
    values: (32,) each.
    lane: (32,) 0 .. count - 1, repeated.
    count: a power of two.
    interpret: run interpreted.

  Returns:
    (32,) the sum of value k in lane k; undefined in lanes beyond the last value.
  """
  parts: list[jax.Array | None] = [*values, *[None] * (count - len(values))]
  while count > 1:
    count //= 2
    high = (lane & count) != 0
    pairs = zip(parts[:count], parts[count:], strict=True)
    parts = [_add_pair(a, b, high, count, interpret) for a, b in pairs]
  (total,) = parts
  assert total is not None
  return total


def _add_pair(
  a: jax.Array | None, b: jax.Array | None, high: jax.Array, mask: int, interpret: bool
) -> jax.Array | None:
  """Sums over pairs of lanes: of a in the lane without the bit `mask`, of b in the lane with it."""
  if a is None:
    return None
  if b is None:
    return a + exchange(a, mask, interpret)
  return jnp.where(high, b, a) + exchange(jnp.where(high, a, b), mask, interpret)


def _instruction(text: str, args: list[jax.Array]) -> jax.Array:
  return plt.elementwise_inline_asm(
    text,
    args=args,
    constraints=",".join(["=f", *("f" for _ in args)]),
    pack=1,
    result_shape_dtypes=[jax.ShapeDtypeStruct(args[0].shape, jnp.float32)],
  )[0]
