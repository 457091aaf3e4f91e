"""Set-up of all tests: the CPU by default, a compilation cache, markers for the machine."""

from __future__ import annotations

import gc
import importlib.metadata
import os
import pathlib
from collections.abc import Generator

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[1]


def _set_environment() -> None:
  """Sets JAX's environment before anything imports JAX, also for the commands that tests start.

  Variables that are set already stay: JAX_PLATFORMS=cuda,cpu runs the same tests on a GPU.
  """
  os.environ.setdefault("JAX_PLATFORMS", "cpu")
  os.environ.setdefault("JAX_COMPILATION_CACHE_DIR", str(ROOT / ".pytest_cache" / "jax"))
  os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS", "0.1")
  os.environ.setdefault("JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES", "-1")
  if os.environ["JAX_PLATFORMS"] == "cpu":
    # Most tests compile for longer than they compute. With XLA's defaults: XLA_FLAGS= make test
    flags = ["--xla_backend_optimization_level=1"]
    if importlib.metadata.version("jaxlib").startswith("0.10."):
      # Later versions do not know this flag and end the process.
      flags.append("--xla_cpu_use_fusion_emitters=false")
    os.environ.setdefault("XLA_FLAGS", " ".join(flags))
  if "PYTEST_XDIST_WORKER" in os.environ:
    # XLA's CPU client sizes its thread pool by NPROC. Each worker takes its share of the cores;
    # otherwise the workers would spend their time waiting for each other.
    workers = int(os.environ["PYTEST_XDIST_WORKER_COUNT"])
    os.environ.setdefault("NPROC", str(max(1, (os.cpu_count() or 1) // workers)))


_set_environment()


def _missing_gpu() -> str | None:
  """Returns why tests marked `gpu` cannot run here, or None where they can."""
  import jax

  try:
    jax.devices("gpu")
  except RuntimeError as error:
    reason = str(error).splitlines()[0]
    return f"no GPU with JAX_PLATFORMS={os.environ['JAX_PLATFORMS']}: {reason}"
  return None


@pytest.hookimpl(trylast=True)  # after `-m` has deselected: starts no device in vain
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
  marked = [item for item in items if item.get_closest_marker("gpu")]
  reason = _missing_gpu() if marked else None
  if reason is not None:
    for item in marked:
      item.add_marker(pytest.mark.skip(reason=reason))


# Linux gives a process 65,530 memory mappings by default. Compiled programs keep theirs, and XLA
# crashes where it gets no more.
_MOST_MAPPINGS = 20_000


@pytest.hookimpl(trylast=True)
def pytest_runtest_teardown(item: pytest.Item, nextitem: pytest.Item | None) -> None:
  if nextitem is None or nextitem.path == item.path:
    return
  maps = pathlib.Path("/proc/self/maps")
  if maps.is_file() and len(maps.read_text().splitlines()) > _MOST_MAPPINGS:
    import jax

    from jaxsplat_mouse.runtime import programs

    programs.clear()
    jax.clear_caches()
    gc.collect()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Generator[None, object, object]:
  """Compiles fast and without optimizations for tests marked `unoptimized`."""
  if os.environ["JAX_PLATFORMS"] != "cpu" or not any(item.iter_markers("unoptimized")):
    return (yield)
  import jax

  jax.config.update("jax_disable_most_optimizations", True)
  try:
    return (yield)
  finally:
    jax.config.update("jax_disable_most_optimizations", False)


@pytest.fixture(scope="session", autouse=True)
def _no_kept_programs() -> Generator[None]:
  """Loads no program from disk in the tests' own process: some tests change what is traced."""
  from jaxsplat_mouse.runtime import programs

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(programs, "keep_in", lambda folder: None)
    yield


@pytest.fixture(scope="session")
def shared_dir() -> pathlib.Path:
  """The folder of scenes and tools beside the checkout; tests that need it skip without it."""
  folder = ROOT.parent / "shared"
  if not folder.is_dir():
    pytest.skip(f"needs the sample data in {folder}, which is not part of the repository")
  return folder
