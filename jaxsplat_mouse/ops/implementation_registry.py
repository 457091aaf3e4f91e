"""The implementations of an operation by name; a module is imported when it is first needed."""

from __future__ import annotations

import functools
import importlib
import warnings
from collections.abc import Mapping
from typing import Any

import jax


def default_implementation() -> str:
  """`pallas` on a CUDA GPU, `xla` anywhere else."""
  return "pallas" if jax.default_backend() == "gpu" else "xla"


class ImplementationRegistry:
  """The implementations of one operation: modules that keep one contract.

  Every operation has an implementation `xla`, which runs anywhere.
  """

  def __init__(self, operation: str, modules: Mapping[str, str]) -> None:
    """Imports nothing.

    Args:
      operation: name of the operation, for messages.
      modules: dotted module of each implementation.
    """
    self._operation, self._modules = operation, dict(modules)

  @property
  def names(self) -> tuple[str, ...]:
    """Names of the implementations."""
    return tuple(self._modules)

  def choose(self, name: str | None = None) -> str:
    """Returns the name of the implementation to run.

    Args:
      name: the caller's choice; None takes `default_implementation()` or, where the default cannot
        be imported, `xla`, with a warning.

    Raises:
      ValueError: no implementation has this name.
    """
    if name is None:
      name = default_implementation()
      return name if _can_import(self._operation, self._modules[name]) else "xla"
    if name not in self._modules:
      raise ValueError(f"{self._operation}: implementation {name!r} is not in {self.names}")
    return name

  def load(self, name: str) -> Any:
    """Returns the module of an implementation.

    Raises:
      ValueError: the installed JAX cannot import it.
    """
    try:
      return importlib.import_module(self._modules[name])
    except ImportError as error:
      raise ValueError(
        f"{self._operation}: implementation {name!r} cannot be imported here ({error})"
      ) from error


@functools.cache
def _can_import(operation: str, module: str) -> bool:
  """Whether a module can be imported; warns, once, where it cannot."""
  try:
    importlib.import_module(module)
  except ImportError as error:
    warnings.warn(
      f"{operation}: {module} cannot be imported here ({error}); using the XLA path", stacklevel=4
    )
    return False
  return True
