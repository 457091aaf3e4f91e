"""Poses that silhouettes of many moments determine: found again, and kept where they are right."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsplat_mouse.cameras import look_at
from jaxsplat_mouse.capture import pose_refinement, silhouette_coherence
from jaxsplat_mouse.capture.pose_refinement import CoherenceStage
from jaxsplat_mouse.capture.silhouette_coherence import Outlines, stack_outlines, trace_outline
from jaxsplat_mouse.procedural_mouse.disturb import rotation_about

pytest.importorskip("cv2")
SIZE, FOCAL, VIEWS, MOMENTS = 96, 150.0, 5, 8
INTRINSICS = np.array([FOCAL, FOCAL, SIZE / 2, SIZE / 2])
FRAME = np.array([0.0, 0.0, SIZE, SIZE])
STAGES = (
  CoherenceStage(steps=12, temperature=2.0, scale=10.0, share=0.6),
  CoherenceStage(steps=8, temperature=0.5, scale=2.0, share=0.3),
)


def true_poses() -> np.ndarray:
  """Five cameras at different heights and distances, no two alike."""
  poses = []
  for i in range(VIEWS):
    angle = 2 * np.pi * (i + 0.1 * i * i) / VIEWS
    eye = (5.0 + 0.3 * i) * np.array([np.cos(angle), np.sin(angle), 0.1 + 0.15 * i])
    poses.append(look_at(eye, (0.0, 0.0, 0.05 * i)))
  return np.stack(poses)


def spheres_at(moment: float) -> tuple[np.ndarray, np.ndarray]:
  """Centres (3, 3) and radii (3,) of an animal without symmetry that turns as it walks."""
  angle = 1.3 * moment
  c, s = np.cos(angle), np.sin(angle)
  body = np.array([[0.0, 0.0, 0.0], [0.75, 0.1, 0.2], [-0.3, -0.55, 0.35]])
  turned = body @ np.array([[c, s, 0], [-s, c, 0], [0, 0, 1]])
  return turned + 0.15 * np.array([np.cos(2.1 * moment), np.sin(1.7 * moment), 0.0]), np.array(
    [0.5, 0.3, 0.25]
  )


def silhouette(pose: np.ndarray, moment: float, grow: float = 0.0) -> np.ndarray:
  """Exact coverage (H, W) uint8 of the spheres, wider by `grow` pixels."""
  samples = 4
  line = (np.arange(SIZE * samples) + 0.5) / samples
  x, y = np.meshgrid((line - SIZE / 2) / FOCAL, (line - SIZE / 2) / FOCAL)
  rays = np.stack([x, y, np.ones_like(x)], -1)
  covered = np.zeros(x.shape, bool)
  for center, radius in zip(*spheres_at(moment), strict=True):
    c = pose[:3, :3] @ center + pose[:3, 3]
    across = c @ c - (rays @ c) ** 2 / (rays**2).sum(-1)
    covered |= across < (radius + grow * c[2] / FOCAL) ** 2
  blocks = covered.reshape(SIZE, samples, SIZE, samples).mean((1, 3))
  return np.round(255 * blocks).astype(np.uint8)


def trace(pose: np.ndarray, moment: float, grow: float = 0.0) -> Outlines:
  return trace_outline(silhouette(pose, moment, grow), INTRINSICS, FRAME, side=SIZE, points=24)


def film(grow: float = 0.0) -> Outlines:
  rows = [[trace(pose, m, grow) for pose in true_poses()] for m in range(MOMENTS)]
  return stack_outlines(rows)


@pytest.fixture(scope="module")
def outlines() -> Outlines:
  return film()


def shaken(degrees: float, seed: int = 0) -> np.ndarray:
  """The true poses, each camera turned about its centre."""
  rng = np.random.default_rng(seed)
  poses = true_poses()
  for pose in poses:
    pose[:3] = rotation_about(np.radians(degrees) * rng.normal(size=3)) @ pose[:3]
  return poses


def error(poses: np.ndarray) -> float:
  """Root mean square error near the animal, pixels, less what all cameras share."""
  moved = pose_refinement.remove_common_motion(poses, true_poses(), np.zeros(3), 1.0)
  points = np.random.default_rng(1).uniform(-0.6, 0.6, (50, 3))
  seen = []
  for cameras in (moved, true_poses()):
    x = np.einsum("vij,nj->vni", cameras[:, :3, :3], points) + cameras[:, None, :3, 3]
    seen.append(FOCAL * x[..., :2] / x[..., 2:])
  return float(np.sqrt(np.square(seen[0] - seen[1]).sum(-1).mean()))


def disc(radius: float, x: float = 48.0, y: float = 48.0) -> np.ndarray:
  """Antialiased disc (H, W) uint8."""
  line = np.arange(SIZE) + 0.5
  distance = np.hypot(line[None] - x, line[:, None] - y)
  return np.round(255 * np.clip(0.5 + radius - distance, 0, 1)).astype(np.uint8)


def test_an_outline_lies_on_the_silhouettes_edge() -> None:
  found = trace_outline(disc(20.3), INTRINSICS, FRAME, side=SIZE, points=40)
  radius = np.linalg.norm(found.rays * FOCAL, axis=1)
  np.testing.assert_allclose(radius, 20.3, atol=0.25)
  assert found.weights.min() == 1 and found.whole
  np.testing.assert_allclose(found.centroids, 0, atol=1e-3)
  points = jnp.array([[20.0 / FOCAL, 0.0, 2.0], [30.3 / FOCAL, 0.0, 1.0], [0.0, 15.3 / FOCAL, 1.0]])
  signed = silhouette_coherence.view_distance(
    found.distances, found.intrinsics, jnp.asarray(FRAME), points
  )
  np.testing.assert_allclose(signed, [10.3, -10, 5], atol=0.2)


def test_an_outline_at_the_frames_border_has_no_weight() -> None:
  found = trace_outline(disc(20.0, x=10.0), INTRINSICS, FRAME, side=SIZE, points=40)
  pixels = found.rays * FOCAL + 48
  assert not found.whole and 0 < found.weights.mean() < 1
  assert (found.weights[pixels[:, 0] < 1] == 0).all()
  empty = trace_outline(np.zeros((SIZE, SIZE), np.uint8), INTRINSICS, FRAME, side=SIZE)
  assert not empty.weights.any() and not empty.whole


def test_right_cameras_leave_no_contradiction(outlines: Outlines) -> None:
  ones = np.ones(VIEWS)
  right = pose_refinement.worst_depths(true_poses(), ones, outlines)
  wrong = pose_refinement.worst_depths(shaken(1.0), ones, outlines)
  assert right.min() > -0.4 and wrong.max() < -1.0


def test_the_derivative_is_that_of_the_depth(outlines: Outlines) -> None:
  moment = outlines.select([0])
  poses = jnp.asarray(shaken(0.5), jnp.float32)
  direction = jnp.asarray(np.random.default_rng(2).normal(size=(VIEWS, 6)) * 0.2, jnp.float32)

  @jax.jit
  def depths(amount: jax.Array) -> jax.Array:
    moved = poses @ pose_refinement.twist_matrices(amount * direction)
    one = jax.tree.map(lambda leaf: jnp.asarray(leaf[0]), moment)
    center, radius = jnp.zeros(3), jnp.float32(1.4)
    temperature = jnp.float32(2.0)
    return silhouette_coherence.depths_of_entry(
      moved, jnp.ones(VIEWS), one, center, radius, temperature
    )

  _, slope = jax.jvp(depths, (jnp.float32(0.0),), (jnp.float32(1.0),))
  step = 0.02  # up to half a pixel
  difference = (depths(jnp.float32(step)) - depths(jnp.float32(-step))) / (2 * step)
  valid = np.asarray(moment.weights[0]) > 0
  slope, difference = np.asarray(slope)[valid], np.asarray(difference)[valid]
  # About: the place along the ray is found without gradients, and depth has kinks.
  assert np.median(np.abs(slope - difference)) < 0.25 * np.median(np.abs(difference))


def test_turned_cameras_come_back(outlines: Outlines) -> None:
  given = shaken(1.0)
  found = pose_refinement.refine_poses(given, outlines, stages=STAGES)
  assert found.accepted and error(given) > 2.0 and error(found.world_to_camera) < 0.25
  assert found.depth_after.mean() > found.depth_before.mean() + 1.0
  assert found.turns.max() < 5.0 and found.pixels.max() > 1.0
  np.testing.assert_allclose(np.linalg.det(found.world_to_camera[:, :3, :3]), 1.0, atol=1e-6)


def test_wide_masks_do_not_mislead_it() -> None:
  given = shaken(1.0, seed=3)
  found = pose_refinement.refine_poses(given, film(grow=2.0), stages=STAGES)
  assert found.accepted and error(found.world_to_camera) < 0.4


def test_right_poses_stay_to_the_last_bit(outlines: Outlines) -> None:
  found = pose_refinement.refine_poses(true_poses(), outlines, stages=STAGES)
  assert not found.accepted
  np.testing.assert_array_equal(found.world_to_camera, true_poses())
  np.testing.assert_array_equal(found.focal, 1.0)


def test_a_missing_silhouette_costs_nothing(outlines: Outlines) -> None:
  weights, whole = outlines.weights.copy(), outlines.whole.copy()
  weights[2, 1], whole[2, 1] = 0.0, False
  holey = dataclasses.replace(outlines, weights=weights, whole=whole)
  found = pose_refinement.refine_poses(shaken(0.5), holey, stages=STAGES)
  assert found.accepted and error(found.world_to_camera) < 0.3


def test_what_all_cameras_share_is_taken_out() -> None:
  poses = true_poses()
  turn = np.eye(4)
  turn[:3, :3], turn[:3, 3] = rotation_about(np.array([0.01, -0.02, 0.015])), (0.05, -0.03, 0.02)
  moved = poses @ turn
  moved[:, :3, 3] *= 1.01
  back = pose_refinement.remove_common_motion(moved, poses, np.zeros(3), 1.0)
  np.testing.assert_allclose(back, poses, atol=1e-5)
