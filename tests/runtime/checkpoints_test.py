"""Checkpoints: exact, whole or absent, newest readable first."""

from __future__ import annotations

import os
import pathlib
import subprocess
import sys
import time
from typing import NamedTuple

import jax
import numpy as np
import pytest

from jaxsplat_mouse.runtime.checkpoints import CheckpointError, Checkpoints

ROOT = pathlib.Path(__file__).resolve().parents[2]
ENV = {**os.environ, "PYTHONPATH": str(ROOT)}


class Moments(NamedTuple):
  count: np.ndarray
  mu: np.ndarray


def make_state(seed: int, size: int = 50) -> dict:
  rng = np.random.default_rng(seed)
  values = rng.normal(size=(2, size)).astype(np.float32)
  values[0, :3] = [np.nan, np.inf, 1e-45]
  return {
    "gaussians": values,
    "alive": rng.uniform(size=(2, size)) > 0.5,
    "moments": Moments(np.int32([3, 4]), values * 2),
    "seed": np.array([7, 2**32 - 1], np.uint32),
  }


def assert_same(a: dict, b: dict) -> None:
  assert jax.tree.structure(a) == jax.tree.structure(b)
  for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
    assert x.dtype == y.dtype and x.shape == y.shape
    assert x.tobytes() == y.tobytes()


def test_a_state_comes_back_bit_for_bit(tmp_path: pathlib.Path) -> None:
  state = make_state(0)
  first = Checkpoints(tmp_path / "a")
  assert first.restore(state) is None
  first.save(10, state)
  first.close()
  step, restored = Checkpoints(tmp_path / "a").restore(state)
  assert step == 10
  assert_same(restored, state)


def test_the_newest_two_are_kept(tmp_path: pathlib.Path) -> None:
  checkpoints = Checkpoints(tmp_path / "a")
  for step in (10, 20, 30):
    checkpoints.save(step, make_state(step))
  assert checkpoints.steps() == [20, 30]
  assert_same(checkpoints.restore(make_state(0))[1], make_state(30))


def test_saving_a_step_again_changes_nothing(tmp_path: pathlib.Path) -> None:
  checkpoints = Checkpoints(tmp_path / "a")
  checkpoints.save(10, make_state(1))
  checkpoints.save(10, make_state(2))
  assert_same(checkpoints.restore(make_state(0))[1], make_state(1))


# In a process of its own: when one array cannot be read, Orbax closes its event loop while others
# are still being read, and their threads raise errors that nobody can catch.
RESTORED = """
import sys
from jaxsplat_mouse.runtime.checkpoints import Checkpoints
from tests.runtime.checkpoints_test import assert_same, make_state
step, restored = Checkpoints(sys.argv[1]).restore(make_state(0))
assert_same(restored, make_state(1))
print(step)
"""


def test_an_unreadable_checkpoint_gives_way_to_the_one_before(tmp_path: pathlib.Path) -> None:
  checkpoints = Checkpoints(tmp_path / "a")
  checkpoints.save(10, make_state(1))
  checkpoints.save(20, make_state(2))
  checkpoints.close()
  for path in (tmp_path / "a" / "20").rglob("*"):
    if path.is_file() and path.parent.name == "d":
      path.write_bytes(path.read_bytes()[:5])
  done = subprocess.run(
    [sys.executable, "-c", RESTORED, str(tmp_path / "a")], env=ENV, capture_output=True, text=True
  )
  assert done.stdout == "10\n", done.stderr
  assert "20: ignoring an unreadable checkpoint" in done.stderr


def test_an_unwritable_folder_is_a_checkpoint_error(tmp_path: pathlib.Path) -> None:
  (tmp_path / "file").write_text("")
  with pytest.raises(CheckpointError, match="cannot save step 10"):
    Checkpoints(tmp_path / "file" / "a").save(10, make_state(0))


KILLED = """
import pathlib, sys
import numpy as np
from jaxsplat_mouse.runtime.checkpoints import Checkpoints
checkpoints = Checkpoints(sys.argv[1])
for step in range(1, 100000):
  checkpoints.save(step, {"x": np.full(200_000, step, np.float32)})
"""


def test_kill_9_while_saving_leaves_whole_states_only(tmp_path: pathlib.Path) -> None:
  folder = tmp_path / "a"
  process = subprocess.Popen([sys.executable, "-c", KILLED, str(folder)], env=ENV)
  while not list(folder.glob("[3-9]*")):  # the test's timeout ends it
    assert process.poll() is None
    time.sleep(0.01)
  process.kill()
  process.wait()
  step, restored = Checkpoints(folder).restore({"x": np.zeros(200_000, np.float32)})
  assert step >= 2
  assert (restored["x"] == step).all()
