"""Compiled programs on disk, which a later process loads instead of tracing them again.

JAX's own persistent cache keeps what XLA makes of a lowered program. To look there, JAX must have
traced and lowered the program, which for a fit takes longer in Python than the fit takes on a GPU.
This module keeps the whole compiled program (`jax.experimental.serialize_executable`), under a name
made of everything that it follows from: the package's source, the types and settings of its
arguments, JAX, the device.

A program that came from JAX's cache may be incomplete once it is serialised again (on a CPU, jaxlib
0.10.2 loses kernels). So a program that is to be kept is compiled without that cache. This has a
price: after any change of the package's source, the first process compiles with XLA even where
JAX's cache would have had the program. Every later process starts fast, and the disk holds one copy
instead of two.

On a CPU, where a fit takes minutes, programs are not kept here, and JAX's cache serves them.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import hashlib
import os
import pathlib
import pickle
import platform
import threading
import time
import weakref
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future
from typing import Any

import jax
import jaxlib
from absl import logging
from jax.experimental import serialize_executable

from jaxsplat_mouse.io import atomic
from jaxsplat_mouse.runtime.fresh_compilation import compile_fresh

_PACKAGE = pathlib.Path(__file__).resolve().parent.parent
# JAX's settings that change what a program computes or how it is compiled.
_JAX_SETTINGS = (
  "jax_enable_x64",
  "jax_debug_nans",
  "jax_default_matmul_precision",
  "jax_disable_most_optimizations",
  "jax_threefry_partitionable",
)
_NOT_KEPT = {"cpu"}  # platforms
_SECONDS_UNUSED = 30 * 24 * 3600.0
_folder: pathlib.Path | None = None
_programs: weakref.WeakSet[Program] = weakref.WeakSet()


def keep_in(folder: pathlib.Path | None) -> None:
  """Keeps programs in a folder from now on; None keeps them in memory only.

  As with JAX's own cache, anybody who can write to the folder can make this process run their code.
  """
  global _folder
  _folder = folder


def clear() -> None:
  """Drops all programs from memory, as `jax.clear_caches` does for jitted functions."""
  for program in _programs:
    program.clear()


class Program:
  """A jitted function whose compiled programs are kept on disk.

  Its arguments lie on one device and are positional.
  """

  def __init__(self, function: Any, static: Sequence[int] = ()):
    """Wraps a function.

    Args:
      function: made by `jax.jit`.
      static: positions of its static arguments; different values must differ in their `repr`.
    """
    self._function, self._static = function, frozenset(static)
    self._found: dict[Hashable, Future[Callable[..., Any]]] = {}
    self._lock = threading.Lock()
    _programs.add(self)

  def __call__(self, *args: Any) -> Any:
    """Calls the function."""
    dynamic = self._dynamic(args)
    program = self._find(args)
    if not isinstance(program, _Loaded) or program.proven:
      return program(*dynamic)
    try:
      result = jax.block_until_ready(program(*dynamic))
      program.proven = True
      return result
    except jax.errors.JaxRuntimeError as error:
      if "RESOURCE_EXHAUSTED" in str(error):
        raise
      logging.warning("%s: does not run (%s); compiling it again", program.path, error)
      with contextlib.suppress(OSError):
        program.path.unlink()
      self.clear()
      return self._find(args)(*dynamic)

  def compile(self, *args: Any) -> None:
    """Compiles or loads what a call with arguments of these shapes and types runs."""
    self._find(args)

  def clear(self) -> None:
    """Drops what is in memory."""
    with self._lock:
      self._found.clear()

  def _dynamic(self, args: Sequence[Any]) -> list[Any]:
    return [arg for i, arg in enumerate(args) if i not in self._static]

  def _find(self, args: Sequence[Any]) -> Callable[..., Any]:
    """Returns the compiled program; waits where another thread is compiling it."""
    dynamic = self._dynamic(args)
    device = _device_of(dynamic)
    key = (*(repr(args[i]) for i in sorted(self._static)), *_types(dynamic), device, _settings())
    with self._lock:
      known = self._found.get(key)
      future = self._found.setdefault(key, Future())
    if known is None:
      try:
        future.set_result(self._load_or_compile(args, device, key))
      except BaseException as error:
        with self._lock:
          self._found.pop(key, None)
        future.set_exception(error)
    return future.result()

  def _load_or_compile(
    self, args: Sequence[Any], device: jax.Device, key: Hashable
  ) -> Callable[..., Any]:
    if _folder is None or device.platform in _NOT_KEPT:
      return self._function.lower(*args).compile()
    name = self._function.__name__
    digest = hashlib.sha256(repr((name, key, _environment(device))).encode()).hexdigest()
    path = _folder / f"{name}-{digest}"
    loaded = _load(path, device)
    if loaded is not None:
      return loaded
    compiled, fresh = compile_fresh(self._function.lower(*args))
    if fresh:
      _save(path, compiled)
    return compiled


@dataclasses.dataclass
class _Loaded:
  """A program from the disk, and whether it has run."""

  path: pathlib.Path
  run: Callable[..., Any]
  proven: bool = False

  def __call__(self, *args: Any) -> Any:
    return self.run(*args)


def _load(path: pathlib.Path, device: jax.Device) -> _Loaded | None:
  """Loads a kept program; returns None where there is none that can be used."""
  try:
    kept = pickle.loads(path.read_bytes())
    with contextlib.suppress(OSError):
      path.touch()  # `_drop_old` spares what is in use
    run = serialize_executable.deserialize_and_load(
      *kept, backend=device.client, execution_devices=[device]
    )
    return _Loaded(path, run)
  except FileNotFoundError:
    return None
  except Exception as error:  # whatever is wrong with a file, compiling again mends it
    logging.warning("%s: not usable (%s); compiling it again", path, error)
    return None


def _save(path: pathlib.Path, compiled: jax.stages.Compiled) -> None:
  """Keeps a program; where that fails, the next process compiles it again."""
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    _drop_old(path.parent)
    atomic.write_bytes(path, pickle.dumps(serialize_executable.serialize(compiled)))
  except Exception as error:  # not every program and not every backend can be serialised
    logging.debug("%s: not kept: %s", path, error)


def _drop_old(folder: pathlib.Path) -> None:
  """Removes programs that no process has used for long: of other settings and older sources."""
  for path in folder.iterdir():
    with contextlib.suppress(FileNotFoundError):  # another process does the same
      if time.time() - path.stat().st_mtime > _SECONDS_UNUSED:
        path.unlink()


def _types(args: Sequence[Any]) -> tuple[Hashable, ...]:
  """Returns what a program depends on of its arguments: structure, shapes and types."""
  leaves, structure = jax.tree.flatten(args)
  avals = [jax.typeof(leaf) for leaf in leaves]
  return str(structure), tuple((a.shape, str(a.dtype), a.weak_type) for a in avals)


def _device_of(args: Sequence[Any]) -> jax.Device:
  """Returns where JAX will run: the device that arguments are committed to, or the default."""
  for leaf in jax.tree.leaves(args):
    if isinstance(leaf, jax.Array) and leaf.committed:
      (device,) = leaf.devices()
      return device
  chosen = jax.config.jax_default_device
  return chosen if isinstance(chosen, jax.Device) else jax.devices(chosen)[0]


def _settings() -> tuple[Hashable, ...]:
  return tuple(str(getattr(jax.config, name, None)) for name in _JAX_SETTINGS)


def _environment(device: jax.Device) -> tuple[str, ...]:
  """Returns what else a compiled program follows from."""
  return (
    _source_digest(),
    *(jax.__version__, jaxlib.__version__, platform.python_version()),
    *(device.platform, device.device_kind, device.client.platform_version),
    os.environ.get("XLA_FLAGS", ""),
  )


@functools.cache
def _source_digest() -> str:
  """Returns a digest of all modules of the package: a changed line may change any program."""
  digest = hashlib.sha256()
  for path in sorted(_PACKAGE.rglob("*.py")):
    digest.update(f"{path.relative_to(_PACKAGE)} {path.stat().st_size}\n".encode())
    digest.update(path.read_bytes())
  return digest.hexdigest()
