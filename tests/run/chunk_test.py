"""The compiled chunk: one program for all batches of a shape, and no callback to the host in it."""

from __future__ import annotations

import dataclasses
import logging

import jax
import numpy as np
import pytest

from jaxsplat_mouse import cameras
from jaxsplat_mouse.fit.config import FitConfig
from jaxsplat_mouse.fit.driver import BatchFit
from jaxsplat_mouse.fit.loop import FitState, run_chunk
from jaxsplat_mouse.procedural_mouse.mouse_scenes import make_scene
from jaxsplat_mouse.run import batches, fit_progress
from jaxsplat_mouse.run.fit_progress import RunCallbacks, make_driver
from jaxsplat_mouse.run.settings import CheckpointSettings
from jaxsplat_mouse.runtime.background_compiler import BackgroundCompiler
from jaxsplat_mouse.runtime.signals import StopRequest
from jaxsplat_mouse.scene import Scene, crop_shape, crop_views
from tests.fit_fixtures import random_batch

# Its own number of splats, so that no other test has compiled the same programs before.
_CONFIG = FitConfig(
  model="3dgs",
  novel_weight=0.0,
  num_gaussians=137,
  iterations=10,
  relocate_every=5,
  resolutions=(1,),
  stages=(),
  tile_entries=32.0,  # the large splats of a random start must not ask for another program
)


def _mouse(seed: int, views: int = 4, elevation: float = 20.0, fov: float = 50.0):
  ring = cameras.generate_camera_poses(views, elevation, image_size=48, fov=fov)
  return make_scene(seed, ring)


def _batch(*scenes) -> tuple[Scene, FitState]:
  shape = crop_shape(scenes, multiple=32)
  batch = random_batch([crop_views(scene, shape) for scene in scenes], _CONFIG)
  return jax.tree.map(np.asarray, batch)


def _fit(batch: tuple[Scene, FitState], config: FitConfig = _CONFIG) -> BatchFit:
  driver = make_driver(config, CheckpointSettings(steps=5, seconds=1e9))
  with BackgroundCompiler() as compiler:
    callbacks = RunCallbacks(
      names=["a", "b"],
      iterations=config.iterations,
      checkpoints=None,
      seconds_between=1e9,
      stop=StopRequest(),
      compiler=compiler,
    )
    return driver.fit(*batch, callbacks)


def _compiled(records) -> list[str]:
  lines = [r.getMessage() for r in records if r.getMessage().startswith("Compiling")]
  return [line.split()[1] for line in lines]


@pytest.fixture(scope="module")
def batch() -> tuple[Scene, FitState]:
  return _batch(_mouse(0), _mouse(1))


def test_batches_of_other_scenes_compile_nothing(batch, caplog):
  """Other animals, cameras and view counts (padded) in crops of one shape: the same program."""
  other = _batch(_mouse(2, elevation=35.0, fov=55.0), _mouse(3, views=3))
  assert np.shape(other[0].images) == np.shape(batch[0].images)
  assert not np.array_equal(other[0].view_mask, batch[0].view_mask)
  with jax.log_compiles(True), caplog.at_level(logging.WARNING):
    first = _fit(batch)
    before = _compiled(caplog.records)
    caplog.clear()
    second = _fit(other)
  assert before.count("jit(run_chunk)") == 1
  assert _compiled(caplog.records) == []
  assert not first.failures and not second.failures
  assert not np.array_equal(first.losses, second.losses)


def test_later_programs_are_compiled_beside_the_first(batch, caplog):
  """Both stages once each: what the threads compile is what the calls use."""
  config = dataclasses.replace(_CONFIG, resolutions=(2, 1), stages=(0.5,))
  with jax.log_compiles(True), caplog.at_level(logging.WARNING):
    _fit(batch, config)
  # Logging is switched on for this thread alone: the second stage was compiled in another.
  assert _compiled(caplog.records).count("jit(run_chunk)") == 1


def test_crops_come_in_few_sizes():
  """Scenes whose silhouettes differ by some pixels share the shape, and so the program."""
  found = {batches.needed_shapes([_mouse(seed)]) for seed in range(4)}
  (fine, coarse), *others = found
  assert not others
  assert all(side % 32 == 0 for side in fine) and all(side % 64 == 0 for side in coarse)
  exact = {crop_shape([_mouse(seed)], multiple=1) for seed in range(4)}
  assert len(exact) > 1


def test_a_chunk_calls_nothing_on_the_host(batch):
  """No callback, no infeed: neither a print nor a readback hides in the compiled loop."""
  scenes, state = batch
  text = run_chunk.lower(state, scenes, _CONFIG, 1, 5, False).as_text()
  assert not _host_calls(text)

  def chatty(state):
    jax.debug.callback(lambda x: None, state.step)
    return state.step + 1

  assert _host_calls(jax.jit(chatty).lower(state).as_text())


def test_an_upload_within_a_chunk_is_refused(batch, monkeypatch):
  """The transfer guard is on: what a chunk needs lies on the device before it begins."""
  run = fit_progress.chunk_program

  def uploading(state, *args):
    return run(dataclasses.replace(state, step=state.step + np.zeros(2, np.int32)), *args)

  monkeypatch.setattr(fit_progress, "chunk_program", uploading)
  with pytest.raises(jax.errors.JaxRuntimeError, match="Disallowed host-to-device"):
    _fit(batch)


def _host_calls(text: str) -> list[str]:
  return [word for word in ("callback", "infeed", "outfeed", "send", "recv") if word in text]
