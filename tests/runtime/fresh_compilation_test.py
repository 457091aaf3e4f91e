"""Fresh compilation: XLA compiles although JAX's persistent cache holds the program."""

from __future__ import annotations

import pathlib
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax._src import compilation_cache as private_cache
from jax.experimental.compilation_cache import compilation_cache

from jaxsplat_mouse.runtime import fresh_compilation, programs
from jaxsplat_mouse.runtime.fresh_compilation import compile_fresh
from jaxsplat_mouse.runtime.programs import Program

SETTINGS = {
  "jax_compilation_cache_dir": None,
  "jax_persistent_cache_min_compile_time_secs": 0.0,
  "jax_persistent_cache_min_entry_size_bytes": -1,
}
X = np.arange(3, dtype=np.float32)


@pytest.fixture
def jax_cache(tmp_path: pathlib.Path) -> Iterator[pathlib.Path]:
  """A persistent cache of JAX of this test's own, which keeps every program."""
  before = {name: getattr(jax.config, name) for name in SETTINGS}
  folder = tmp_path / "jax"
  for name, value in {**SETTINGS, "jax_compilation_cache_dir": str(folder)}.items():
    jax.config.update(name, value)
  compilation_cache.reset_cache()
  yield folder
  for name, value in before.items():
    jax.config.update(name, value)
  compilation_cache.reset_cache()


def make_power():
  """A function that JAX has not traced yet and that lowers to the same program every time."""

  def power(x):
    return jnp.sin(x) ** 3

  return jax.jit(power)


def lower() -> jax.stages.Lowered:
  return make_power().lower(X)


def compile_as_usual() -> bool:
  """Compiles as JAX does; returns whether XLA did, and not the cache."""
  fresh_compilation._state.hit = False
  lower().compile()
  return not fresh_compilation._state.hit


@pytest.mark.usefixtures("jax_cache")
def test_the_cache_is_passed_by() -> None:
  assert compile_as_usual()
  assert not compile_as_usual()
  compiled, fresh = compile_fresh(lower())
  assert fresh
  np.testing.assert_allclose(compiled(X), np.sin(X) ** 3, rtol=1e-5)
  assert not compile_as_usual()  # the cache still serves everything else


def test_nothing_is_written_into_the_cache(jax_cache: pathlib.Path) -> None:
  _, fresh = compile_fresh(lower())
  assert fresh
  assert not list(jax_cache.glob("jit_power*"))
  compile_as_usual()
  assert list(jax_cache.glob("jit_power*"))


@pytest.mark.usefixtures("jax_cache")
def test_a_jax_without_the_private_function_is_reported(monkeypatch: pytest.MonkeyPatch) -> None:
  monkeypatch.setattr(private_cache, "is_cache_used", private_cache.is_cache_used.__wrapped__)
  assert compile_fresh(lower())[1]
  assert not compile_fresh(lower())[1]


@pytest.mark.usefixtures("jax_cache")
@pytest.mark.parametrize("wrapped", [True, False])
def test_what_is_kept_is_fresh(
  wrapped: bool, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
  """An upgrade that leaves a program as it was: JAX has it in its cache, the folder does not."""
  monkeypatch.setattr(programs, "_folder", tmp_path / "kept")
  monkeypatch.setattr(programs, "_NOT_KEPT", set())
  if not wrapped:
    monkeypatch.setattr(private_cache, "is_cache_used", private_cache.is_cache_used.__wrapped__)
  compile_as_usual()
  Program(make_power())(X)
  assert (tmp_path / "kept").exists() == wrapped
