"""What a run computes on: the compilation cache, the batch that fits the memory, a description."""

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

_SCENE_BYTES_PER_GAUSSIAN = 16_000  # of the temporaries of one scene's step, generously
_MEMORY_SHARE = 0.6
_MOST_SCENES = 64
CACHE_VARIABLE = "JAX_COMPILATION_CACHE_DIR"


def set_up_cache() -> pathlib.Path | None:
  """Keeps compiled programs between runs, in the user's cache folder.

  JAX_COMPILATION_CACHE_DIR names another folder; empty, it turns the cache off. Programs for CPUs
  of different kinds are kept apart, because a home folder may be shared by machines.

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
  # Small programs too: on a GPU a fresh process would spend seconds on dozens of them.
  jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
  jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
  programs.keep_in(folder / "programs")
  return folder


def _machine() -> str:
  """A short name for the kind of CPU."""
  text = platform.machine() + platform.processor()
  try:
    lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    text += "".join(sorted({line for line in lines if line.startswith(("flags", "model name"))}))
  except OSError:  # not Linux
    text += platform.platform()
  return hashlib.sha256(text.encode()).hexdigest()[:10]


def describe() -> dict[str, Any]:
  """Platform, kind and number of the devices, and memory of one in bytes where it is known.

  Raises:
    ConfigError: JAX finds no device of the platform it was told to use.
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


def is_accelerator() -> bool:
  """Whether the default device works beside the host, and not with its cores and memory."""
  return jax.default_backend() != "cpu"


def on_host() -> contextlib.AbstractContextManager[Any]:
  """Computes in this thread on the CPU, where JAX has one, while the accelerator is busy.

  What several threads give to one GPU waits in one line: behind a chunk of a fit, every step of a
  hull whose length depends on its data would wait as long as the chunk takes.
  """
  try:
    return jax.default_device(jax.local_devices(backend="cpu")[0])
  except RuntimeError:  # JAX_PLATFORMS names the accelerator alone
    return contextlib.nullcontext()


def _memory(device: Any) -> int | None:
  statistics = device.memory_stats() if device.platform != "cpu" else None
  return int(statistics["bytes_limit"]) if statistics and "bytes_limit" in statistics else None


def auto_batch(num_gaussians: int) -> int:
  """Scenes to fit together: one on a CPU, elsewhere what memory holds, at most 64 a device."""
  found = describe()
  if found["memory"] is None:
    return int(found["count"])
  room = _MEMORY_SHARE * found["memory"] / (_SCENE_BYTES_PER_GAUSSIAN * num_gaussians)
  return int(found["count"]) * max(1, min(_MOST_SCENES, int(room)))
