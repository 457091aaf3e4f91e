"""Random solids: within their bounds, deterministic, with exact truth that all views agree on."""

from __future__ import annotations

import functools

import jax.numpy as jnp
import numpy as np
import pytest

from jaxsplat_mouse.procedural_mouse.distance_field import body_distance
from jaxsplat_mouse.procedural_mouse.mouse import RADIUS
from jaxsplat_mouse.procedural_mouse.mouse_scenes import input_cameras
from jaxsplat_mouse.procedural_mouse.random_solids import BoxGroup, make_solid, render_solid
from jaxsplat_mouse.procedural_mouse.tracer import TruthViews

SIZE = 64


@functools.cache
def small_views(seed: int) -> TruthViews:
  return render_solid(make_solid(seed), input_cameras(num_views=2, image_size=SIZE), edge_samples=2)


def test_the_same_seed_gives_the_same_bytes_and_another_seed_another_solid():
  again = render_solid(make_solid(3), input_cameras(num_views=2, image_size=SIZE), edge_samples=2)
  assert again.rgba.tobytes() == small_views(3).rgba.tobytes()
  assert np.abs(small_views(3).rgba - small_views(4).rgba).max() > 0.1


@pytest.mark.parametrize("seed", range(6))
def test_a_solid_fits_the_radius_and_surrounds_its_middle(seed):
  body = make_solid(seed).body
  directions = np.random.default_rng(0).normal(size=(500, 3))
  directions /= np.linalg.norm(directions, axis=1, keepdims=True)
  beyond = ((RADIUS + 0.03) * directions).astype(np.float32).T
  assert float(body_distance(body, *map(jnp.asarray, beyond)).min()) > 0.0
  centers = np.concatenate([body.ellipsoids.center, body.boxes.center]).T
  assert float(body_distance(body, *map(jnp.asarray, centers)).max()) < 0.0


def test_points_that_one_view_sees_are_on_the_surface():
  cameras, views = input_cameras(num_views=2, image_size=SIZE), small_views(5)
  body = make_solid(5).body
  # Whole pixels only: at an outline depth is the mean over the visible part of the pixel.
  row, column = np.nonzero(views.alphas[0] == 1.0)
  z = views.depth[0, row, column]
  fx, fy, cx, cy = np.asarray(cameras.intrinsics[0])
  local = np.stack([(column + 0.5 - cx) / fx * z, (row + 0.5 - cy) / fy * z, z], 1)
  pose = np.asarray(cameras.world_to_camera[0])
  world = ((local - pose[:3, 3]) @ pose[:3, :3]).astype(np.float32).T
  distance = np.abs(np.asarray(body_distance(body, *map(jnp.asarray, world))))
  assert len(row) > 50 and float(np.median(distance)) < 0.003


def test_the_distance_of_a_rounded_box():
  one = BoxGroup(
    center=jnp.zeros(3),
    to_local=jnp.eye(3),
    half_sizes=jnp.array([1.0, 2.0, 3.0]),
    rounding=jnp.array(0.5),
    blend=jnp.zeros(()),
    to_rest=jnp.zeros((3, 4)),
    material=jnp.zeros(4),
  )
  distance = lambda *p: float(one.distance(*map(jnp.asarray, p)))
  assert distance(2.5, 0.0, 0.0) == pytest.approx(1.0)
  assert distance(0.0, 0.0, 0.0) == pytest.approx(-1.5)
  assert distance(4.0, 6.0, 0.0) == pytest.approx(4.5)  # 3-4-5 from the edge, less the rounding
