"""A chunk of steps lowers for CUDA with the Pallas kernels, as every fit on a GPU runs it."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsplat_mouse.cameras import generate_camera_poses
from jaxsplat_mouse.fit.config import FitConfig
from jaxsplat_mouse.fit.loop import init_state, run_chunk
from jaxsplat_mouse.fit.start import random_gaussians
from jaxsplat_mouse.ops.photometric import api as photometric_api
from jaxsplat_mouse.ops.rasterize import api as rasterize_api
from jaxsplat_mouse.scene import Scene, stack_scenes
from tests.cuda_lowering import lower_for_cuda


def _batch(scenes: int, views: int, size: int) -> Scene:
  ones = np.ones((views, size, size), np.float32)
  scene = Scene(
    cameras=generate_camera_poses(views, image_size=size),
    images=np.ones((views, size, size, 3), np.float32),
    alphas=ones,
    frames=np.tile(np.array([0, 0, size, size], np.float32), (views, 1)),
    view_mask=np.ones(views, bool),
  )
  return jax.tree.map(jnp.asarray, stack_scenes([scene] * scenes))


@pytest.mark.parametrize(
  ("model", "novel_weight", "kernels"), [("2dgs", 0.0, 5), ("3dgs", 0.0, 5), ("3dgs", 0.02, 10)]
)
def test_a_chunk_lowers_for_cuda_without_a_gpu(model, novel_weight, kernels, monkeypatch):
  """Views are mapped inside of the gradient and scenes outside: both fold into one image axis."""
  for module in (photometric_api, rasterize_api):
    monkeypatch.setattr(module, "default_implementation", lambda: "pallas")
  config = FitConfig(
    model=model,
    num_gaussians=64,
    iterations=4,
    relocate_every=2,
    initialization="random",
    views_per_step=2,
    novel_weight=novel_weight,
    novel_size=32,
  )
  batch, seeds = _batch(2, 3, 32), jnp.arange(2, dtype=jnp.uint32)
  start = lambda seed: init_state(random_gaussians(config, jax.random.key(seed)), seed, 3, config)
  traced = run_chunk.trace(jax.vmap(start)(seeds), batch, config, 1, 4, True)
  text = lower_for_cuda(traced)
  assert text.count("triton") >= kernels
