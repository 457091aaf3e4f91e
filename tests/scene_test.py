"""Scenes: similarity transforms, crops and padding move intrinsics and images together."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np
import pytest
from scipy.spatial.transform import Rotation

from jaxsplat_mouse import cameras, scene
from jaxsplat_mouse.fit.objective import views_at
from jaxsplat_mouse.visual_hull.silhouette_views import quantize

_SIMILARITY = scene.Similarity(
  scale=0.013,
  rotation=Rotation.from_rotvec([0.3, -1.1, 2.0]).as_matrix(),
  translation=np.array([0.2, -3.0, 1.5]),
)


def _scene(views: int = 3, height: int = 20, width: int = 30) -> scene.Scene:
  """Returns views whose pixels hold their own coordinates, with a box as silhouette."""
  ring = cameras.generate_camera_poses(views, image_size=32)
  y, x = np.mgrid[:height, :width].astype(np.float32)
  images = np.tile(np.stack([x, y, 0 * x], -1) / 100.0, (views, 1, 1, 1))
  alphas = np.zeros((views, height, width), np.float32)
  for i in range(views):
    alphas[i, 4 + i : 10 + i, 11 : 20 + i] = 1.0
  return scene.Scene(
    cameras=dataclasses.replace(ring, width=width, height=height),
    images=images,
    alphas=alphas,
    frames=np.tile(np.array([0, 0, width, height], np.float32), (views, 1)),
    view_mask=np.ones(views, bool),
  )


def _project(points, world_to_camera, intrinsics):
  local = points @ world_to_camera[:3, :3].T + world_to_camera[:3, 3]
  return local[:, :2] / local[:, 2:] * intrinsics[:2] + intrinsics[2:]


def test_similarity_inverts_and_keeps_projections():
  points = np.random.default_rng(0).normal(size=(20, 3)) * 30.0
  np.testing.assert_allclose(
    _SIMILARITY.inverse().points(_SIMILARITY.points(points)), points, atol=1e-9
  )
  original = _scene()
  view = cameras.look_at([300.0, -20.0, 90.0])
  moved = _SIMILARITY.world_to_camera(view)
  np.testing.assert_allclose(moved[:3, :3] @ moved[:3, :3].T, np.eye(3), atol=1e-12)
  intrinsics = np.asarray(original.cameras.intrinsics[0], np.float64)
  np.testing.assert_allclose(
    _project(_SIMILARITY.points(points), moved, intrinsics),
    _project(points, view, intrinsics),
    atol=1e-7,
  )


def test_similarity_survives_json():
  again = scene.Similarity.from_json(_SIMILARITY.to_json())
  np.testing.assert_array_equal(again.matrix(), _SIMILARITY.matrix())
  with pytest.raises(ValueError, match="rotation"):
    scene.Similarity.from_json({**_SIMILARITY.to_json(), "rotation": (-np.eye(3)).tolist()})


def test_crop_moves_the_principal_point_with_the_pixels():
  original = _scene()
  cropped = scene.crop_views(original, (16, 16))
  shift = np.asarray(original.cameras.intrinsics - cropped.cameras.intrinsics)[:, 2:]
  assert cropped.images.shape == (3, 16, 16, 3) and cropped.cameras.width == 16
  for i in range(3):
    rows, columns = np.nonzero(cropped.alphas[i])
    assert len(rows) == original.alphas[i].sum()  # nothing of the animal is lost
    stored = cropped.images[i, rows, columns, :2] * 100.0
    np.testing.assert_allclose(stored, np.stack([columns, rows], -1) + shift[i], atol=1e-4)


def test_crop_past_the_photograph_is_unobserved():
  original = _scene()
  cropped = scene.crop_views(original, (32, 64))
  for i in range(3):
    x0, y0, x1, y1 = cropped.frames[i].astype(int)
    assert (x1 - x0, y1 - y0) == (30, 20)
    outside = np.ones((32, 64), bool)
    outside[y0:y1, x0:x1] = False
    assert not cropped.images[i][outside].any()


@pytest.mark.parametrize("levels", [False, True])
def test_what_a_whole_silhouette_leaves_out_is_background(levels):
  """Photographs are cropped close to the animal; one that cuts the animal shows only a part."""
  frames = np.tile(np.float32([5, 2, 25, 18]), (3, 1))
  one = dataclasses.replace(_scene(3), frames=frames)
  one.alphas[1, 12, 5:12] = 1.0
  one.alphas[2, 12, 5:12] = 0.3  # softer than an outline
  one.alphas[2, 12, 4] = 1.0  # outside the frame
  one = scene.to_uint8(one) if levels else one
  wide = [5 - 30, 2 - 30, 25 + 30, 18 + 30]
  for given in (one, jax.tree.map(jax.numpy.asarray, one)):
    np.testing.assert_array_equal(scene.widen_frames(given).frames, [wide, frames[1], wide])
  seen = scene.observed_pixels(scene.widen_frames(one))
  assert seen[[0, 2]].all() and seen[1].sum() == 16 * 20


def test_crop_shape_holds_every_view_in_steps():
  height, width = scene.crop_shape([_scene()], multiple=8)
  assert height % 8 == 0 and width % 8 == 0 and height >= 6 and width >= 11


def test_stacking_pads_view_counts():
  batch = scene.stack_scenes([_scene(3), _scene(5)])
  assert batch.images.shape == (2, 5, 20, 30, 3)
  np.testing.assert_array_equal(batch.view_mask, [[1, 1, 1, 0, 0], [1, 1, 1, 1, 1]])
  with pytest.raises(ValueError, match="5 views"):
    scene.pad_views(_scene(5), 4)


def test_padding_is_no_view_and_no_observed_pixel():
  one = dataclasses.replace(_scene(3), frames=np.tile(np.float32([2, 0, 30, 20]), (3, 1)))
  padded = scene.pad_views(one, 5)
  assert one.num_views == padded.num_views == 3
  seen = scene.observed_pixels(padded)
  assert seen[:3, :, 2:].all() and not seen[:3, :, :2].any() and not seen[3:].any()
  again = scene.without_padding(padded)
  for found, expected in zip(jax.tree.leaves(again), jax.tree.leaves(one), strict=True):
    np.testing.assert_array_equal(found, expected)


def test_eight_bit_levels_lose_nothing_of_an_eight_bit_photograph():
  random = np.random.default_rng(0)
  float32 = lambda shape: random.integers(0, 256, shape).astype(np.float32) / np.float32(255)
  one = dataclasses.replace(_scene(), images=float32((3, 20, 30, 3)), alphas=float32((3, 20, 30)))
  levels = scene.to_uint8(one)
  assert levels.images.dtype == levels.alphas.dtype == np.uint8
  np.testing.assert_array_equal(scene.as_unit_floats(levels.images), one.images)
  np.testing.assert_array_equal(scene.as_unit_floats(levels.alphas), one.alphas)
  np.testing.assert_array_equal(scene.silhouette_boxes(levels), scene.silhouette_boxes(one))
  cut, expected = scene.crop_views(levels, (9, 12)), scene.crop_views(one, (9, 12))
  assert cut.images.dtype == np.uint8
  np.testing.assert_array_equal(scene.as_unit_floats(cut.images), expected.images)
  views, same = views_at(levels, 1), views_at(one, 1)
  # XLA may divide by a constant inexactly, by one unit in the last place.
  np.testing.assert_allclose(views.colors, same.colors, rtol=3e-7)
  np.testing.assert_allclose(views.alphas, same.alphas, rtol=3e-7)
  np.testing.assert_array_equal(quantize(levels.alphas), quantize(one.alphas))
