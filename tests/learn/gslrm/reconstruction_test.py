"""The whole pass: what must not matter does not."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np
import pytest

from jaxsplat_mouse.learn.gslrm.reconstruction import init_parameters, predict
from tests.learn_fixtures import TINY, mouse_sample, views_of, with_batch

_predict = jax.jit(predict, static_argnames="architecture")


@pytest.fixture(scope="module")
def parameters():
  """An untrained network whose head is loud enough for errors to show."""
  drawn = init_parameters(TINY, jax.random.key(1))
  return {**drawn, "head": {"kernel": 100.0 * drawn["head"]["kernel"]}}


@pytest.fixture(scope="module")
def inputs():
  return views_of(mouse_sample(), slice(0, 4))


def test_the_order_of_the_photographs_does_not_matter(parameters, inputs):
  order = np.array([2, 0, 3, 1])
  dense = dataclasses.replace(TINY, max_tokens=0)
  plain = _predict(parameters, with_batch(inputs), dense).gaussians
  mixed = _predict(parameters, with_batch(views_of(inputs, order)), dense).gaussians
  assert plain.log_scales.std() > 0.1
  by_view = lambda leaf: leaf.reshape(4, -1, *leaf.shape[2:])
  for one, other in zip(jax.tree.leaves(plain), jax.tree.leaves(mixed), strict=True):
    np.testing.assert_allclose(by_view(one)[order], by_view(other), atol=1e-4)


def test_tokens_without_a_patch_change_nothing(parameters, inputs):
  """Room for more patches than are covered is filled up with tokens that no other sees."""
  roomy = dataclasses.replace(TINY, max_tokens=200)
  batch = with_batch(inputs)
  small, large = (_predict(parameters, batch, shape).gaussians for shape in (TINY, roomy))
  shown = np.asarray(small.logit_opacities[0]) > -30
  count = len(shown)
  assert 0 < shown.sum() < count
  np.testing.assert_allclose(small.means[0][shown], large.means[0, :count][shown], atol=1e-5)
  assert (large.logit_opacities[:, count:] == -30).all()


def test_few_views_and_limits_work(parameters, inputs):
  few = dataclasses.replace(TINY, max_splats=100)
  prediction = _predict(parameters, with_batch(views_of(inputs, slice(0, 1))), few)
  assert prediction.gaussians.means.shape == (1, 100, 3)
  whole = _predict(parameters, with_batch(views_of(inputs, slice(0, 1))), TINY)
  shown = int((whole.gaussians.logit_opacities > -30).sum())
  assert int(prediction.dropped_splats[0]) == max(shown - 100, 0)
