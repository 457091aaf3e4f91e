"""Tokens: patches are whole and in order, all covered ones are kept, losses are counted."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np
import pytest

from jaxsplat_mouse.learn.gslrm.tokens import embed_inputs
from tests.learn_fixtures import TINY, mouse_sample, views_of

_embed = jax.jit(embed_inputs, static_argnums=1)
_DENSE = dataclasses.replace(TINY, max_tokens=0)
_COLOR, _ALPHA = slice(0, 3), 9


def _pixels(tokens) -> np.ndarray:
  """Features as (K, row, column, channel)."""
  return np.asarray(tokens.features).reshape(-1, TINY.patch, TINY.patch, TINY.channels)


def test_dense_tokens_are_all_patches_in_order():
  sample = views_of(mouse_sample(), slice(0, 2))
  tokens = _embed(sample, _DENSE)
  side = TINY.image_size // TINY.patch
  pixels = _pixels(tokens).reshape(2, side, side, TINY.patch, TINY.patch, -1)
  image = pixels.swapaxes(2, 3).reshape(2, TINY.image_size, TINY.image_size, -1)
  rgba = np.asarray(sample.rgba)
  white = rgba[..., :3] * rgba[..., 3:] + 1 - rgba[..., 3:]
  np.testing.assert_allclose((image[..., _COLOR] + 1) / 2, white, atol=1e-6)
  np.testing.assert_allclose((image[..., _ALPHA] + 1) / 2, rgba[..., 3], atol=1e-6)
  assert int(tokens.count) == 2 * side**2
  assert int(tokens.dropped) == 0


def test_rays_run_from_the_camera_through_the_pixel_past_the_origin():
  sample = views_of(mouse_sample(), slice(0, 1))
  tokens = _embed(sample, _DENSE)
  pixels = _pixels(tokens)
  direction, nearest = pixels[..., 3:6], pixels[..., 6:9]
  np.testing.assert_allclose(np.linalg.norm(direction, axis=-1), 1.0, atol=1e-6)
  np.testing.assert_allclose((direction * nearest).sum(-1), 0.0, atol=2e-6)
  along = nearest - np.asarray(sample.cameras.centers)[0]
  distance = (along * direction).sum(-1, keepdims=True)
  np.testing.assert_allclose(along, distance * direction, atol=2e-6)
  # The four rays of a cell surround the ray of its centre.
  cells = tokens.cells
  corner = pixels[:, :2, :2, 3:6].mean((1, 2))
  np.testing.assert_allclose(cells.directions[:, 0, 0], corner, atol=1e-3)
  assert cells.coverage.shape == (64, 4, 4)
  # 2 pixels of 2.7 / fx at the origin.
  middle = cells.footprints[8 * 4 + 4, 0, 0]
  assert middle == pytest.approx(2 * 2.7 / float(sample.cameras.intrinsics[0, 0]), rel=0.01)


def test_every_covered_patch_is_kept_and_uncovered_ones_only_beside_it():
  sample = views_of(mouse_sample(), slice(0, 4))
  sparse, dense = _embed(sample, TINY), _embed(sample, _DENSE)
  assert int(sparse.dropped) == 0
  used = np.arange(TINY.max_tokens) < int(sparse.count)
  assert float(sparse.cells.coverage.sum()) == pytest.approx(
    float(dense.cells.coverage.sum()), rel=1e-6
  )
  covered = np.asarray(sparse.cells.coverage).max((1, 2)) > 0
  assert 0 < covered.sum() < used.sum() < TINY.max_tokens
  assert not covered[~used].any()
  assert (np.asarray(sparse.features)[~used] == 0).all()
  # Covered ones come first, so that a small limit loses the ring before the animal.
  assert covered[: covered.sum()].all()


def test_patches_without_room_are_counted():
  sample = views_of(mouse_sample(), slice(0, 4))
  covered = (np.asarray(_embed(sample, _DENSE).cells.coverage).max((1, 2)) > 0).sum()
  few = _embed(sample, dataclasses.replace(TINY, max_tokens=16))
  assert int(few.dropped) == covered - 16
  assert int(few.count) == 16


def test_more_room_than_patches_is_no_error():
  sample = views_of(mouse_sample(), slice(0, 1))
  tokens = _embed(sample, TINY)
  assert len(tokens.features) == 64 < TINY.max_tokens
  assert int(tokens.dropped) == 0


def test_photographs_that_patches_do_not_divide_are_refused():
  sample = mouse_sample()
  cut = dataclasses.replace(
    sample,
    rgba=sample.rgba[:, :60],
    cameras=dataclasses.replace(sample.cameras, height=60),
  )
  with pytest.raises(ValueError, match="64 x 60 pixels: expected multiples of the patch, 8"):
    embed_inputs(cut, TINY)
