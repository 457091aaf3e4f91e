"""Fitting: it converges, batches equal loops, chunks equal one run, the seed decides everything."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsplat_mouse import cameras, scene
from jaxsplat_mouse.fit.config import FitConfig
from jaxsplat_mouse.fit.driver import fit_scenes
from jaxsplat_mouse.fit.loop import _average, init_state, run_chunk
from jaxsplat_mouse.fit.objective import filter_width, problem_at
from jaxsplat_mouse.fit.schedule import chunks, stages
from jaxsplat_mouse.procedural_mouse.mouse_scenes import make_scene
from tests.fit_fixtures import crops, hull_batch
from tests.splat_fixtures import random_gaussians

_CONFIG = FitConfig(
  model="3dgs",
  novel_weight=0.0,
  num_gaussians=300,
  iterations=40,
  relocate_every=10,
  resolutions=(2, 1),
  stages=(0.5,),
)


def _mouse(seed: int, views: int = 4) -> scene.Scene:
  ring = cameras.generate_camera_poses(views, image_size=48)
  return make_scene(seed, ring)


@pytest.fixture(scope="module")
def started():
  return hull_batch(crops([_mouse(0), _mouse(1)], 48), [0, 1], _CONFIG)


@pytest.fixture(scope="module")
def batch(started):
  return started[0]


@pytest.fixture(scope="module")
def start(started):
  return started[1]


def _run(state, batch, longest):
  losses = []
  for part in chunks(_CONFIG, longest):
    state, metrics = run_chunk(state, batch, _CONFIG, *part.program)
    losses.append(np.asarray(metrics["loss"]))
  return state, np.concatenate(losses, -1)


@pytest.fixture(scope="module")
def done(start, batch):
  return _run(start, batch, 20)


def test_the_loss_falls_and_nothing_overflows(done):
  state, losses = done
  assert losses.shape == (2, 40)
  assert (losses[:, -5:].mean(1) < 0.8 * losses[:, :3].mean(1)).all()
  assert int(state.overflow.max()) == 0
  assert int(state.step[0]) == 40


def test_short_chunks_equal_long_ones_bitwise(start, batch, done):
  state, losses = _run(start, batch, 10)
  np.testing.assert_array_equal(losses, done[1])
  for a, b in zip(jax.tree.leaves(state), jax.tree.leaves(done[0]), strict=True):
    np.testing.assert_array_equal(a, b)


def test_a_scene_does_not_depend_on_its_batch(start, batch, done):
  """Alone as in company; to rounding, since loops of another length vectorise differently."""
  one = jax.tree.map(lambda a: a[1:], (start, batch))
  _, losses = _run(*one, 20)
  np.testing.assert_allclose(losses[0, :5], done[1][1, :5], rtol=1e-3)
  assert abs(losses[0, -5:].mean() / done[1][1, -5:].mean() - 1) < 0.15


def test_nan_in_one_scene_leaves_the_other_alone(start, batch, done):
  broken = dataclasses.replace(batch, images=batch.images.at[0, 0].set(jnp.nan))
  state, losses = _run(start, broken, 20)
  assert np.isfinite(losses[1]).all()
  np.testing.assert_array_equal(losses[1], done[1][1])
  assert bool(jnp.isfinite(state.gaussians.means).all())


def test_padding_views_change_nothing_but_rounding(start, batch, done):
  views = batch.images.shape[1]
  padded = jax.tree.map(lambda a: jnp.concatenate([a, a[:, :1]], 1), batch)
  padded = dataclasses.replace(padded, view_mask=padded.view_mask.at[:, views:].set(False))
  config = dataclasses.replace(_CONFIG, random_background=False)
  run = lambda scenes: run_chunk(start, scenes, config, 2, 10, False)[1]["loss"]
  np.testing.assert_allclose(run(padded), run(batch), rtol=2e-3)


def test_configuration_errors_name_the_key():
  for bad in (
    {"model": "4dgs"},
    {"iterations": 0},
    {"stages": ()},
    {"sh_degree": 4},
    {"low_pass": 0.0},
  ):
    with pytest.raises(ValueError, match=f"fit.{next(iter(bad))}"):
      FitConfig(**bad)


def test_stages_and_chunks_cover_every_step_once():
  config = FitConfig(iterations=1030, resolutions=(4, 2, 1), stages=(0.2, 0.5))
  covered = [s for c in chunks(config, 130) for s in range(c.first, c.last)]
  assert covered == list(range(1030))
  assert all(c.last - c.first <= 130 for c in chunks(config, 130))
  assert [s.resolution for s in stages(config)] == [4, 2, 1]


def test_the_filter_is_that_of_the_photographs_pixels():
  """The median camera's, in the world; views that only pad the scene have no say."""
  config = dataclasses.replace(_CONFIG, low_pass=0.25)
  one = _mouse(0, 5)
  focal = np.array([[1.0, 1.0], [2.0, 2.0], [0.5, 0.5], [4.0, 4.0], [9.0, 9.0]], np.float32)
  intrinsics = np.asarray(one.cameras.intrinsics) * np.concatenate([focal, np.ones_like(focal)], 1)
  moved = dataclasses.replace(
    one,
    cameras=dataclasses.replace(one.cameras, intrinsics=intrinsics),
    view_mask=np.arange(5) < 3,
  )
  pixel = 2.7 / np.asarray(one.cameras.intrinsics)[0, 0]
  assert float(filter_width(moved, config)) == pytest.approx(0.5 * pixel, rel=1e-5)
  problem = problem_at(moved, 2, config)
  assert float(problem.filter_width) == pytest.approx(0.5 * 2 * pixel, rel=1e-5)


@pytest.mark.parametrize(
  ("model", "geometry_from", "expected"),
  [
    ("2dgs", 0.5, [(0, 500, 2, False), (500, 1030, 1, True)]),
    ("2dgs", 0.2, [(0, 200, 2, False), (200, 500, 2, True), (500, 1030, 1, True)]),
    ("2dgs", 0.0, [(0, 500, 2, True), (500, 1030, 1, True)]),
    ("2dgs", 1.0, [(0, 500, 2, False), (500, 1030, 1, False)]),
    ("3dgs", 0.5, [(0, 500, 2, False), (500, 1030, 1, True)]),
  ],
)
def test_geometry_begins_where_it_is_asked_to(model, geometry_from, expected):
  config = FitConfig(
    model=model, iterations=1030, resolutions=(2, 1), stages=(0.5,), geometry_from=geometry_from
  )
  found = [(s.first, s.last, s.resolution, s.geometry) for s in stages(config)]
  assert found == expected
  plain = dataclasses.replace(config, depth_weight=0.0, normal_weight=0.0, novel_weight=0.0)
  assert not any(stage.geometry for stage in stages(plain))


@pytest.mark.slow
def test_fit_scenes_finds_room_by_itself():
  """Scenes of different view counts, and too little room to begin with."""
  config = dataclasses.replace(
    _CONFIG, iterations=10, num_gaussians=300, resolutions=(1,), stages=(), tile_entries=3.0
  )
  fits = fit_scenes([_mouse(0), _mouse(1, views=3)], config)
  roomy = dataclasses.replace(config, tile_entries=24.0)
  for found, wanted in zip(fits, fit_scenes([_mouse(0), _mouse(1, views=3)], roomy), strict=True):
    assert found.losses.shape == (10,)
    np.testing.assert_allclose(found.losses, wanted.losses, rtol=1e-3)
    assert found.gaussians.means.shape == (300, 3)


def test_the_result_is_the_mean_of_the_last_steps():
  config = dataclasses.replace(_CONFIG, iterations=10, average_from=0.6)
  path = [random_gaussians(False, 30, i) for i in range(11)]
  state = init_state(path[0], 0, 4, config)
  for step in range(10):
    average = _average(state, path[step + 1], config)
    state = dataclasses.replace(state, step=state.step + 1, average=average)
    if step < 6:
      np.testing.assert_array_equal(state.result.means, path[step + 1].means)
  mean = np.mean([g.means for g in path[7:]], 0)
  np.testing.assert_allclose(state.result.means, mean, atol=1e-6)
  off = init_state(path[0], 0, 4, dataclasses.replace(config, average_from=1.0))
  assert off.average is None and off.result is path[0]
