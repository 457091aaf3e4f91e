"""The visual hull of solids whose silhouettes this test traces exactly, and of sample scenes.

All scenes are padded to one number of views, so that one compilation serves them all.
"""

from __future__ import annotations

import dataclasses
import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from jaxsplat_mouse import gaussians as gs
from jaxsplat_mouse.cameras import Cameras, generate_camera_poses, look_at
from jaxsplat_mouse.scene import (
  Scene,
  Similarity,
  crop_views,
  pad_views,
  silhouette_boxes,
  transform_scene,
  widen_frames,
)
from jaxsplat_mouse.visual_hull.build import build_hull, carve_hull
from jaxsplat_mouse.visual_hull.hull import HullConfig, interpolate
from jaxsplat_mouse.visual_hull.hull_alpha import hull_alpha
from jaxsplat_mouse.visual_hull.initial_gaussians import initial_gaussians
from jaxsplat_mouse.visual_hull.silhouette_views import dilate, hull_field, make_views, quantize

SIZE = 96
VIEWS = 14
CONFIG = HullConfig(resolution=64, num_points=1500)
SPHERE = [((0.0, 0.0, 0.0), (0.0, 0.0, 0.0), 0.6)]
# A body and a tail 2.3 pixels wide, which leaves the body sideways and hangs a little.
MOUSE = [
  ((-0.3, 0.0, 0.0), (0.2, 0.0, 0.05), 0.22),
  ((0.4, 0.05, 0.0), (0.75, 0.3, -0.1), 0.03),
]
RING = [
  ((0.5 * np.cos(a), 0.1, 0.5 * np.sin(a)), (0.5 * np.cos(b), 0.1, 0.5 * np.sin(b)), 0.12)
  for a, b in zip(np.arange(16) * np.pi / 8, np.arange(1, 17) * np.pi / 8, strict=True)
]


def ring_cameras(num_views: int = 6, size: int = SIZE, elevation: float = 20.0) -> Cameras:
  return generate_camera_poses(num_views, elevation=elevation, image_size=size)


def surrounding_cameras(size: int = SIZE) -> Cameras:
  """Fourteen cameras towards the faces and corners of a cube, so that a hull is nearly exact."""
  corners = np.array(np.meshgrid([-1, 1], [-1, 1], [-1, 1])).reshape(3, -1).T
  faces = np.array([[1, 0, 0], [0, 1, 0], [0.01, 0, 1]])
  eyes = [2.7 * d / np.linalg.norm(d) for d in np.concatenate([corners, faces, -faces])]
  one = generate_camera_poses(1, image_size=size)
  return dataclasses.replace(
    one,
    world_to_camera=np.stack([look_at(eye) for eye in eyes]).astype(np.float32),
    intrinsics=np.repeat(one.intrinsics, len(eyes), 0),
  )


def trace(solid: list, cameras: Cameras, samples: int = 3) -> tuple[np.ndarray, np.ndarray]:
  """Alpha (V, H, W) and straight colour (V, H, W, 3) of a union of capsules (a, b, radius).

  The half with x < 0 is red, the other blue.
  """
  alphas, images = [], []
  offsets = (np.arange(samples) + 0.5) / samples
  for matrix, (fx, fy, cx, cy) in zip(cameras.world_to_camera, cameras.intrinsics, strict=True):
    rotation = np.asarray(matrix[:3, :3], np.float64)
    eye = -rotation.T @ matrix[:3, 3]
    x = (np.arange(cameras.width)[:, None] + offsets).ravel()
    y = (np.arange(cameras.height)[:, None] + offsets).ravel()
    rays = np.stack(np.broadcast_arrays((x - cx)[None] / fx, (y - cy)[:, None] / fy, 1.0), -1)
    rays = rays @ rotation
    rays /= np.linalg.norm(rays, axis=-1, keepdims=True)
    depth = np.full(rays.shape[:2], np.inf)
    for a, b, radius in solid:
      depth = np.minimum(depth, _capsule_depth(eye, rays, np.array(a), np.array(b), radius))
    hit = np.isfinite(depth)
    red = (eye + np.where(hit, depth, 0.0)[..., None] * rays)[..., 0] < 0
    pool = lambda image: image.reshape(
      cameras.height, samples, cameras.width, samples, *image.shape[2:]
    ).mean((1, 3))
    alpha = pool(hit.astype(float))
    color = pool(np.stack([hit & red, 0 * hit, hit & ~red], -1).astype(float))
    images.append(color / np.maximum(alpha, 1e-9)[..., None])
    alphas.append(alpha)
  return np.stack(alphas).astype(np.float32), np.stack(images).astype(np.float32)


def _capsule_depth(
  eye: np.ndarray, rays: np.ndarray, a: np.ndarray, b: np.ndarray, radius: float
) -> np.ndarray:
  """Returns about the depth at which rays enter a capsule; inf where they miss it."""
  axis, offset = b - a, eye - a
  length = axis @ axis
  along = rays @ axis
  # The nearest pair of points of a line and a segment.
  denominator = np.maximum(length - along**2, 1e-12)
  place = (axis @ offset - along * (rays @ offset)) / denominator if length > 0 else 0.0 * along
  place = np.clip(place, 0.0, 1.0)
  nearest = a + place[..., None] * axis - eye
  t = (nearest * rays).sum(-1)
  squared = (nearest**2).sum(-1) - t**2
  inside = squared < radius**2
  return np.where(inside, t - np.sqrt(np.maximum(radius**2 - squared, 0.0)), np.inf)


def make_scene(solid: list, cameras: Cameras) -> Scene:
  alphas, images = trace(solid, cameras)
  frames = np.tile(np.array([0, 0, cameras.width, cameras.height], np.float32), (len(alphas), 1))
  scene = Scene(
    cameras=cameras,
    images=images,
    alphas=alphas,
    frames=frames,
    view_mask=np.ones(len(alphas), bool),
  )
  return pad_views(scene, VIEWS)


@functools.cache
def mouse_scene() -> Scene:
  return make_scene(MOUSE, ring_cameras())


@functools.cache
def mouse_hull():
  return build_hull(mouse_scene(), CONFIG)


@functools.cache
def sphere_scene() -> Scene:
  return make_scene(SPHERE, surrounding_cameras())


@functools.cache
def sphere_hull():
  return build_hull(sphere_scene(), CONFIG)


def solid_at(hull, points: np.ndarray) -> np.ndarray:
  position = (np.asarray(points, np.float32) - hull.origin) / hull.voxel_size
  inside = (position > -0.5).all(-1) & (position < CONFIG.resolution - 0.5).all(-1)
  return np.asarray(inside & (interpolate(hull.values, position) >= 127.5))


def iou(a: np.ndarray, b: np.ndarray) -> float:
  return float((a & b).sum() / (a | b).sum())


def axis_points(capsule: tuple, count: int = 50) -> np.ndarray:
  a, b, _ = capsule
  return np.array(a) + np.linspace(0, 1, count)[:, None] * (np.array(b) - np.array(a))


def test_sphere_surface_is_a_sphere() -> None:
  hull = sphere_hull()
  radii = np.linalg.norm(hull.points, axis=-1)
  assert radii.min() > 0.6 - 0.01  # a hull never cuts into the solid
  assert radii.mean() < 0.64
  outward = (hull.normals * hull.points / radii[:, None]).sum(-1)
  assert outward.mean() > 0.97
  np.testing.assert_allclose(np.linalg.norm(hull.normals, axis=-1), 1.0, atol=1e-5)
  assert abs(float(hull.area) / (4 * np.pi * 0.6**2) - 1) < 0.1
  np.testing.assert_allclose(hull.centroid, 0.0, atol=0.01)
  assert 0.6 < float(hull.radius) < 0.72


def test_points_are_spread_evenly() -> None:
  points = np.asarray(sphere_hull().points)
  distance = np.linalg.norm(points[:, None] - points[None], axis=-1)
  np.fill_diagonal(distance, np.inf)
  nearest = distance.min(1)
  # Scattered at random the mean would be 0.5 spacings.
  spacing = np.sqrt(float(sphere_hull().area) / len(points))
  assert nearest.mean() > 0.57 * spacing
  octants = np.bincount((points > 0) @ [1, 2, 4], minlength=8) / len(points)
  np.testing.assert_allclose(octants, 1 / 8, atol=0.015)


def test_thin_tail_survives() -> None:
  hull = mouse_hull()
  for capsule in MOUSE:
    assert solid_at(hull, axis_points(capsule)).all()
  # Its surface is sampled too, all along.
  tail = axis_points(MOUSE[1], 12)
  distance = np.linalg.norm(np.asarray(hull.points)[:, None] - tail, axis=-1)
  assert (distance.min(0) < 0.06).all()


def test_silhouettes_are_reproduced_and_hold_the_truth_in_unseen_views() -> None:
  seen = np.asarray(hull_alpha(mouse_hull(), ring_cameras()))
  assert iou(seen > 0.5, mouse_scene().alphas[:6] > 0.5) > 0.985
  unseen = ring_cameras(6, elevation=35.0)
  truth, _ = trace(MOUSE, unseen)
  alpha = np.asarray(hull_alpha(mouse_hull(), unseen))
  assert alpha.min() >= 0 and alpha.max() <= 1
  lost = (truth > 0.5) & (alpha < 0.5)
  assert lost.sum() < 0.01 * (truth > 0.5).sum()
  assert iou(alpha > 0.5, truth > 0.5) > 0.8
  # Soft: pixels that are half covered are there, and about as many as in the truth.
  soft = lambda image: ((image > 0.1) & (image < 0.9)).sum()
  assert 0.5 < soft(seen) / soft(mouse_scene().alphas[:6]) < 2.0


@pytest.mark.parametrize("units", [1000.0, 0.001])
def test_any_unit_and_origin(units: float) -> None:
  move = Similarity(scale=units, translation=units * np.array([1.5, -0.7, 0.4]))
  hull = build_hull(transform_scene(mouse_scene(), move), CONFIG)
  np.testing.assert_allclose(
    hull.centroid, move.points(np.asarray(mouse_hull().centroid)), atol=0.01 * units
  )
  assert abs(float(hull.radius) / (units * float(mouse_hull().radius)) - 1) < 0.03
  assert solid_at(hull, move.points(axis_points(MOUSE[1]))).all()


def test_padding_views_and_crops_change_nothing() -> None:
  empty = jax.tree.map(np.array, mouse_scene())
  empty.alphas[6:], empty.images[6:] = 0.0, 0.0
  hull = build_hull(empty, CONFIG)
  np.testing.assert_array_equal(hull.values, mouse_hull().values)
  np.testing.assert_array_equal(hull.colors, mouse_hull().colors)
  assert (np.asarray(hull.repaired)[6:] == 0).all()
  hull = build_hull(crop_views(mouse_scene(), (SIZE, SIZE)), CONFIG)
  assert solid_at(hull, axis_points(MOUSE[1])).all()
  reference = np.asarray(hull_alpha(mouse_hull(), ring_cameras(6, elevation=35.0)))
  alpha = np.asarray(hull_alpha(hull, ring_cameras(6, elevation=35.0)))
  assert iou(alpha > 0.5, reference > 0.5) > 0.97


def test_background_known_beyond_the_image_still_carves() -> None:
  """Frames may reach past a crop; the pixels between are empty, not unknown."""
  cut = crop_views(mouse_scene(), (64, 64))
  shift = cut.cameras.intrinsics[:, 2:] - mouse_scene().cameras.intrinsics[:, 2:]
  wide = dataclasses.replace(cut, frames=mouse_scene().frames + np.tile(shift, (1, 2)))
  hull = build_hull(wide, CONFIG)
  unseen = ring_cameras(6, elevation=35.0)
  reference = np.asarray(hull_alpha(mouse_hull(), unseen))
  assert iou(np.asarray(hull_alpha(hull, unseen)) > 0.5, reference > 0.5) > 0.985


def test_outside_a_frame_is_unknown_not_background() -> None:
  scene = mouse_scene()
  frames, alphas = np.array(scene.frames), np.array(scene.alphas)
  columns = np.flatnonzero((alphas[1] > 0.5).any(0))
  frames[1, 2] = (columns[0] + columns[-1]) // 2
  alphas[1, :, int(frames[1, 2]) :] = 0.0
  cut = dataclasses.replace(scene, alphas=alphas)
  config = dataclasses.replace(CONFIG, repair=False)
  whole = np.concatenate([axis_points(capsule) for capsule in MOUSE])
  assert solid_at(build_hull(dataclasses.replace(cut, frames=frames), config), whole).all()
  assert not solid_at(build_hull(cut, config), whole).all()


def test_tight_photographs_give_the_hull_of_whole_ones() -> None:
  """Views that are cropped close to the animal fill the space beside it unless that is known."""
  scene = mouse_scene()
  boxes = silhouette_boxes(scene).astype(np.float32) + np.float32([-2, -2, 2, 2])
  tight = dataclasses.replace(scene, frames=boxes)
  unseen = ring_cameras(6, elevation=35.0)
  reference = np.asarray(hull_alpha(mouse_hull(), unseen)) > 0.5
  agreement = lambda hull: iou(np.asarray(hull_alpha(hull, unseen)) > 0.5, reference)
  assert agreement(build_hull(widen_frames(tight), CONFIG)) > 0.985
  assert agreement(build_hull(tight, CONFIG)) < 0.97


def test_clean_silhouettes_are_not_repaired() -> None:
  for scene in (mouse_scene(), sphere_scene(), make_scene(RING, ring_cameras())):
    hull = build_hull(scene, CONFIG)
    assert (np.asarray(hull.repaired) == 0).all()
    assert not np.asarray(hull.doubted).any()


def test_hole_in_one_mask_is_repaired() -> None:
  scene = mouse_scene()
  alphas = np.array(scene.alphas)
  rows, columns = np.mgrid[:SIZE, :SIZE]
  y, x = (int(i.mean()) for i in np.nonzero(alphas[2] > 0.5))
  alphas[2][(rows - y) ** 2 + (columns - x) ** 2 < 2.6**2] = 0.0
  holed = dataclasses.replace(scene, alphas=alphas)
  body = axis_points(MOUSE[0])
  assert not solid_at(build_hull(holed, dataclasses.replace(CONFIG, repair=False)), body).all()
  hull = build_hull(holed, CONFIG)
  assert solid_at(hull, body).all()
  # All of the hole and nothing else.
  expected = np.zeros(VIEWS)
  expected[2] = ((scene.alphas[2] > 0.5) & (alphas[2] == 0)).sum() / (scene.alphas[2] > 0.5).sum()
  np.testing.assert_allclose(hull.repaired, expected, atol=1e-6)
  doubted, hole = np.asarray(hull.doubted), (scene.alphas[2] > 0) & (alphas[2] == 0)
  assert doubted[2][hole].all()
  assert doubted[2].sum() < 4 * hole.sum()
  assert not np.delete(doubted, 2, 0).any()


def test_filled_holes_lend_no_black() -> None:
  """A repaired pixel has no colour of its own; a small hole everywhere must not darken the body."""
  scene = mouse_scene()
  alphas, images = np.array(scene.alphas), np.array(scene.images)
  rows, columns = np.mgrid[:SIZE, :SIZE]
  y, x = (int(i.mean()) for i in np.nonzero(alphas[3] > 0.5))
  hole = (rows - y) ** 2 + (columns - x) ** 2 < 2.6**2
  alphas[3][hole], images[3][hole] = 0.0, 0.0
  hull = build_hull(dataclasses.replace(scene, alphas=alphas, images=images), CONFIG)
  assert hull.repaired[3] > 0
  seen = np.asarray(hull.visibility) > 0.05
  assert (np.asarray(hull.colors)[seen].sum(-1) > 0.9).all()


@pytest.mark.slow
def test_slack_keeps_a_tail_that_a_wrong_calibration_cuts() -> None:
  scene = mouse_scene()
  intrinsics = np.array(scene.cameras.intrinsics)
  intrinsics[:, 3] += np.where(np.arange(VIEWS) % 2, 2.0, -1.5)
  cameras = dataclasses.replace(scene.cameras, intrinsics=intrinsics)
  wrong = dataclasses.replace(scene, cameras=cameras)
  tail = axis_points(MOUSE[1])
  assert solid_at(build_hull(wrong, CONFIG), tail).mean() < 0.5
  slack = dataclasses.replace(CONFIG, slack=2)
  assert solid_at(build_hull(wrong, slack), tail).mean() > 0.95


def test_tail_missing_in_one_mask_is_restored() -> None:
  scene = mouse_scene()
  alphas = np.array(scene.alphas)
  alphas[1] = trace(MOUSE[:1], scene.cameras[1:2])[0][0]
  cut = dataclasses.replace(scene, alphas=alphas)
  tail = axis_points(MOUSE[1])
  kept = solid_at(build_hull(cut, dataclasses.replace(CONFIG, repair=False)), tail)
  assert not kept[10:].any()
  hull = build_hull(cut, CONFIG)
  assert solid_at(hull, tail).mean() > 0.95
  assert hull.repaired[1] > 0
  # The rest is not fattened by it.
  alpha = np.asarray(hull_alpha(hull, ring_cameras()))
  assert iou(alpha > 0.5, scene.alphas[:6] > 0.5) > 0.95


def test_two_views_against_the_rest_are_believed() -> None:
  scene = mouse_scene()
  alphas = np.array(scene.alphas)
  for view in (1, 5):
    alphas[view] = trace(MOUSE[:1], scene.cameras[view : view + 1])[0][0]
  hull = build_hull(dataclasses.replace(scene, alphas=alphas), CONFIG)
  assert not solid_at(hull, axis_points(MOUSE[1])[35:]).any()


def test_real_opening_stays_open() -> None:
  hull = build_hull(make_scene(RING, ring_cameras()), CONFIG)
  assert not solid_at(hull, np.array([[0.0, 0.1, 0.0]])).any()


def test_colours_come_from_the_side_that_a_point_faces() -> None:
  hull = sphere_hull()
  points, colors = np.asarray(hull.points), np.asarray(hull.colors)
  red = np.array([1.0, 0.0, 0.0])
  clear = np.abs(points[:, 0]) > 0.08
  expected = np.where(points[:, :1] < 0, red, red[::-1])
  assert np.abs(colors - expected)[clear].mean() < 0.02
  assert (np.abs(colors - expected)[clear].max(-1) < 0.5).mean() > 0.99
  assert (hull.visibility > 0.1).mean() > 0.95


def test_hidden_points_are_known_as_such_and_take_colours_around_them() -> None:
  # From above only: no view sees what faces down.
  scene = make_scene(SPHERE, ring_cameras(6, elevation=50.0))
  hull = build_hull(scene, CONFIG)
  below = np.asarray(hull.points)[:, 2] < -0.55
  assert (np.asarray(hull.visibility)[below] < 0.05).mean() > 0.9
  expected = np.where(np.asarray(hull.points)[:, 0] < 0, 0, 2)
  side = np.abs(np.asarray(hull.points)[:, 0]) > 0.25
  assert (np.asarray(hull.colors).argmax(-1) == expected)[below & side].mean() > 0.9


def test_sheen_at_grazing_angles_does_not_colour_what_nobody_sees() -> None:
  scene = make_scene(SPHERE, ring_cameras(6, elevation=50.0))
  rows, columns = np.mgrid[:SIZE, :SIZE]
  images = np.zeros_like(scene.images)
  for image, alpha in zip(images, scene.alphas, strict=True):
    y, x = (i[alpha > 0.5].mean() for i in (rows, columns))
    distance = np.hypot(rows - y, columns - x)
    off_axis = distance / max(distance[alpha > 0.5].max(), 1.0)
    # Dark cloth that looks white along its surface.
    image[:] = np.where(alpha > 0, 0.3 + 0.6 * np.clip(off_axis, 0, 1) ** 8, 0.0)[..., None]
  hull = build_hull(dataclasses.replace(scene, images=images), CONFIG)
  below = np.asarray(hull.points)[:, 2] < -0.55
  assert np.asarray(hull.colors)[below].mean() < 0.5


@pytest.mark.parametrize("model", ["2dgs", "3dgs"])
@pytest.mark.parametrize("count", [400, 4000])
def test_initial_gaussians_lie_on_the_surface(model: str, count: int) -> None:
  hull = sphere_hull()
  splats = initial_gaussians(hull, jax.random.key(0), count, model=model, sh_degree=1)
  assert gs.model_name(splats) == model
  assert splats.means.shape == (count, 3) and splats.sh.shape == (count, 4, 3)
  assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(splats))
  radii = np.linalg.norm(splats.means, axis=-1)
  spacing = np.sqrt(float(hull.area) / count)
  assert 0.6 - 1.1 * spacing < radii.min() and radii.mean() < 0.63
  outward = (gs.normals(splats) * splats.means / radii[:, None]).sum(-1)
  assert outward.mean() > 0.95  # outward, not only along the line
  scales = np.asarray(gs.scales(splats))
  np.testing.assert_allclose(scales[:, 0], scales[:, 1])
  np.testing.assert_allclose(np.median(scales[:, 0]), 0.65 * spacing, rtol=0.05)
  if model == "3dgs":
    assert (scales[:, 2] < 0.5 * scales[:, 0]).all()
  np.testing.assert_allclose(gs.opacities(splats), 0.7, rtol=1e-4)
  np.testing.assert_array_equal(splats.sh[:, 1:], 0.0)
  used = (np.arange(count) * len(hull.points)) // count
  np.testing.assert_allclose(
    0.5 + 0.28209479177387814 * splats.sh[:, 0], np.asarray(hull.colors)[used], atol=1e-5
  )


def test_discs_are_no_wider_than_a_tail() -> None:
  splats = initial_gaussians(mouse_hull(), jax.random.key(0), 200, model="2dgs")
  tail = np.asarray(splats.means)[:, 0] > 0.5
  scales = np.asarray(gs.scales(splats))[:, 0]
  assert scales[tail].mean() < 0.7 * scales[~tail].mean()


def test_unknown_model_is_refused() -> None:
  with pytest.raises(ValueError, match="model: expected one of"):
    initial_gaussians(sphere_hull(), jax.random.key(0), 10, model="4dgs")


def test_the_same_input_gives_the_same_bytes() -> None:
  again = carve_hull(mouse_scene(), CONFIG)
  for a, b in zip(jax.tree.leaves(mouse_hull()), jax.tree.leaves(again), strict=True):
    np.testing.assert_array_equal(a, b)


def test_radius_reaches_to_the_end_of_the_tail() -> None:
  hull = mouse_hull()
  end = np.array(MOUSE[1][1])
  # The tail is 0.03 thick, voxels are 0.02 wide.
  assert abs(float(hull.radius) - np.linalg.norm(end - hull.centroid) - 0.03) < 0.04


def test_cameras_without_a_common_volume() -> None:
  scene = mouse_scene()
  matrices = np.array(scene.cameras.world_to_camera)
  turn = np.diag([-1.0, 1.0, -1.0, 1.0])
  apart = dataclasses.replace(scene.cameras, world_to_camera=(turn @ matrices).astype(np.float32))
  with pytest.raises(ValueError, match="cameras: no volume"):
    build_hull(dataclasses.replace(scene, cameras=apart), CONFIG)


def test_silhouettes_without_a_common_solid() -> None:
  scene = mouse_scene()
  alphas = np.zeros_like(scene.alphas)
  for view, place in enumerate([(8, 8), (80, 80), (8, 80), (80, 8), (8, 44), (80, 44)]):
    alphas[view, place[0] : place[0] + 8, place[1] : place[1] + 8] = 1.0
  bad = dataclasses.replace(scene, alphas=alphas)
  with pytest.raises(ValueError, match="silhouettes: no point"):
    build_hull(bad, CONFIG)
  splats = initial_gaussians(carve_hull(bad, CONFIG), jax.random.key(0), 50)
  assert np.isnan(splats.means).all()


def test_one_view_is_too_few() -> None:
  scene = dataclasses.replace(mouse_scene(), view_mask=np.arange(VIEWS) == 0)
  with pytest.raises(ValueError, match=r"view_mask: .* at least 2 views, got 1"):
    build_hull(scene, CONFIG)


def test_field_is_the_smallest_sample() -> None:
  scene = mouse_scene()
  points = np.random.default_rng(0).uniform(-0.5, 0.5, (200, 3))
  lowest = np.ones(len(points))
  for matrix, intrinsics, alpha in zip(
    scene.cameras.world_to_camera, scene.cameras.intrinsics, scene.alphas, strict=True
  ):
    x = points @ matrix[:3, :3].T + matrix[:3, 3]
    pixel = x[:, :2] / x[:, 2:] * intrinsics[:2] + intrinsics[2:] - 0.5
    base = np.floor(pixel).astype(int)
    a, b = (pixel - base).T
    c, r = base.T
    value = (alpha[r, c] * (1 - a) + alpha[r, c + 1] * a) * (1 - b) + (
      alpha[r + 1, c] * (1 - a) + alpha[r + 1, c + 1] * a
    ) * b
    lowest = np.minimum(lowest, value)
  views = make_views(
    quantize(jnp.asarray(scene.alphas)),
    scene.cameras.world_to_camera,
    scene.cameras.intrinsics,
    scene.frames,
    scene.view_mask,
    4,
  )
  found = hull_field(views, jnp.asarray(points, jnp.float32))
  np.testing.assert_allclose(found, lowest, atol=0.01)  # 8-bit coverage, float32 pixels


@pytest.mark.parametrize("radius", [0, 1, 3, 5, 20])
def test_dilation_covers_the_radius_and_little_more(radius: int) -> None:
  images = np.zeros((2, 64, 80), np.uint8)
  images[:, 30, 40] = 200
  grown = np.asarray(
    dilate(jnp.asarray(images), jnp.array([radius, 0.0]), jnp.array([2.0, radius]))
  )
  width, height = (grown[0] > 0).any(0).sum(), (grown[0] > 0).any(1).sum()
  assert 2 * radius + 1 <= width <= 2 * (1.4 * radius + 1) + 1
  assert height == 5
  assert (grown[1] > 0).any(0).sum() == 1
  assert (grown[0, 28:33, 40 - radius : 41 + radius] == 200).all()


@pytest.mark.slow
def test_vmap_equals_loop() -> None:
  config = HullConfig(resolution=32, num_points=200)
  scenes = [make_scene(solid, ring_cameras(6, 48)) for solid in (MOUSE, RING)]
  stacked = jax.tree.map(lambda *x: np.stack(x), *scenes)
  together = jax.vmap(lambda scene: carve_hull(scene, config))(stacked)
  for index, scene in enumerate(scenes):
    alone = carve_hull(scene, config)
    np.testing.assert_allclose(together.values[index].astype(int), alone.values, atol=1)
    np.testing.assert_allclose(together.points[index], alone.points, atol=2e-3)


def load_folder(folder) -> Scene:
  frames = json.loads((folder / "opencv_cameras.json").read_text())["frames"]
  rgba = np.stack([np.asarray(Image.open(folder / f["file_path"]), np.float32) for f in frames])
  rgba /= 255.0
  height, width = rgba.shape[1:3]
  alphas = np.ascontiguousarray(rgba[..., 3])
  return Scene(
    cameras=Cameras(
      world_to_camera=np.array([f["w2c"] for f in frames], np.float32),
      intrinsics=np.array([[f[k] for k in ("fx", "fy", "cx", "cy")] for f in frames], np.float32),
      width=width,
      height=height,
    ),
    images=np.where(alphas[..., None] > 0, rgba[..., :3], 0.0),
    alphas=alphas,
    frames=np.tile(np.array([0, 0, width, height], np.float32), (len(frames), 1)),
    view_mask=np.ones(len(frames), bool),
  )


@pytest.mark.slow
@pytest.mark.parametrize(("name", "least"), [("spot", 0.94), ("facelift_head", 0.94)])
def test_unseen_silhouettes_of_sample_scenes(shared_dir, name: str, least: float) -> None:
  """All 32 target views of each scene at full size; the design measured .945 on spot."""
  scene = load_folder(shared_dir / "data" / name / "input")
  target = load_folder(shared_dir / "data" / name / "target")
  hull = build_hull(scene)
  alpha = np.asarray(hull_alpha(hull, target.cameras))
  scores = [iou(a > 0.5, t > 0.5) for a, t in zip(alpha, target.alphas, strict=True)]
  print(f"{name}: IoU mean {np.mean(scores):.4f}, worst {np.min(scores):.4f}")
  assert np.mean(scores) >= least
  assert (np.asarray(hull.repaired) == 0).all()
