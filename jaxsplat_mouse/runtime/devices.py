"""The devices that JAX computes on: their description, their memory, the compilation cache."""

from __future__ import annotations

import contextlib
import hashlib
import os
import pathlib
import platform
from typing import Any

import jax
from absl import logging

from jaxsplat_mouse.errors import ConfigError
from jaxsplat_mouse.runtime import programs

_MEMORY_SHARE = 0.6  # of a device's memory, to leave room for its fragments
CACHE_VARIABLE = "JAX_COMPILATION_CACHE_DIR"


def set_up_cache() -> pathlib.Path | None:
  """Makes JAX and `programs` keep what they compile in the user's cache folder.

  JAX_COMPILATION_CACHE_DIR names another folder; set but empty, it turns the cache off. A home
  folder may be shared by machines, so programs for different kinds of CPU are kept apart.

  Returns:
    the folder, or None where there is no cache.
  """
  given = os.environ.get(CACHE_VARIABLE)
  if given is not None:
    folder = pathlib.Path(given) if given else None
    programs.keep_in(folder / f"programs-{_machine()}" if folder else None)
    return folder
  base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
  folder = pathlib.Path(base, "jaxsplat_mouse", f"jax-{_machine()}")
  try:
    folder.mkdir(parents=True, exist_ok=True)
  except OSError as error:
    logging.warning("%s: no compilation cache (%s)", folder, error.strerror)
    return None
  jax.config.update("jax_compilation_cache_dir", str(folder))
  # Small programs too: on a GPU a new process would spend seconds on dozens of them.
  jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
  jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
  programs.keep_in(folder / "programs")
  return folder


def _machine() -> str:
  """Returns a short name for the kind of CPU."""
  text = platform.machine() + platform.processor()
  try:
    lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    text += "".join(sorted({line for line in lines if line.startswith(("flags", "model name"))}))
  except OSError:  # not Linux
    text += platform.platform()
  return hashlib.sha256(text.encode()).hexdigest()[:10]


def describe() -> dict[str, Any]:
  """Returns `platform`, `kind` and `count` of the devices, and the `memory` of one.

  The memory is in bytes; it is None on a CPU and where the device does not report it.

  Raises:
    ConfigError: JAX finds no device of the platform that JAX_PLATFORMS names.
  """
  try:
    devices = jax.local_devices()
  except RuntimeError as error:
    raise ConfigError(
      f"JAX_PLATFORMS: no device to run on ({str(error).splitlines()[0]})"
    ) from None
  return {
    "platform": devices[0].platform,
    "kind": devices[0].device_kind,
    "count": len(devices),
    "memory": _memory(devices[0]),
  }


def _memory(device: Any) -> int | None:
  statistics = device.memory_stats() if device.platform != "cpu" else None
  return int(statistics["bytes_limit"]) if statistics and "bytes_limit" in statistics else None


def items_in_memory(bytes_per_item: float, most: int) -> int:
  """Returns how many items the memory of all devices holds together.

  Args:
    bytes_per_item: device memory that one item needs.
    most: the largest number on one device.

  Returns:
    at least one item a device; one where the memory of a device is not known.
  """
  found = describe()
  if found["memory"] is None:
    return int(found["count"])
  room = int(_MEMORY_SHARE * found["memory"] / bytes_per_item)
  return int(found["count"]) * max(1, min(most, room))


def is_accelerator() -> bool:
  """Returns whether the default device has cores and memory of its own, beside the host's."""
  return jax.default_backend() != "cpu"


def on_host() -> contextlib.AbstractContextManager[Any]:
  """Returns a context in which this thread computes on the CPU, where JAX has one.

  What several threads submit to one GPU runs one after the other: behind a chunk of a fit, every
  step of a loop whose length depends on its data would wait as long as the chunk takes.
  """
  try:
    return jax.default_device(jax.local_devices(backend="cpu")[0])
  except RuntimeError:  # JAX_PLATFORMS names the accelerator alone
    return contextlib.nullcontext()
