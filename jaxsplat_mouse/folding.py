"""One flat image axis for functions that are launched on a whole batch at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import custom_batching


def fold_images(flat: Callable[..., Any]) -> Callable[..., Any]:
  """A function of one image, whose vmaps become the leading axis of `flat`'s arguments.

  Args:
    flat: takes and returns pytrees of arrays (I, ...), whatever batch the I images came from.

  Returns:
    the same on arrays without that axis; nested vmaps of it are one call of `flat`.
  """

  @custom_batching.custom_vmap
  def over_images(*args: Any) -> Any:
    return flat(*args)

  @over_images.def_vmap
  def fold(axis_size: int, in_batched: Sequence[Any], *args: Any) -> Any:
    def join(value: jax.Array, batched: bool) -> jax.Array:
      if not batched:
        value = jnp.broadcast_to(value[None], (axis_size, *value.shape))
      return value.reshape(-1, *value.shape[2:])

    out = over_images(*jax.tree.map(join, args, tuple(in_batched)))
    out = jax.tree.map(lambda a: a.reshape(axis_size, -1, *a.shape[1:]), out)
    return out, jax.tree.map(lambda _: True, out)

  def one_image(*args: Any) -> Any:
    out = over_images(*jax.tree.map(lambda a: a[None], args))
    return jax.tree.map(lambda a: a[0], out)

  return one_image
