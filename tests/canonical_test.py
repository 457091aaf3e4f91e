"""The canonical frame: it puts the animal at the origin and moves no pixel."""

from __future__ import annotations

import dataclasses
import functools

import numpy as np
import pytest

from jaxsplat_mouse.cameras import Cameras, generate_camera_poses, look_at
from jaxsplat_mouse.canonical import canonicalize, recording_scale, rotation_to_z, up_axis
from jaxsplat_mouse.scene import Scene, Similarity, transform_scene
from jaxsplat_mouse.visual_hull.build import hull_extent
from jaxsplat_mouse.visual_hull.hull import HullConfig

SIZE = 96
CONFIG = HullConfig(resolution=64)
# A ball of radius 0.4 beside the origin.
CENTER, RADIUS = np.array([0.2, -0.1, 0.15]), 0.4


def ball_alphas(cameras: Cameras) -> np.ndarray:
  """Returns soft silhouettes (V, H, W) of the ball: the angle to its rim, in pixels."""
  alphas = []
  for matrix, (fx, fy, cx, cy) in zip(cameras.world_to_camera, cameras.intrinsics, strict=True):
    x = (np.arange(cameras.width) + 0.5 - cx) / fx
    y = (np.arange(cameras.height) + 0.5 - cy) / fy
    rays = np.stack(np.broadcast_arrays(x[None], y[:, None], 1.0), -1)
    rays /= np.linalg.norm(rays, axis=-1, keepdims=True)
    middle = matrix[:3, :3] @ CENTER + matrix[:3, 3]
    distance = np.linalg.norm(middle)
    angle = np.arccos(np.clip(rays @ (middle / distance), -1, 1))
    rim = np.arcsin(RADIUS / distance)
    alphas.append(np.clip(0.5 + (rim - angle) * fx, 0.0, 1.0))
  return np.stack(alphas).astype(np.float32)


@functools.cache
def ball_scene() -> Scene:
  cameras = generate_camera_poses(6, image_size=SIZE)
  alphas = ball_alphas(cameras)
  frame = np.array([0, 0, SIZE, SIZE], np.float32)
  return Scene(
    cameras=cameras,
    images=np.repeat(alphas[..., None] > 0, 3, -1).astype(np.float32),
    alphas=alphas,
    frames=np.tile(frame, (6, 1)),
    view_mask=np.ones(6, bool),
  )


def moved_scene(scale: float, axis: np.ndarray, offset: np.ndarray) -> tuple[Scene, Similarity]:
  """Returns the ball scene in a world of other units, axis and origin, and the transform to it."""
  there = Similarity(scale=scale, rotation=rotation_to_z(axis).T, translation=offset)
  return transform_scene(ball_scene(), there), there


def project(cameras: Cameras, points: np.ndarray) -> np.ndarray:
  """Returns pixels (V, N, 2) of points, in float64."""
  matrices = np.asarray(cameras.world_to_camera, np.float64)
  x = np.einsum("vij,nj->vni", matrices[:, :3, :3], points) + matrices[:, None, :3, 3]
  intrinsics = np.asarray(cameras.intrinsics, np.float64)[:, None]
  return x[..., :2] / x[..., 2:] * intrinsics[..., :2] + intrinsics[..., 2:]


def test_the_animal_stands_at_the_origin_with_the_given_radius() -> None:
  scene, similarity = canonicalize(ball_scene(), radius=0.8, config=CONFIG)
  centroid, radius = hull_extent(scene, CONFIG)
  np.testing.assert_allclose(centroid, 0.0, atol=0.01)
  assert abs(radius - 0.8) < 0.015
  # The hull of a ball is centred on it up to its bulges above and below.
  np.testing.assert_allclose(similarity.points(CENTER), 0.0, atol=0.08)
  np.testing.assert_array_equal(similarity.rotation, np.eye(3))


@pytest.mark.parametrize("unit", [1000.0, 1.0, 0.01])
def test_units_and_up_axes_do_not_matter(unit: float) -> None:
  axis = np.array([0.3, -0.5, 0.6]) / np.linalg.norm([0.3, -0.5, 0.6])
  scene, there = moved_scene(unit, axis, unit * np.array([0.5, 2.0, -1.0]))
  result, back = canonicalize(scene, up=axis, config=CONFIG)
  reference, plain = canonicalize(ball_scene(), config=CONFIG)
  np.testing.assert_allclose(
    back.scale * there.scale, plain.scale, rtol=0.02
  )  # grids lie differently
  np.testing.assert_allclose(
    result.cameras.world_to_camera, reference.cameras.world_to_camera, atol=0.05
  )


@pytest.mark.parametrize("unit", [1000.0, 1.0])
def test_projections_stay_and_the_transform_inverts(unit: float) -> None:
  scene, _ = moved_scene(unit, np.array([0.0, 0.6, 0.8]), unit * np.array([0.3, 0.1, -0.2]))
  points = unit * np.random.default_rng(0).uniform(-0.5, 0.5, (50, 3))
  result, similarity = canonicalize(scene, config=CONFIG)
  before = project(scene.cameras, points)
  after = project(result.cameras, similarity.points(points))
  np.testing.assert_allclose(after, before, atol=1e-4)
  again = transform_scene(result, similarity.inverse())
  np.testing.assert_allclose(project(again.cameras, points), before, atol=1e-4)
  np.testing.assert_allclose(
    similarity.inverse().points(similarity.points(points)), points, atol=1e-9 * unit
  )
  np.testing.assert_array_equal(result.cameras.intrinsics, scene.cameras.intrinsics)
  assert result.images is scene.images and result.alphas is scene.alphas
  stored = Similarity.from_json(similarity.to_json())
  np.testing.assert_allclose(stored.matrix(), similarity.matrix(), rtol=1e-12)


def test_one_scale_for_a_recording() -> None:
  radii = [hull_extent(ball_scene(), CONFIG)[1], 0.1]
  scale = recording_scale(radii, radius=0.85)
  assert scale == pytest.approx(0.85 / radii[0])
  scene, similarity = canonicalize(
    ball_scene(), normalize="recording", scale=0.5 * scale, config=CONFIG
  )
  assert similarity.scale == 0.5 * scale
  centroid, radius = hull_extent(scene, CONFIG)
  np.testing.assert_allclose(centroid, 0.0, atol=0.01)
  assert abs(radius - 0.425) < 0.01


def test_none_keeps_the_input_frame() -> None:
  scene, similarity = canonicalize(ball_scene(), normalize="none")
  assert scene is ball_scene()
  np.testing.assert_array_equal(similarity.matrix(), np.eye(4))


def test_up_of_level_cameras_is_exact_at_uneven_elevations() -> None:
  eyes = [(2, 0, 0.3), (1, 2, 1.4), (-1.5, 1, 0.2), (-2, -1, 0.9), (0.5, -2.5, 0.1)]
  poses = np.stack([look_at(np.array(eye), target=(0.1, 0.2, 0.0)) for eye in eyes])
  tilt = rotation_to_z(np.array([0.48, -0.6, 0.64]))
  cameras = dataclasses.replace(
    ball_scene().cameras,
    world_to_camera=Similarity(rotation=tilt.T).world_to_camera(poses),
  )
  np.testing.assert_allclose(up_axis(cameras, "cameras"), [0.48, -0.6, 0.64], atol=1e-6)


def test_up_of_cameras_in_one_plane_is_their_mean() -> None:
  pose = look_at(np.array([2.0, 0.0, 0.5]))
  cameras = dataclasses.replace(ball_scene().cameras, world_to_camera=np.stack([pose, pose]))
  np.testing.assert_allclose(up_axis(cameras, "cameras"), -pose[1, :3])


@pytest.mark.parametrize(
  ("up", "axis"),
  [
    ("+z", (0, 0, 1)),
    ("z", (0, 0, 1)),
    ("-Y", (0, -1, 0)),
    ("+x", (1, 0, 0)),
    ((0, 3, 0), (0, 1, 0)),
  ],
)
def test_named_axes(up, axis: tuple) -> None:
  np.testing.assert_array_equal(up_axis(ball_scene().cameras, up), axis)


@pytest.mark.parametrize("axis", [(0, 0, 1), (0, 0, -1), (1, 0, 0), (0.6, 0, -0.8), (1e-9, 0, -1)])
def test_rotation_to_z(axis: tuple) -> None:
  rotation = rotation_to_z(np.array(axis, float))
  np.testing.assert_allclose(rotation @ axis, [0, 0, 1], atol=1e-8)
  np.testing.assert_allclose(rotation @ rotation.T, np.eye(3), atol=1e-8)
  assert np.linalg.det(rotation) == pytest.approx(1.0)


@pytest.mark.parametrize(
  ("arguments", "message"),
  [
    ({"normalize": "frame"}, "normalize: expected scene, recording or none"),
    ({"normalize": "recording"}, "normalize: recording takes"),
    ({"scale": -1.0}, "scale: expected a number > 0"),
    ({"radius": 0.0}, "radius: expected a number > 0"),
    ({"up": "up"}, "up: expected cameras, a vector"),
    ({"up": (0.0, 0.0, 0.0)}, "up: expected three numbers"),
  ],
)
def test_bad_arguments(arguments: dict, message: str) -> None:
  with pytest.raises(ValueError, match=message):
    canonicalize(ball_scene(), config=CONFIG, **arguments)
