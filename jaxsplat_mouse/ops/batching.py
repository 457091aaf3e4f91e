"""Folds mapped axes into one flat image axis, so that a whole batch is one launch."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import custom_batching


def fold_images(
  flat: Callable[..., Any], made_together: Collection[int] = ()
) -> Callable[..., Any]:
  """Makes a function of one image, whose vmaps become the leading axis of `flat`'s arguments.

  Args:
    flat: takes and returns pytrees of arrays (I, ...), whatever batch the I images came from. Only
      the leading axis of its results may depend on I.
    made_together: positions of arguments that are valid only for the batch for which an earlier
      folded call made them. Where a vmap does not map such an argument, `flat` receives None in
      its place.

  Returns:
    the function of arrays without that axis; nested vmaps of it are one call of `flat`.
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

    joined = [
      None
      if place in made_together and not all(jax.tree.leaves(batched))
      else jax.tree.map(join, arg, batched)
      for place, (arg, batched) in enumerate(zip(args, in_batched, strict=True))
    ]
    out = over_images(*joined)
    out = jax.tree.map(lambda a: a.reshape(axis_size, -1, *a.shape[1:]), out)
    return out, jax.tree.map(lambda _: True, out)

  def one_image(*args: Any) -> Any:
    out = over_images(*jax.tree.map(lambda a: a[None], args))
    return jax.tree.map(lambda a: a[0], out)

  return one_image
