"""Kept programs: a later process loads them without tracing, and replaces what is unusable."""

from __future__ import annotations

import dataclasses
import logging
import os
import pathlib
import threading
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsplat_mouse.cameras import Cameras, generate_camera_poses
from jaxsplat_mouse.runtime import programs
from jaxsplat_mouse.runtime.background_compiler import BackgroundCompiler
from jaxsplat_mouse.runtime.programs import Program


@pytest.fixture
def traced() -> list[int]:
  """Filled with one entry for every tracing."""
  return []


@pytest.fixture
def make(
  traced: list[int], tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> Callable[[], Program]:
  """A program as a new process would have it: nothing in memory."""
  monkeypatch.setattr(programs, "_folder", tmp_path / "kept")
  monkeypatch.setattr(programs, "_NOT_KEPT", set())

  def fresh() -> Program:
    def power(tree, exponent):  # a new function each time: JAX remembers what it has traced
      traced.append(exponent)
      return {"power": tree["x"] ** exponent, "count": jnp.zeros(2, jnp.int32)}

    return Program(jax.jit(power, static_argnums=1), static=(1,))

  return fresh


X = {"x": np.arange(3, dtype=np.float32)}


def test_a_kept_program_is_not_traced_again(make, traced):
  first, second = make()(X, 2), make()(X, 2)
  assert traced == [2]
  assert jax.tree.structure(first) == jax.tree.structure(second)
  np.testing.assert_array_equal(second["power"], [0, 1, 4])


def test_other_shapes_types_and_settings_are_other_programs(make, traced):
  make()(X, 2)
  np.testing.assert_array_equal(make()(X, 3)["power"], [0, 1, 8])
  make()({"x": np.zeros(4, np.float32)}, 2)
  assert make()({"x": np.zeros(3, np.int32)}, 2)["power"].dtype == np.int32
  make()({"x": 2.0}, 2)  # weakly typed
  assert len(traced) == 5
  with jax.debug_nans(True):
    make()(X, 2)
  assert len(traced) == 6


def test_another_source_is_another_program(make, traced, monkeypatch):
  make()(X, 2)
  monkeypatch.setattr(programs, "_source_digest", lambda: "edited")
  make()(X, 2)
  assert len(traced) == 2


def test_a_damaged_file_is_reported_and_replaced(make, traced, tmp_path, caplog):
  make()(X, 2)
  (path,) = (tmp_path / "kept").iterdir()
  path.write_bytes(path.read_bytes()[:100])
  with caplog.at_level(logging.WARNING):
    np.testing.assert_array_equal(make()(X, 2)["power"], [0, 1, 4])
  assert str(path) in caplog.text and "compiling it again" in caplog.text
  make()(X, 2)
  assert len(traced) == 2


def test_a_program_that_does_not_run_is_compiled_again(make, traced, monkeypatch, caplog):
  make()(X, 2)
  load = programs.serialize_executable.deserialize_and_load

  def broken(*args, **kwargs):
    load(*args, **kwargs)

    def run(*_):
      raise jax.errors.JaxRuntimeError("NOT_FOUND: Function iota_kernel not found")

    return run

  monkeypatch.setattr(programs.serialize_executable, "deserialize_and_load", broken)
  program = make()
  with caplog.at_level(logging.WARNING):
    np.testing.assert_array_equal(program(X, 2)["power"], [0, 1, 4])
  assert "does not run (NOT_FOUND" in caplog.text
  assert len(traced) == 2
  program(X, 2)
  assert len(traced) == 2


def test_running_out_of_memory_is_no_fault_of_the_program(make, traced, tmp_path, monkeypatch):
  make()(X, 2)

  def full(*_):
    raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: out of memory")

  load = lambda *args, **kwargs: full
  monkeypatch.setattr(programs.serialize_executable, "deserialize_and_load", load)
  with pytest.raises(jax.errors.JaxRuntimeError, match="RESOURCE_EXHAUSTED"):
    make()(X, 2)
  assert len(list((tmp_path / "kept").iterdir())) == 1 and len(traced) == 1


def test_some_platforms_keep_nothing(make, tmp_path, monkeypatch):
  monkeypatch.setattr(programs, "_NOT_KEPT", {jax.default_backend()})
  make()(X, 2)
  assert not (tmp_path / "kept").exists()


def test_without_a_folder_nothing_is_kept(make, traced, tmp_path, monkeypatch):
  monkeypatch.setattr(programs, "_folder", None)
  program = make()
  program(X, 2)
  program(X, 2)
  make()(X, 2)
  assert len(traced) == 2 and not (tmp_path / "kept").exists()


def test_a_folder_that_cannot_be_written_costs_nothing(make, traced, tmp_path):
  (tmp_path / "kept").write_text("a file")
  np.testing.assert_array_equal(make()(X, 2)["power"], [0, 1, 4])
  assert len(traced) == 1


def test_what_is_old_is_removed(make, tmp_path):
  make()(X, 2)
  (old,) = (tmp_path / "kept").iterdir()
  os.utime(old, (0, 0))
  make()(X, 3)
  assert not old.exists() and len(list((tmp_path / "kept").iterdir())) == 1


def test_a_call_waits_for_the_background_compiler(traced):
  begun, go = threading.Event(), threading.Event()

  def slow(x):
    traced.append(1)
    begun.set()
    assert go.wait(60)
    return x + 1

  program, compiler = Program(jax.jit(slow)), BackgroundCompiler()
  compiler.start(program, np.float32(1))
  assert begun.wait(60)
  threading.Timer(0.1, go.set).start()
  assert program(np.float32(1)) == 2
  compiler.close()
  assert len(traced) == 1


def test_an_error_is_raised_again_and_not_remembered(traced):
  def fails_once(x):
    traced.append(1)
    if len(traced) == 1:
      raise ValueError("not this time")
    return x

  program = Program(jax.jit(fails_once))
  with pytest.raises(ValueError, match="not this time"):
    program(np.float32(1))
  assert program(np.float32(1)) == 1
  programs.clear()
  program(np.float32(1))
  assert len(traced) == 2  # JAX remembers the tracing, which was all right


def test_pytrees_of_the_package_come_back(make):
  del make  # sets the folder
  rig = generate_camera_poses(2, image_size=32)
  again = lambda: Program(jax.jit(lambda cameras: dataclasses.replace(cameras, intrinsics=None)))
  first, second = again()(rig), again()(rig)
  assert isinstance(second, Cameras) and (second.width, second.height) == (32, 32)
  np.testing.assert_array_equal(first.world_to_camera, second.world_to_camera)
