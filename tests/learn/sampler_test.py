"""What a training step draws: reproducible, by weight, consistent between images and cameras."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsplat_mouse.cameras import generate_camera_poses
from jaxsplat_mouse.learn.training import sampler
from jaxsplat_mouse.learn.training.sampler import ViewCounts
from jaxsplat_mouse.learn.training.scenes import TrainingScenes

SIZE = 4


@functools.cache
def labelled(
  dataset: int, scenes: int, views: int = 32, count: int | None = None
) -> TrainingScenes:
  """Scenes whose pixels name dataset, scene and view."""
  orbit = generate_camera_poses(32, image_size=SIZE)
  rgba = np.zeros((scenes, views, SIZE, SIZE, 4), np.uint8)
  rgba[..., 0] = dataset
  rgba[..., 1] = np.arange(scenes)[:, None, None, None]
  rgba[..., 2] = np.arange(views)[:, None, None]
  rgba[..., 3] = 255
  repeat = lambda a: np.repeat(np.asarray(a, np.float32)[None, :views], scenes, 0)
  return TrainingScenes(
    rgba=rgba,
    world_to_camera=repeat(orbit.world_to_camera),
    intrinsics=repeat(orbit.intrinsics),
    counts=np.full(scenes, count or views, np.int32),
  )


@functools.partial(jax.jit, static_argnames="augments")
def draw(mixture, weights, step, slots, augments=False):
  seed, counts = jnp.uint32(7), ViewCounts()
  return sampler.draw_batch(mixture, weights, seed, step, slots, counts, augments=augments)


def labels(batch) -> np.ndarray:
  """(B, V, 3): dataset, scene, view."""
  return np.round(255 * np.asarray(batch.rgba[:, :, 0, 0, :3])).astype(int)


def test_a_slot_is_the_same_sample_wherever_it_is_drawn():
  mixture, weights = (labelled(0, 3), labelled(1, 5)), (0.5, 0.5)
  whole = draw(mixture, weights, 11, jnp.arange(8), augments=True)
  part = draw(mixture, weights, 11, jnp.arange(4, 8), augments=True)
  for a, b in zip(jax.tree.leaves(whole), jax.tree.leaves(part), strict=True):
    np.testing.assert_array_equal(a[4:], b)
  later = draw(mixture, weights, 12, jnp.arange(8), augments=True)
  assert not np.array_equal(whole.rgba, later.rgba)


def test_datasets_come_by_weight_and_scenes_evenly():
  mixture, weights = (labelled(0, 3), labelled(1, 5)), (1.4, 0.6)
  found = labels(draw(mixture, weights, 0, jnp.arange(4000)))[:, 0]
  assert (found[:, 0] == 0).mean() == pytest.approx(0.7, abs=0.03)
  for scene in range(5):
    assert (found[found[:, 0] == 1][:, 1] == scene).mean() == pytest.approx(0.2, abs=0.04)


def test_views_are_distinct_and_targets_lie_near_an_input():
  found = labels(draw((labelled(0, 2),), (1.0,), 3, jnp.arange(200)))[..., 2]
  assert all(len(set(views)) == 8 for views in found)
  apart = np.abs(found[:, 4:, None] - found[:, None, :4])
  steps = np.minimum(apart, 32 - apart).min(2)  # of 11.25 degrees on a circle at 20 degrees
  assert steps.max() <= 5 and len(np.unique(found[:, :4])) == 32


def test_a_scene_with_few_views_repeats_them_and_never_shows_padding():
  found = labels(draw((labelled(0, 2, 8, 6),), (1.0,), 3, jnp.arange(100)))[..., 2]
  assert found.max() == 5
  assert all(
    len(set(views[:4])) == 4 and len(set(views[4:6]) | set(views[:4])) == 6 for views in found
  )


def test_augmented_cameras_see_the_moved_world_at_the_same_pixels():
  scenes = labelled(0, 1)
  poses = jnp.asarray(scenes.world_to_camera[0, :3])
  rgba = jnp.full((3, SIZE, SIZE, 4), 0.5)
  colors, moved = sampler.augment(rgba, poses, jax.random.key(3))
  # Where the cameras went says how the world moved: x' = A x.
  centers = lambda p: -np.einsum("vji,vj->vi", p[:, :3, :3], p[:, :3, 3])
  linear = np.linalg.lstsq(
    centers(np.asarray(poses, np.float64)), centers(np.asarray(moved, np.float64)), rcond=None
  )[0].T
  scale = np.cbrt(np.linalg.det(linear))
  np.testing.assert_allclose(linear @ linear.T, scale**2 * np.eye(3), atol=1e-4)
  np.testing.assert_allclose(linear[2], [0, 0, scale], atol=1e-4)
  x = np.random.default_rng(0).uniform(-0.5, 0.5, (20, 3))
  see = lambda p, x: np.einsum("vij,nj->vni", p[:, :3, :3], x) + p[:, None, :3, 3]
  a, b = see(np.asarray(poses), x), see(np.asarray(moved), x @ linear.T)
  np.testing.assert_allclose(a[..., :2] / a[..., 2:], b[..., :2] / b[..., 2:], atol=1e-5)
  assert float(colors[..., :3].max()) <= 1.0
  np.testing.assert_array_equal(colors[..., 3], rgba[..., 3])
