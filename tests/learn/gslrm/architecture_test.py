"""Shapes of networks."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import pytest

from jaxsplat_mouse.learn.gslrm.architecture import SIZES, Architecture
from jaxsplat_mouse.learn.gslrm.reconstruction import init_parameters


@pytest.mark.parametrize(
  ("settings", "problem"),
  [
    ({"image_size": 60}, "image_size: 60, expected a multiple of 8"),
    ({"stride": 3}, "patch: 8, expected a multiple of 3"),
    ({"width": 100}, "width: 100, expected a multiple of 64"),
    ({"depth": 0}, "depth: 0, expected at least 1"),
    ({"max_tokens": -1}, "max_tokens: -1, expected at least 0"),
    ({"facelift": True, "stride": 2}, "stride: 2, expected 1 with facelift"),
    ({"dtype": "int8"}, "dtype: 'int8', expected one of bfloat16"),
  ],
)
def test_shapes_that_do_not_fit_are_refused(settings, problem):
  with pytest.raises(ValueError, match=problem):
    Architecture(**settings)


@pytest.mark.parametrize(
  ("size", "millions"),
  [("tiny", 0.152576), ("small", 14.707456), ("medium", 25.901056), ("facelift", 303.565824)],
)
def test_numbers_of_parameters(size, millions):
  shapes = jax.eval_shape(lambda key: init_parameters(SIZES[size], key), jax.random.key(0))
  total = sum(leaf.size for leaf in jax.tree.leaves(shapes))
  assert total / 1e6 == pytest.approx(millions, rel=1e-12)
  assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(shapes))
