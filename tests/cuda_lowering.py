"""Lowering for CUDA on a machine that has none."""

from __future__ import annotations

from typing import Any

import pytest


def lower_for_cuda(traced: Any) -> str:
  """The text of a traced function (`jax.jit(f).trace(...)`); skips where this JAX needs a GPU."""
  try:
    return traced.lower(lowering_platforms=("cuda",)).as_text()
  except RuntimeError as error:
    if "No supported GPU" not in str(error):
      raise
    pytest.skip(f"this JAX lowers for CUDA only where there is a GPU: {error}")
