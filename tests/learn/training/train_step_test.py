"""A step: what harms is not taken, what should decay does, devices share it evenly."""

from __future__ import annotations

import dataclasses
import os
import pathlib
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsplat_mouse.learn.gslrm.supervision import LossWeights
from jaxsplat_mouse.learn.training import train_step
from jaxsplat_mouse.learn.training.train_step import (
  TrainingState,
  first_state,
  learning_rate,
  local_mesh,
  take_step,
)
from jaxsplat_mouse.learn.training.training_recipe import (
  DataRecipe,
  OptimizerRecipe,
  TrainingRecipe,
)
from jaxsplat_mouse.ops import implementation_registry
from tests.cuda_lowering import abstract_gpus
from tests.learn.training_fixtures import SMALL, white_scenes

ROOT = pathlib.Path(__file__).resolve().parents[3]
_OPTIMIZER = OptimizerRecipe(steps=100, warmup=10, rate=0.01, averaging=0.9)


def _state() -> TrainingState:
  parameters = {
    "head": {"kernel": np.full((2, 3), 2.0, np.float32)},
    "norm": {"scale": np.full((4, 2), 2.0, np.float32)},
  }
  recipe = TrainingRecipe(optimizer=_OPTIMIZER)
  return dataclasses.replace(first_state(recipe, parameters), step=jnp.asarray(20))


def _update(gradient: float, loss: float = 1.0, overflow: int = 0):
  state = _state()
  gradients = jax.tree.map(lambda leaf: jnp.full_like(leaf, gradient), state.parameters)
  record = {"loss": jnp.asarray(loss), "overflow": jnp.asarray(overflow)}
  return state, *jax.jit(train_step._update, static_argnums=3)(state, gradients, record, _OPTIMIZER)


def test_matrices_decay_and_norms_do_not():
  state, after, record = _update(0.0)
  rate = float(record["rate"])
  kernel, scale = after.parameters["head"]["kernel"], after.parameters["norm"]["scale"]
  np.testing.assert_allclose(kernel, 2.0 - rate * 0.05 * 2.0, rtol=1e-6)
  np.testing.assert_array_equal(scale, state.parameters["norm"]["scale"])
  assert int(after.step) == 21
  assert int(after.skipped) == int(after.overflowed) == 0


@pytest.mark.parametrize(
  ("gradient", "loss", "overflow", "skipped", "overflowed"),
  [
    (np.nan, 1.0, 0, 1, 0),
    (np.inf, 1.0, 0, 1, 0),
    (1.0, np.nan, 0, 1, 0),
    (6.0, 1.0, 0, 1, 0),  # norm 22.4
    (5.0, 1.0, 0, 0, 0),  # norm 18.7
    (1.0, 1.0, 7, 0, 1),
    (np.nan, 1.0, 7, 1, 0),
  ],
)
def test_harmful_steps_are_counted_and_not_taken(gradient, loss, overflow, skipped, overflowed):
  state, after, _ = _update(gradient, loss, overflow)
  assert (int(after.skipped), int(after.overflowed)) == (skipped, overflowed)
  assert int(after.step) == 21
  taken = not (skipped or overflowed)
  for name in ("parameters", "moments", "average"):
    before, now = (jax.tree.leaves(getattr(x, name)) for x in (state, after))
    same = all(np.array_equal(a, b) for a, b in zip(before, now, strict=True))
    assert same != taken
  assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(after))


def test_the_rate_rises_then_falls():
  rate = lambda step: float(learning_rate(_OPTIMIZER, jnp.asarray(step)))
  assert rate(0) == pytest.approx(0.001)
  assert rate(9) == pytest.approx(0.01)
  assert rate(54) == pytest.approx(0.0051, rel=0.02)
  assert rate(99) == pytest.approx(0.0002)


def test_ssim_waits():
  recipe = OptimizerRecipe(steps=100)
  assert [recipe.loss_weights(step).ssim for step in (0, 14, 15, 99)] == [0, 0, 0.2, 0.2]


def test_a_batch_that_devices_cannot_share_is_refused():
  with pytest.raises(ValueError, match="batch: 3, expected a multiple of the 2 devices"):
    local_mesh([0, 1], 3)


def test_a_step_lowers_for_two_gpus_without_one(monkeypatch):
  """`shard_map`, the axes of samples and views and the gradient, all around Pallas' kernels."""
  monkeypatch.setattr(implementation_registry, "default_implementation", lambda: "pallas")
  mesh = abstract_gpus("data", 2)
  recipe = dataclasses.replace(SMALL, data=DataRecipe(inputs=1, views=2))
  arguments = first_state(recipe), (white_scenes(),), jnp.arange(2)
  with jax.sharding.use_abstract_mesh(mesh):
    traced = take_step.trace(
      *arguments,
      recipe=recipe,
      shares=(1.0,),
      mesh=mesh,
      weights=LossWeights(ssim=0.2),
      capacity=4096,
    )
    text = traced.lower(lowering_platforms=("cuda",)).as_text()
  assert text.count("triton") >= 3
  assert "all_reduce" in text


_TWO_DEVICES = """
import sys
import jax, numpy as np
from tests.learn.training_fixtures import SMALL, mouse_scenes, train_steps
parameters = train_steps(SMALL, mouse_scenes(), devices=int(sys.argv[2]))
np.savez(sys.argv[1], *jax.tree.leaves(parameters))
"""


@pytest.mark.slow
def test_two_devices_take_the_step_of_one(tmp_path):
  found = []
  for count in (1, 2):
    flags = f"--xla_force_host_platform_device_count=2 {os.environ.get('XLA_FLAGS', '')}"
    env = {**os.environ, "XLA_FLAGS": flags, "PYTHONPATH": str(ROOT)}
    file = tmp_path / f"{count}.npz"
    command = [sys.executable, "-c", _TWO_DEVICES, str(file), str(count)]
    done = subprocess.run(command, env=env, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    with np.load(file) as arrays:
      found.append([arrays[name] for name in arrays.files])
  start = jax.tree.leaves(first_state(SMALL).parameters)
  moved = max(np.abs(a - b).max() for a, b in zip(found[0], start, strict=True))
  apart = max(np.abs(a - b).max() for a, b in zip(*found, strict=True))
  assert moved > 1e-3
  # Adam divides by the gradient's size, so that rounding of tiny gradients shows.
  assert apart < 0.05 * moved
