"""FaceLift's weights: every number arrives, and what does not fit is named."""

from __future__ import annotations

import jax
import numpy as np

from jaxsplat_mouse.learn.gslrm.facelift_weights import (
  find_problems,
  from_facelift,
  guess_architecture,
)
from jaxsplat_mouse.learn.gslrm.reconstruction import init_parameters
from tests.learn.facelift_fixtures import facelift_weights


def _shapes(weights: dict[str, np.ndarray]) -> dict[str, tuple[int, ...]]:
  return {name: value.shape for name, value in weights.items()}


def test_the_architecture_is_read_off_the_shapes():
  guess = guess_architecture(_shapes(facelift_weights()), head_width=8)
  assert (guess.width, guess.depth, guess.patch, guess.registers) == (16, 2, 4, 2)
  assert guess.facelift and guess.head_width == 8
  empty = guess_architecture({}, head_width=64)
  assert (empty.width, empty.depth, empty.patch) == (1024, 24, 8)


def test_every_weight_becomes_a_parameter_of_the_network():
  weights = facelift_weights()
  architecture = guess_architecture(_shapes(weights), head_width=8)
  assert find_problems(_shapes(weights), architecture) == ""
  parameters = from_facelift(weights, architecture)
  template = jax.eval_shape(lambda: init_parameters(architecture, jax.random.key(0)))
  shapes = lambda tree: jax.tree.map(lambda leaf: leaf.shape, tree)
  assert shapes(parameters) == shapes(template)
  used = [value for name, value in weights.items() if not name.startswith("loss_calculator.")]
  found = np.sort(np.concatenate([leaf.ravel() for leaf in jax.tree.leaves(parameters)]))
  np.testing.assert_array_equal(found, np.sort(np.concatenate([v.ravel() for v in used])))
  kernel = parameters["blocks"]["expand"]["kernel"][1]
  np.testing.assert_array_equal(kernel, weights["transformer_layers.1.mlp.mlp.0.weight"].T)


def test_missing_unknown_and_misshapen_weights_are_named():
  weights = facelift_weights()
  architecture = guess_architecture(_shapes(weights), head_width=8)
  shapes = _shapes(weights)
  del shapes["transformer_layers.1.norm2.weight"]
  shapes["transformer_layers.0.attn.fc.bias"] = (16,)
  shapes["gaussian_upsampler.linear.weight"] = (12, 16)
  problems = find_problems(shapes, architecture).split("; ")
  assert problems == [
    "missing: transformer_layers.1.norm2.weight",
    "unknown: transformer_layers.0.attn.fc.bias",
    "misshapen: gaussian_upsampler.linear.weight (12, 16) in place of (14, 16)",
  ]


def test_a_message_names_some_and_counts_the_others():
  shapes = {f"module.{name}": shape for name, shape in _shapes(facelift_weights()).items()}
  problems = find_problems(shapes, guess_architecture(shapes, head_width=8))
  assert "missing: patch_embedder.1.weight, gaussian_position_embeddings" in problems
  assert "unknown: module.gaussian_position_embeddings" in problems
  assert "and 16 more" in problems and len(problems) < 500
