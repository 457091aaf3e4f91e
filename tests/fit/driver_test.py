"""The driver: chunks in order, more room, less memory, failures, snapshots. No fit is compiled."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsplat_mouse.cameras import generate_camera_poses
from jaxsplat_mouse.fit.config import FitConfig
from jaxsplat_mouse.fit.driver import (
  FitCallbacks,
  FitDriver,
  FitError,
  Snapshot,
  initial_batch,
)
from jaxsplat_mouse.scene import Scene
from tests.splat_fixtures import random_gaussians

_CONFIG = FitConfig(
  num_gaussians=8, iterations=40, relocate_every=5, resolutions=(2, 1), stages=(0.5,)
)
_FULL = "RESOURCE_EXHAUSTED: Out of memory allocating 1 bytes."


def _scene() -> Scene:
  return Scene(
    cameras=generate_camera_poses(3, image_size=8),
    images=np.zeros((3, 8, 8, 3), np.float32),
    alphas=np.zeros((3, 8, 8), np.float32),
    frames=np.tile(np.array([0, 0, 8, 8], np.float32), (3, 1)),
    view_mask=np.ones(3, bool),
  )


@pytest.fixture
def batch():
  gaussians = [random_gaussians(True, 8, seed) for seed in range(4)]
  return initial_batch([_scene()] * 4, gaussians, [0, 1, 2, 3], _CONFIG)


class Program:
  """Counts steps in place of `run_chunk`; the loss is the number of steps done."""

  def __init__(self, room: float = 0.0, holds: int = 99, broken: int | None = None):
    self.room, self.holds, self.broken = room, holds, broken
    self.calls: list[tuple[int, int, int, float]] = []

  def __call__(self, state, scenes, config, resolution, num_steps, geometry, /):
    with jax.transfer_guard("allow"):
      first, count = int(state.step[0]), len(state.step)
      self.calls.append((first, num_steps, count, config.tile_entries))
      if count > self.holds:
        raise jax.errors.JaxRuntimeError(_FULL)
      dropped = jnp.full(count, 7 if config.tile_entries < self.room else 0, jnp.int32)
      done = dataclasses.replace(state, step=state.step + num_steps, overflow=dropped)
      loss = jnp.broadcast_to(first + 1.0 + jnp.arange(num_steps), (count, num_steps))
      if self.broken is not None:
        loss = jnp.where((state.seed == self.broken)[:, None], jnp.nan, loss)
      return done, {"loss": loss}


class Recorder(FitCallbacks):
  """Keeps what the driver reports."""

  def __init__(self, stop_at: int | None = None):
    self.iterations: list[int] = []
    self.events: list[tuple] = []
    self.stop_at, self.snapshot = stop_at, None

  def chunk_done(self, iteration, metrics, snapshot):
    self.iterations.append(iteration)
    if iteration == self.stop_at:
      self.snapshot = snapshot()
      raise KeyboardInterrupt

  def room_grew(self, dropped, tile_entries):
    self.events.append(("grew", dropped, tile_entries))

  def memory_short(self, scenes, scenes_at_once):
    self.events.append(("short", scenes, scenes_at_once))


def test_chunks_follow_each_other_and_keep_every_loss(batch) -> None:
  program, recorder = Program(), Recorder()
  done = FitDriver(_CONFIG, chunk_steps=15, program=program).fit(*batch, recorder)
  assert recorder.iterations == [15, 20, 35, 40]
  assert [call[:3] for call in program.calls] == [(0, 15, 4), (15, 5, 4), (20, 15, 4), (35, 5, 4)]
  np.testing.assert_array_equal(done.losses, np.tile(np.arange(1.0, 41.0), (4, 1)))
  assert done.state.step.tolist() == [40] * 4 and not done.failures


def test_a_chunk_without_room_runs_again_with_more(batch) -> None:
  program, recorder = Program(room=15.0), Recorder()
  done = FitDriver(_CONFIG, chunk_steps=20, program=program).fit(*batch, recorder)
  assert [(c[0], c[3]) for c in program.calls] == [(0, 8.0), (0, 12.0), (0, 18.0), (20, 18.0)]
  assert recorder.events == [("grew", 7, 12.0), ("grew", 7, 18.0)]
  assert int(done.state.overflow.max()) == 0


def test_pairs_that_never_find_room_are_reported(batch) -> None:
  with pytest.warns(UserWarning, match="7 splat-tile pairs are left out"):
    FitDriver(_CONFIG, chunk_steps=40, program=Program(room=1e9)).fit(*batch)


def test_short_memory_halves_the_scenes_and_is_remembered(batch) -> None:
  program, recorder = Program(holds=1), Recorder()
  driver = FitDriver(_CONFIG, chunk_steps=20, program=program)
  done = driver.fit(*batch, recorder)
  assert recorder.events == [("short", 4, 2), ("short", 2, 1)]
  assert done.state.seed.tolist() == [0, 1, 2, 3]
  calls = len(program.calls)
  driver.fit(*batch)
  assert [call[2] for call in program.calls[calls:]] == [1] * 8


def test_a_scene_that_does_not_fit_alone_is_an_error(batch) -> None:
  with pytest.raises(FitError, match=r"single scene.*fit\.num_gaussians"):
    FitDriver(_CONFIG, program=Program(holds=0)).fit(*batch)


def test_a_broken_scene_fails_alone(batch) -> None:
  done = FitDriver(_CONFIG, chunk_steps=20, program=Program(broken=2)).fit(*batch)
  assert done.failures == {2: "the loss became nan by iteration 20"}
  scenes, state = jax.tree.map(lambda leaf: leaf[2:3], batch)
  program = Program(broken=2)
  FitDriver(_CONFIG, chunk_steps=10, program=program).fit(scenes, state)
  assert len(program.calls) == 1  # nothing is left to fit


def test_a_snapshot_goes_on_where_it_was_taken(batch) -> None:
  recorder = Recorder(stop_at=15)
  with pytest.raises(KeyboardInterrupt):
    FitDriver(_CONFIG, chunk_steps=15, program=Program(room=10.0)).fit(*batch, recorder)
  assert isinstance(recorder.snapshot, Snapshot) and recorder.snapshot.tile_entries == 12.0
  program = Program(room=10.0)
  done = FitDriver(_CONFIG, chunk_steps=15, program=program).fit(batch[0], recorder.snapshot)
  assert [(c[0], c[1], c[3]) for c in program.calls] == [
    (15, 5, 12.0),
    (20, 15, 12.0),
    (35, 5, 12.0),
  ]
  np.testing.assert_array_equal(done.losses[0], np.arange(16.0, 41.0))


def test_later_programs_are_announced(batch) -> None:
  announced = []

  class Announced(FitCallbacks):
    def will_run(self, arguments):
      announced.extend(one[3:] for one in arguments)

  FitDriver(_CONFIG, chunk_steps=20, program=Program()).fit(*batch, Announced())
  assert announced == [(1, 20, True)]  # the second stage; the first runs at once
