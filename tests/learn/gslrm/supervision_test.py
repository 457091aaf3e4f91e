"""Supervision: a tiny network learns one mouse; its record says what the renders show."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxsplat_mouse import metrics
from jaxsplat_mouse.learn.gslrm.reconstruction import init_parameters
from jaxsplat_mouse.learn.gslrm.supervision import (
  LossWeights,
  color_on_white,
  supervised_loss,
  view_errors,
  view_scores,
)
from jaxsplat_mouse.rendering import RenderOutput
from tests.learn_fixtures import TINY, mouse_sample, with_batch

_STEPS = 40


@pytest.fixture(scope="module")
def trained():
  """Parameters after 40 steps on one mouse, and the record of every step."""
  batch = with_batch(mouse_sample())
  optimizer = optax.chain(optax.clip_by_global_norm(1.0), optax.adam(1e-3, b2=0.95))

  @jax.jit
  def step(parameters, state):
    gradient = jax.grad(supervised_loss, has_aux=True)
    gradient, record = gradient(parameters, batch, 4, TINY, LossWeights())
    update, state = optimizer.update(gradient, state)
    return optax.apply_updates(parameters, update), state, record

  parameters = init_parameters(TINY, jax.random.key(0))
  state, records = optimizer.init(parameters), []
  for _ in range(_STEPS):
    parameters, state, record = step(parameters, state)
    records.append(record)
  return parameters, jax.tree.map(lambda *x: np.stack(x), *records)


def test_a_tiny_network_learns_one_mouse(trained):
  _, records = trained
  assert records["loss"][-1] < records["loss"][0] / 4
  assert records["novel_fg_psnr"][-1] > records["novel_fg_psnr"][0] + 4
  assert records["novel_iou"][-1] > 0.75
  for name in ("dropped_tokens", "dropped_splats", "overflow"):
    assert (records[name] == 0).all()


def _render(rgba: jax.Array) -> RenderOutput:
  """A render that looks like a view (H, W, 4)."""
  none = jnp.zeros(rgba.shape[:2])
  rgb = color_on_white(rgba)
  return RenderOutput(
    rgb=rgb,
    alpha=rgba[..., 3],
    depth=none,
    median_depth=none,
    normal=none,
    distortion=none,
    overflow=none,
  )


def test_a_view_counts_the_same_however_much_of_it_the_animal_fills():
  """A margin all around makes it a quarter of the image, and the loss stays."""
  rgba = mouse_sample().rgba[0]
  wide = jnp.pad(rgba, ((32, 32), (32, 32), (0, 0)))
  errors = jax.jit(lambda x: view_errors(_render(jnp.zeros_like(x)), x, LossWeights(ssim=0.2)))
  near, far = errors(rgba), errors(wide)
  assert near["alpha"] > 0.5
  assert all(near[name] == pytest.approx(float(far[name]), rel=1e-4) for name in near)


def test_scores_on_the_device_are_those_of_the_report():
  views = mouse_sample().rgba
  decibel, overlap = jax.jit(view_scores)(_render(views[1]), views[0])
  expected = metrics.compare_view(np.asarray(views[1]), np.asarray(views[0]))
  assert float(decibel) == pytest.approx(expected["fg_psnr"], abs=1e-3)
  assert float(overlap) == pytest.approx(expected["iou"], abs=1e-6)
