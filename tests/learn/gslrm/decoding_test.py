"""Decoding: zeros are a picture, Gaussians stay on their rays and move with the world."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsplat_mouse.learn.gslrm.decoding import compact, decode
from jaxsplat_mouse.learn.gslrm.tokens import embed_inputs
from jaxsplat_mouse.procedural_mouse.disturb import rotation_about
from jaxsplat_mouse.rendering import render_views
from tests.learn_fixtures import TINY, mouse_sample, views_of

_embed = jax.jit(embed_inputs, static_argnums=1)
_decode = jax.jit(decode, static_argnums=3)


def _raw(tokens, seed: int | None = None) -> jax.Array:
  shape = (*tokens.cells.coverage.shape, TINY.outputs)
  return jnp.zeros(shape) if seed is None else jax.random.normal(jax.random.key(seed), shape)


def test_small_opaque_gaussians_show_the_photograph_to_its_own_camera():
  """Every Gaussian lies on its own pixel's ray and has its colour."""
  fine = dataclasses.replace(TINY, stride=1)
  sample = views_of(mouse_sample(), slice(0, 1))

  @jax.jit
  def show(sample):
    tokens = embed_inputs(sample, fine)
    raw = _raw(tokens).at[..., -1].set(6.0).at[..., 4:7].set(-3.0)
    gaussians = decode(raw, None, tokens, fine)
    return render_views(gaussians, sample.cameras, background=1.0, geometry=False)

  output = show(sample)
  rgba = np.asarray(sample.rgba)
  inside = rgba[..., 3] == 1
  error = np.abs(np.asarray(output.rgb) - rgba[..., :3])[inside]
  assert error.mean() < 0.3 * rgba[inside][:, :3].std()
  union = (output.alpha > 0.5) | (rgba[..., 3] > 0.5)
  assert ((output.alpha > 0.5) & (rgba[..., 3] > 0.5)).sum() / union.sum() > 0.7


def test_gaussians_stay_on_their_rays_within_reach_and_of_a_few_cells_size():
  tokens = _embed(views_of(mouse_sample(), slice(0, 2)), TINY)
  gaussians = _decode(30.0 * _raw(tokens, 1), None, tokens, TINY)
  cells = jax.tree.map(np.asarray, tokens.cells)
  from_camera = np.asarray(gaussians.means).reshape(*cells.distances.shape, 3)
  from_camera = from_camera - cells.origins[:, None, None]
  distance = (from_camera * cells.directions).sum(-1)
  np.testing.assert_allclose(from_camera, distance[..., None] * cells.directions, atol=1e-5)
  assert (np.abs(distance - cells.distances) <= 1.0 + 1e-6).all()
  size = np.exp(gaussians.log_scales) / cells.footprints.reshape(-1, 1)
  assert size.min() > 0.7 * np.exp(-1.81) and size.max() < 4.3


def test_cells_without_coverage_and_tokens_not_in_use_are_hidden():
  tokens = _embed(views_of(mouse_sample(), slice(0, 4)), TINY)
  gaussians = _decode(_raw(tokens, 2), None, tokens, TINY)
  shown = np.asarray(gaussians.logit_opacities).reshape(tokens.cells.coverage.shape) > -30
  np.testing.assert_array_equal(shown, np.asarray(tokens.cells.coverage) > 0)


def test_turning_the_world_turns_the_gaussians():
  sample = views_of(mouse_sample(), slice(0, 2))
  turn = np.eye(4, dtype=np.float32)
  turn[:3, :3] = rotation_about(np.array([0.3, -0.5, 0.8]))
  turned_cameras = dataclasses.replace(
    sample.cameras, world_to_camera=sample.cameras.world_to_camera @ turn.T
  )
  turned = dataclasses.replace(sample, cameras=turned_cameras)
  tokens, other = _embed(sample, TINY), _embed(turned, TINY)
  raw = _raw(tokens, 3)
  before, after = _decode(raw, None, tokens, TINY), _decode(raw, None, other, TINY)
  np.testing.assert_allclose(before.means @ turn[:3, :3].T, after.means, atol=1e-5)
  np.testing.assert_allclose(before.log_scales, after.log_scales, atol=1e-5)
  np.testing.assert_array_equal(before.logit_opacities, after.logit_opacities)


@pytest.mark.parametrize("spare", [5, -7])
def test_compacting_leaves_out_hidden_gaussians_and_counts_others(spare):
  tokens = _embed(views_of(mouse_sample(), slice(0, 2)), TINY)
  gaussians = _decode(_raw(tokens, 4), None, tokens, TINY)
  shown = np.asarray(gaussians.logit_opacities) > -30
  limit = int(shown.sum()) + spare
  kept, dropped = compact(gaussians, limit)
  assert int(dropped) == max(-spare, 0)
  count = min(limit, int(shown.sum()))
  np.testing.assert_array_equal(kept.means[:count], gaussians.means[shown][:count])
  assert (kept.logit_opacities[count:] == -30).all()
  assert kept.means.shape == (limit, 3)
