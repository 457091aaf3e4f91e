"""The built-in mouse: exact, consistent between views, deterministic, within its bounds."""

from __future__ import annotations

import dataclasses
import functools

import numpy as np
import pytest

from jaxsplat_mouse.cameras import Cameras, look_at, pixel_rays
from jaxsplat_mouse.procedural_mouse.disturb import (
  apply_exposure,
  exposure_gains,
  grow_masks,
  punch_holes,
  shake_cameras,
)
from jaxsplat_mouse.procedural_mouse.mouse import (
  make_mouse,
  render_truth,
  signed_distance,
  truth_surface_points,
  walking,
)
from jaxsplat_mouse.procedural_mouse.mouse_scenes import input_cameras, make_scene, rig_cameras
from jaxsplat_mouse.procedural_mouse.shading import Lighting
from jaxsplat_mouse.procedural_mouse.tracer import TruthViews

SIZE = 96


@functools.cache
def small_views(seed: int = 0, pose: str | None = None) -> TruthViews:
  cameras = input_cameras(num_views=3, image_size=SIZE)
  return render_truth(make_mouse(seed, pose), cameras, edge_samples=3)


@functools.cache
def surface(seed: int = 0, count: int = 1500) -> tuple[np.ndarray, np.ndarray]:
  return truth_surface_points(make_mouse(seed), count)


def project(cameras: Cameras, points: np.ndarray) -> np.ndarray:
  """Returns (V, N, 3): u, v in pixels and camera z, in float64."""
  pose = np.asarray(cameras.world_to_camera, np.float64)
  local = np.einsum("vij,nj->vni", pose[:, :3, :3], points) + pose[:, None, :3, 3]
  k = np.asarray(cameras.intrinsics, np.float64)[:, None]
  uv = local[..., :2] / local[..., 2:] * k[..., :2] + k[..., 2:]
  return np.concatenate([uv, local[..., 2:]], -1)


def odd_cameras() -> Cameras:
  """Returns two cameras, images not square, principal points off-centre and fx != fy."""
  poses = [look_at(np.array([2.2, 1.0, 0.9])), look_at(np.array([-1.5, 2.4, 0.4]))]
  return Cameras(
    world_to_camera=np.stack(poses).astype(np.float32),
    intrinsics=np.array([[110, 118, 74.5, 30.25], [95, 92, 51.0, 44.0]], np.float32),
    width=120,
    height=76,
  )


def test_the_same_seed_gives_the_same_bytes():
  again = render_truth(make_mouse(0), input_cameras(num_views=3, image_size=SIZE), edge_samples=3)
  for one, two in zip(
    (small_views().rgba, small_views().depth, small_views().normal),
    (again.rgba, again.depth, again.normal),
    strict=True,
  ):
    assert one.tobytes() == two.tobytes()


def test_seeds_differ_in_shape_pose_coat_and_picture():
  one, two = make_mouse(0), make_mouse(1)
  assert one.shape != two.shape and one.pose != two.pose and one.yaw != two.yaw
  assert one.coat.noise_seed != two.coat.noise_seed
  difference = np.abs(small_views(0).rgba - small_views(1).rgba)
  assert (difference.max(-1) > 0.1).mean() > 0.01


def test_named_poses_and_coats_are_checked():
  assert make_mouse(3, coat="black").coat.back.max() < 0.3
  assert make_mouse(3, pose="rear").pose.rear > 0.5
  with pytest.raises(ValueError, match=r"coat: expected one of .*agouti"):
    make_mouse(0, coat="tartan")
  with pytest.raises(ValueError, match=r"pose: expected one of .*walk"):
    make_mouse(0, pose="fly")


def test_images_are_straight_alpha_with_black_outside():
  views = small_views()
  assert views.rgba.shape == (3, SIZE, SIZE, 4) and views.rgba.dtype == np.float32
  assert views.rgba.min() >= 0 and views.rgba.max() <= 1
  empty = views.alphas == 0
  assert not views.images[empty].any()
  assert not views.depth[empty].any() and not views.normal[empty].any()
  # an edge pixel has the animal's colour, not that colour darkened by its coverage
  edge = (views.alphas > 0.05) & (views.alphas < 0.6)
  assert edge.sum() > 100
  inside = views.images[views.alphas == 1].mean()
  assert views.images[edge].mean() > 0.7 * inside


def test_edges_have_fine_steps_of_coverage_that_match_many_rays():
  mouse, cameras = make_mouse(0), input_cameras(num_views=3, image_size=SIZE)[:1]
  many = render_truth(mouse, cameras, samples=8, edge_samples=8)
  alpha = small_views().alphas[0]
  assert len(np.unique(alpha)) > 6
  assert np.abs(alpha - many.alphas[0]).max() < 0.3
  assert abs(alpha.sum() - many.alphas.sum()) < 0.005 * many.alphas.sum()


@pytest.mark.parametrize("cameras", [input_cameras(num_views=3, image_size=SIZE), odd_cameras()])
def test_every_surface_point_lies_inside_every_silhouette(cameras):
  views = render_truth(make_mouse(0), cameras)
  points, _ = surface()
  for alpha, (u, v, _) in zip(
    views.alphas, np.moveaxis(project(cameras, points), -1, 1), strict=True
  ):
    x, y = np.floor(u).astype(int), np.floor(v).astype(int)
    inside = (x >= 0) & (y >= 0) & (x < cameras.width) & (y < cameras.height)
    covered = alpha[y[inside], x[inside]]
    assert inside.sum() > 800
    # a point on the outline, or on a tail thinner than a pixel, may fall between a pixel's rays:
    # then the silhouette is next to it
    assert (covered > 0).mean() > 0.98
    wide = np.pad(alpha, 1)
    near_by = [wide[y[inside] + dy, x[inside] + dx] for dy in range(3) for dx in range(3)]
    assert (np.max(near_by, 0) > 0).all()
    # and the silhouette is no larger than the points: nearly every pixel of it holds one nearby
    near = np.zeros(alpha.shape, bool)
    for dx in (-1, 0, 1):
      for dy in (-1, 0, 1):
        near[np.clip(y[inside] + dy, 0, None) % len(near), (x[inside] + dx) % near.shape[1]] = True
    assert near[alpha > 0.5].mean() > 0.9


@pytest.mark.parametrize("odd", [False, True])
def test_depth_and_normals_are_those_of_the_distance_field(odd):
  mouse = make_mouse(0)
  cameras = odd_cameras() if odd else input_cameras(num_views=2, image_size=64)
  # one ray through each pixel centre: no averaging over the pixel
  views = render_truth(mouse, cameras, samples=1, edge_samples=1)
  for i in range(len(cameras)):
    origin, rays = pixel_rays(cameras[i])
    hit = views.alphas[i] > 0
    assert set(np.unique(views.alphas[i])) == {0.0, 1.0}
    points = np.asarray(origin) + views.depth[i][hit][:, None] * np.asarray(rays)[hit]
    assert np.abs(signed_distance(mouse, points)).max() < 1e-3
    normal = views.normal[i][hit]
    np.testing.assert_allclose(np.linalg.norm(normal, axis=-1), 1, atol=1e-4)
    rise = signed_distance(mouse, points + 0.002 * normal)
    assert np.median(rise) == pytest.approx(0.002, rel=0.05)
    facing = (normal * np.asarray(rays)[hit]).sum(-1)
    assert (facing < 0.02).mean() > 0.99
    # nothing lies in front of the surface that was hit
    for share in (0.5, 0.8, 0.95):
      ahead = np.asarray(origin) + share * views.depth[i][hit][:, None] * np.asarray(rays)[hit]
      assert signed_distance(mouse, ahead).min() > -1e-3


def test_surface_points_lie_on_the_surface_with_outward_normals():
  points, normals = surface()
  mouse = make_mouse(0)
  assert points.shape == normals.shape == (1500, 3)
  assert np.abs(signed_distance(mouse, points)).max() < 2e-4
  assert np.median(signed_distance(mouse, points + 0.002 * normals)) > 0.0018
  assert np.array_equal(truth_surface_points(mouse, 1500)[0], points)
  # thin parts get their share: the tail has about 5 % of the surface
  skeleton_tail = points[:, 2] < mouse.floor + 0.05
  assert skeleton_tail.mean() > 0.02


@pytest.mark.parametrize("seed", range(6))
def test_the_animal_fits_and_stands_on_its_floor(seed):
  mouse = make_mouse(seed)
  directions = np.random.default_rng(0).normal(size=(4000, 3))
  shell = 0.85 * directions / np.linalg.norm(directions, axis=1, keepdims=True)
  for animal in (mouse, walking(mouse, 0.3)):
    assert signed_distance(animal, shell).min() > 0
    # something reaches the floor, nothing goes below it
    grid = np.stack(np.meshgrid(*[np.linspace(-0.8, 0.8, 81)] * 2, indexing="ij"), -1)
    plane = lambda z, grid=grid: np.concatenate([grid, np.full((81, 81, 1), z)], -1)
    assert signed_distance(animal, plane(mouse.floor - 0.006)).min() > 0
    assert signed_distance(animal, plane(mouse.floor + 0.012)).min() < 0


def test_coverage_is_that_of_a_small_animal():
  coverage = [
    render_truth(make_mouse(seed), input_cameras(3, 64), 1, edge_samples=1).alphas.mean()
    for seed in range(4)
  ]
  assert min(coverage) > 0.03 and max(coverage) < 0.09


def test_walking_repeats_and_keeps_the_animal():
  mouse = make_mouse(2)
  one, two, three = (walking(mouse, phase) for phase in (0.0, 0.25, 1.0))
  assert one.pose != two.pose and one.shape == two.shape and one.scale == two.scale
  for a, b in zip(dataclasses.astuple(one.pose), dataclasses.astuple(three.pose), strict=True):
    assert a == pytest.approx(b, abs=1e-9)
  points, _ = truth_surface_points(one, 400)
  moved = np.abs(signed_distance(two, points))
  assert 0.02 < moved.max() < 0.3 and np.median(moved) < 0.03


def test_a_point_looks_the_same_from_everywhere():
  """The colour of a surface point does not depend on the camera."""
  mouse = make_mouse(4)
  eyes = [np.array([2.0, 0.3, 1.8]), np.array([1.8, 0.9, 2.0])]
  cameras = Cameras(
    world_to_camera=np.stack([look_at(eye) for eye in eyes]).astype(np.float32),
    intrinsics=np.tile(np.array([150, 150, 64, 64], np.float32), (2, 1)),
    width=128,
    height=128,
  )
  views = render_truth(mouse, cameras, samples=3)
  points, normals = surface(4)
  toward = np.stack([((eye - points) * normals).sum(1) for eye in eyes])
  uvz = project(cameras, points)
  x, y = (np.floor(uvz[..., i]).astype(int) for i in (0, 1))
  seen = (toward > 0.5).all(0)
  for i in range(2):
    seen &= np.abs(views.depth[i][y[i], x[i]] - uvz[i, :, 2]) < 0.01
    seen &= views.alphas[i][y[i], x[i]] == 1
  colours = [views.images[i][y[i, seen], x[i, seen]] for i in range(2)]
  assert seen.sum() > 200
  assert np.median(np.abs(colours[0] - colours[1])) < 0.03
  assert np.corrcoef(colours[0].ravel(), colours[1].ravel())[0, 1] > 0.8
  # A highlight breaks that, so it is off by default.
  shiny = Lighting(specular=np.asarray(0.5, np.float32))
  assert np.abs(render_truth(mouse, cameras[:1], lighting=shiny).rgba - views.rgba[:1]).max() > 0.1


def test_the_coat_has_fine_texture():
  """Neighbouring pixels differ by more than smooth shading explains."""
  image = render_truth(make_mouse(0, coat="agouti"), input_cameras(1, 256)).rgba[0]
  grey, solid = image[..., :3].mean(-1), image[..., 3] == 1
  second = np.abs(grey[:, 2:] - 2 * grey[:, 1:-1] + grey[:, :-2])
  inside = solid[:, 2:] & solid[:, 1:-1] & solid[:, :-2]
  assert second[inside].mean() > 0.02


def test_soft_fur_adds_a_partly_transparent_band_outside():
  mouse, cameras = make_mouse(0), input_cameras(2, 2 * SIZE)
  hard = render_truth(mouse, cameras)
  soft = render_truth(mouse, cameras, fur=0.03)
  assert (soft.alphas >= hard.alphas - 1e-6).all()
  partly = lambda views: ((views.alphas > 0.05) & (views.alphas < 0.95)).sum()
  assert partly(soft) > 1.3 * partly(hard)
  assert not soft.images[soft.alphas == 0].any()
  solid = hard.alphas == 1
  np.testing.assert_allclose(soft.rgba[solid], hard.rgba[solid], atol=0.03)


def test_scene_and_its_default_cameras():
  scene = make_scene(0, input_cameras(image_size=64), edge_samples=2)
  assert scene.images.shape == (6, 64, 64, 3) and scene.alphas.shape == (6, 64, 64)
  assert scene.view_mask.all() and (scene.frames == [0, 0, 64, 64]).all()
  centers = np.asarray(scene.cameras.centers)
  np.testing.assert_allclose(np.linalg.norm(centers, axis=1), 2.7, atol=1e-5)
  azimuth = np.degrees(np.arctan2(centers[:, 1], centers[:, 0])) % 360
  np.testing.assert_allclose(azimuth, 15 + 60 * np.arange(6), atol=1e-3)
  default = input_cameras()
  assert default.width == default.height == 512
  np.testing.assert_allclose(default.intrinsics[0], [548.99377, 548.99377, 256, 256], rtol=1e-6)


@pytest.mark.parametrize("seed", range(3))
def test_rig_cameras_are_uneven_and_hold_the_animal(seed):
  cameras = rig_cameras(seed, 144, 128)
  distance = np.linalg.norm(np.asarray(cameras.centers), axis=1)
  assert distance.max() / distance.min() > 1.5
  assert np.abs(cameras.intrinsics[:, 2:] - [72, 64]).max() > 3
  alphas = render_truth(make_mouse(seed), cameras, 1, edge_samples=1).alphas
  assert (alphas.sum((1, 2)) > 100).all()
  border = [alphas[:, 0], alphas[:, -1], alphas[:, :, 0], alphas[:, :, -1]]
  assert not any(edge.any() for edge in border)


def test_disturbances_are_deterministic_and_do_what_they_say():
  scene = make_scene(0, input_cameras(3, 64), edge_samples=2)
  gains = exposure_gains(3, seed=1, spread=0.2)
  assert np.array_equal(gains, exposure_gains(3, seed=1, spread=0.2)) and np.ptp(gains) > 0.05
  exposed = apply_exposure(scene, gains)
  np.testing.assert_allclose(exposed.images, np.clip(scene.images * gains[:, None, None], 0, 1))
  grown, shrunk = grow_masks(scene, 2), grow_masks(scene, -1)
  assert grown.alphas.sum() > 1.2 * scene.alphas.sum() > 1.3 * shrunk.alphas.sum()
  assert (grown.alphas >= scene.alphas).all() and (shrunk.alphas <= scene.alphas).all()
  new = (grown.alphas == 1) & (scene.alphas == 0)
  np.testing.assert_allclose(grown.images[new], 0.5)
  holed = punch_holes(scene, seed=3, radius=0.05)
  lost = (holed.alphas == 0) & (scene.alphas > 0)
  assert (lost.sum((1, 2)) > 3).all() and not holed.images[lost].any()
  assert np.array_equal(holed.alphas, punch_holes(scene, seed=3, radius=0.05).alphas)
  shaken = shake_cameras(scene, seed=0, degrees=0.5, focal=0.01).cameras
  turn = np.asarray(shaken.world_to_camera)[:, :3, :3]
  np.testing.assert_allclose(
    turn @ np.swapaxes(turn, 1, 2), np.eye(3)[None].repeat(3, 0), atol=1e-5
  )
  np.testing.assert_allclose(shaken.centers, scene.cameras.centers, atol=1e-4)
  assert np.abs(shaken.world_to_camera - scene.cameras.world_to_camera).max() > 1e-3


@pytest.mark.parametrize("seed", range(6))
def test_the_tail_is_thin_but_never_thinner_than_a_pixel(seed):
  mouse = make_mouse(seed)
  base = mouse.shape.tail_radius * mouse.scale
  assert 0.011 < base < 0.02
  focal_over_distance = 548.99 / 2.7
  assert 2 * 0.4 * base * focal_over_distance > 1.5
