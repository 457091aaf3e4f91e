"""Lowering for CUDA on a machine that has none."""

from __future__ import annotations

import contextlib
from typing import Any

import jax
import pytest


def lower_for_cuda(jitted: Any, *args: Any, **kwargs: Any) -> str:
  """Returns the text of a jitted function, lowered for an H100.

  Skips where this JAX lowers Pallas kernels for present GPUs only and has no abstract ones.

  Args:
    jitted: what `jax.jit` returned.
    *args: its arguments, or their shapes.
    **kwargs: likewise.
  """
  try:
    with _abstract_gpu():
      return jitted.trace(*args, **kwargs).lower(lowering_platforms=("cuda",)).as_text()
  except RuntimeError as error:
    if "No supported GPU" not in str(error):
      raise
    pytest.skip(f"this JAX lowers for CUDA only where there is a GPU: {error}")


def abstract_gpus(axis: str, count: int) -> Any:
  """Returns a mesh of H100s that no machine needs to have, to be made the context of a lowering.

  Skips where this JAX has no abstract devices.

  Args:
    axis: the name of the mesh's axis.
    count: devices along it.
  """
  if not hasattr(jax.sharding, "AbstractDevice"):
    pytest.skip("this JAX has no abstract devices")
  types = (jax.sharding.AxisType.Auto,)
  return jax.sharding.AbstractMesh((count,), (axis,), types, abstract_device=_h100())


def _abstract_gpu() -> contextlib.AbstractContextManager[Any]:
  """A context in which JAX lowers for an H100; older versions lower without one."""
  if not hasattr(jax.sharding, "AbstractDevice"):
    return contextlib.nullcontext()
  mesh = jax.sharding.AbstractMesh((), (), abstract_device=_h100())
  return jax.sharding.use_abstract_mesh(mesh)


def _h100() -> Any:
  return jax.sharding.AbstractDevice(
    device_kind="NVIDIA H100 80GB HBM3", num_cores=None, platform="gpu"
  )
