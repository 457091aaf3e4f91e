"""The photometric losses in plain XLA: those of `losses`."""

from __future__ import annotations

import jax

from jaxsplat_mouse import losses


def compare_image(
  x: jax.Array, y: jax.Array, observed: jax.Array | None, interpret: bool
) -> tuple[jax.Array, jax.Array]:
  """See `api.photometric`; nothing is ever interpreted."""
  del interpret
  return losses.l1(x, y, observed), losses.structural_similarity(x, y, observed)
