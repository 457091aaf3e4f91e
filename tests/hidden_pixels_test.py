"""Pixels that another animal hides: unknown to the hull, without losses in the fit, not scored."""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from jaxsplat_mouse import metrics
from jaxsplat_mouse.cameras import generate_camera_poses
from jaxsplat_mouse.fit.config import FitConfig
from jaxsplat_mouse.fit.driver import fit_scenes
from jaxsplat_mouse.fit.objective import views_at
from jaxsplat_mouse.procedural_mouse.mouse import Mouse, make_mouse, render_truth
from jaxsplat_mouse.procedural_mouse.mouse_scenes import input_cameras
from jaxsplat_mouse.procedural_mouse.several_mice import MiceViews, place_mouse, render_mice
from jaxsplat_mouse.run.renders import render_rgba
from jaxsplat_mouse.scene import (
  Scene,
  crop_views,
  observed_pixels,
  scene_from_rgba,
  stack_scenes,
  widen_frames,
)
from jaxsplat_mouse.visual_hull.build import build_hull
from jaxsplat_mouse.visual_hull.hull import HullConfig

SIZE = 64
CONFIG = HullConfig(resolution=64, num_points=256)


@functools.cache
def mice() -> tuple[Mouse, Mouse]:
  """Two mice that walk side by side and touch."""
  near = place_mouse(make_mouse(301, "walk", "agouti"), 0.0, 0.17, 0.2)
  return near, place_mouse(make_mouse(303, "walk", "black"), 0.1, -0.17, -0.1)


@functools.cache
def film() -> MiceViews:
  return render_mice(mice(), input_cameras(image_size=SIZE), samples=1, edge_samples=2)


def scene_of(animal: int) -> Scene:
  """One of the mice, with the pixels of the other one hidden."""
  views = film()
  shown, hidden = views.shares[animal], views.shares[1 - animal] > 0
  rgba = np.concatenate([views.whole[animal][..., :3], shown[..., None]], -1)
  rgba = np.where((hidden | (shown == 0))[..., None], 0, rgba).astype(np.float32)
  one = scene_from_rgba(input_cameras(image_size=SIZE), rgba)
  return dataclasses.replace(one, hidden=hidden)


def as_background(scene: Scene) -> Scene:
  return dataclasses.replace(scene, hidden=None)


def alone(animal: int) -> Scene:
  return scene_from_rgba(input_cameras(image_size=SIZE), film().whole[animal])


def volume(scene: Scene) -> float:
  hull = build_hull(scene, CONFIG)
  return float((np.asarray(hull.values) >= 128).sum() * np.prod(np.asarray(hull.voxel_size)))


def test_the_nearer_mouse_hides_the_other() -> None:
  views = film()
  np.testing.assert_allclose(views.shares.sum(0), views.rgba[..., 3], atol=1e-6)
  lost = 1 - views.shares.sum((2, 3)) / views.whole[..., 3].sum((2, 3))
  # From either side one of them is whole and hides about a third of the other.
  assert lost[0].max() > 0.25 and lost[1].max() > 0.25 and np.minimum(*lost).max() < 0.1
  assert set(np.unique(views.labels)) == {0, 1, 2}
  only = views.shares[1] == 0
  np.testing.assert_allclose(views.rgba[only], views.whole[0][only], atol=1e-6)


def test_hidden_pixels_do_not_carve() -> None:
  one, whole = scene_of(0), volume(alone(0))
  assert volume(as_background(one)) < 0.75 * whole
  assert 0.9 * whole < volume(one) < 1.2 * whole


def test_a_scene_that_hides_nothing_has_the_same_hull() -> None:
  one = alone(0)
  empty = dataclasses.replace(one, hidden=np.zeros(one.alphas.shape, bool))
  first, second = build_hull(one, CONFIG), build_hull(empty, CONFIG)
  assert all(jax.tree.leaves(jax.tree.map(np.array_equal, first, second)))


def test_hidden_pixels_have_no_losses() -> None:
  one = scene_of(0)
  assert one.hidden is not None
  assert not (observed_pixels(one) & one.hidden).any()
  for resolution in (1, 2):
    seen = np.asarray(views_at(one, resolution).observed)
    high, wide = seen.shape[1:]
    blocks = one.hidden.reshape(-1, high, resolution, wide, resolution).any((2, 4))
    np.testing.assert_array_equal(seen, ~blocks)


def test_a_batch_counts_hidden_pixels_as_doubted() -> None:
  one, other = crop_views(scene_of(0), (48, 48)), crop_views(alone(0), (48, 48))
  batch = stack_scenes([one, other])
  assert batch.hidden is None and batch.doubted is not None and one.hidden is not None
  np.testing.assert_array_equal(batch.doubted, [one.hidden, np.zeros_like(one.hidden)])
  assert stack_scenes([other]).doubted is None
  first = jax.tree.map(lambda leaf: jnp.asarray(leaf[0]), batch)
  np.testing.assert_array_equal(views_at(first, 1).observed, views_at(one, 1).observed)


def test_a_hidden_border_leaves_a_silhouette_open() -> None:
  one = alone(0)
  assert (widen_frames(one).frames[:, 0] < 0).all()
  hidden = np.zeros(one.alphas.shape, bool)
  hidden[0, :, :3] = True
  wide = widen_frames(dataclasses.replace(one, hidden=hidden)).frames[:, 0]
  assert wide[0] == 0 and (wide[1:] < 0).all()


def test_a_fit_gains_by_leaving_hidden_pixels_out() -> None:
  one = scene_of(0)
  config = FitConfig(num_gaussians=400, iterations=40, resolutions=(1,), stages=())
  fits = fit_scenes([one, as_background(one)], config)
  novel = generate_camera_poses(4, image_size=SIZE)
  truth = render_truth(mice()[0], novel, 1, edge_samples=2).rgba
  scores = []
  for fit in fits:
    rendered = render_rgba(fit.gaussians, novel, fit.filter_width) / np.float32(255)
    rows = [metrics.compare_view(a, b) for a, b in zip(rendered, truth, strict=True)]
    scores.append(metrics.average(rows))
  assert scores[0]["fg_psnr"] > scores[1]["fg_psnr"] + 2
  assert scores[0]["iou"] > scores[1]["iou"] + 0.05
