"""Compiled programs that a later process takes from the disk instead of tracing them again.

JAX's compilation cache keeps what XLA makes of a lowered program; to look there, a program must
have been traced and lowered, which for a fit takes longer in Python than the fit takes on a GPU.
Here the whole compiled program is kept (`jax.experimental.serialize_executable`), under a name made
of all that it follows from: the package's source, its arguments' types and settings, JAX, the
device. Not on a CPU, where a fit takes minutes and a program that came from JAX's own cache does
not survive being serialised again (jaxlib 0.10.2: kernels are missing when it is run).
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
import jax.monitoring
import jaxlib
from absl import logging
from jax.experimental import serialize_executable

from jaxsplat_mouse.io import atomic

_PACKAGE = pathlib.Path(__file__).resolve().parent.parent
# Of JAX's settings, those that change what a program computes or how it is compiled.
_JAX_SETTINGS = (
  "jax_enable_x64",
  "jax_debug_nans",
  "jax_default_matmul_precision",
  "jax_disable_most_optimizations",
  "jax_threefry_partitionable",
)
_NOT_KEPT = {"cpu"}  # platforms
_CACHE_HIT = "/jax/compilation_cache/cache_hits"  # JAX's event
_SECONDS_UNUSED = 30 * 24 * 3600.0
_folder: pathlib.Path | None = None
_all: weakref.WeakSet[Program] = weakref.WeakSet()


def keep_in(folder: pathlib.Path | None) -> None:
  """Keeps programs in a folder from now on; None keeps them in memory alone.

  Whoever can write there can have this process run code of theirs, as with JAX's own cache.
  """
  global _folder
  _folder = folder


def clear() -> None:
  """Forgets all programs in memory, as `jax.clear_caches` does for jitted functions."""
  for program in _all:
    program.clear()


class Program:
  """A jitted function whose compiled programs are kept; arguments on one device, no keywords."""

  def __init__(self, function: Any, static: Sequence[int] = ()):
    """Wraps a function.

    Args:
      function: made by `jax.jit`.
      static: positions of its static arguments, whose `repr` must tell them apart.
    """
    self._function, self._static = function, frozenset(static)
    self._found: dict[Hashable, Future[Callable[..., Any]]] = {}
    self._lock = threading.Lock()
    _all.add(self)

  def __call__(self, *args: Any) -> Any:
    """What the function returns."""
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
      logging.warning("%s: does not run (%s); it is compiled again", program.path, error)
      with contextlib.suppress(OSError):
        program.path.unlink()
      self.clear()
      return self._find(args)(*dynamic)

  def compile(self, *args: Any) -> None:
    """Has ready what a call with such arguments runs; of shapes and types only those matter."""
    self._find(args)

  def clear(self) -> None:
    """Forgets what is in memory."""
    with self._lock:
      self._found.clear()

  def _dynamic(self, args: Sequence[Any]) -> list[Any]:
    return [arg for i, arg in enumerate(args) if i not in self._static]

  def _find(self, args: Sequence[Any]) -> Callable[..., Any]:
    """The compiled program; whoever asks while another thread makes it waits for that."""
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
    _seen.hit = False
    compiled = self._function.lower(*args).compile()
    if not _seen.hit:  # what JAX's cache gave may be incomplete when it is serialised again
      _save(path, compiled)
    return compiled


class _Seen(threading.local):
  """Whether JAX's cache had what this thread compiled."""

  hit = False


_seen = _Seen()


def _listen(event: str, **_: Any) -> None:
  if event == _CACHE_HIT:
    _seen.hit = True


jax.monitoring.register_event_listener(_listen)


@dataclasses.dataclass
class _Loaded:
  """A program from the disk, and whether it has run."""

  path: pathlib.Path
  run: Callable[..., Any]
  proven: bool = False

  def __call__(self, *args: Any) -> Any:
    return self.run(*args)


def _load(path: pathlib.Path, device: jax.Device) -> _Loaded | None:
  """A kept program, or None where there is none that can be used."""
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
  except Exception as error:  # Whatever is wrong with a file, compiling again mends it.
    logging.warning("%s: not usable (%s); it is compiled again", path, error)
    return None


def _save(path: pathlib.Path, compiled: jax.stages.Compiled) -> None:
  """Keeps a program; where that fails, the next process compiles it again."""
  try:
    path.parent.mkdir(parents=True, exist_ok=True)
    _drop_old(path.parent)
    atomic.write_bytes(path, pickle.dumps(serialize_executable.serialize(compiled)))
  except Exception as error:  # Not every program and not every backend can be serialised.
    logging.debug("%s: not kept: %s", path, error)


def _drop_old(folder: pathlib.Path) -> None:
  """Removes what no process has used for long: programs of other settings and older sources."""
  for path in folder.iterdir():
    with contextlib.suppress(FileNotFoundError):  # another process does the same
      if time.time() - path.stat().st_mtime > _SECONDS_UNUSED:
        path.unlink()


def _types(args: Sequence[Any]) -> tuple[Hashable, ...]:
  """What a program depends on of its arguments: structure, shapes, types."""
  leaves, structure = jax.tree.flatten(args)
  avals = [jax.typeof(leaf) for leaf in leaves]
  return str(structure), tuple((a.shape, str(a.dtype), a.weak_type) for a in avals)


def _device_of(args: Sequence[Any]) -> jax.Device:
  """Where JAX will run: on the device that arguments are committed to, else on the default one."""
  for leaf in jax.tree.leaves(args):
    if isinstance(leaf, jax.Array) and leaf.committed:
      (device,) = leaf.devices()
      return device
  chosen = jax.config.jax_default_device
  return chosen if isinstance(chosen, jax.Device) else jax.devices(chosen)[0]


def _settings() -> tuple[Hashable, ...]:
  return tuple(str(getattr(jax.config, name, None)) for name in _JAX_SETTINGS)


def _environment(device: jax.Device) -> tuple[str, ...]:
  """All else that a compiled program follows from."""
  return (
    _source_digest(),
    *(jax.__version__, jaxlib.__version__, platform.python_version()),
    *(device.platform, device.device_kind, device.client.platform_version),
    os.environ.get("XLA_FLAGS", ""),
  )


@functools.cache
def _source_digest() -> str:
  """Of all modules of the package: a changed line may change any program."""
  digest = hashlib.sha256()
  for path in sorted(_PACKAGE.rglob("*.py")):
    digest.update(f"{path.relative_to(_PACKAGE)} {path.stat().st_size}\n".encode())
    digest.update(path.read_bytes())
  return digest.hexdigest()
