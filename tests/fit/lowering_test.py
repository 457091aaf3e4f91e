"""A chunk of steps lowers for CUDA with the Pallas kernels, as every fit on a GPU runs it."""

from __future__ import annotations

import numpy as np
import pytest

from jaxsplat_mouse.cameras import generate_camera_poses
from jaxsplat_mouse.fit import novel_normals
from jaxsplat_mouse.fit.config import FitConfig
from jaxsplat_mouse.fit.loop import run_chunk
from jaxsplat_mouse.ops import implementation_registry
from jaxsplat_mouse.scene import Scene
from tests.cuda_lowering import lower_for_cuda
from tests.fit_fixtures import random_batch


def _scene(views: int, size: int) -> Scene:
  ones = np.ones((views, size, size), np.float32)
  return Scene(
    cameras=generate_camera_poses(views, image_size=size),
    images=np.ones((views, size, size, 3), np.float32),
    alphas=ones,
    frames=np.tile(np.array([0, 0, size, size], np.float32), (views, 1)),
    view_mask=np.ones(views, bool),
  )


@pytest.mark.parametrize(
  ("model", "novel_weight", "kernels"), [("2dgs", 0.0, 5), ("3dgs", 0.0, 5), ("3dgs", 0.02, 10)]
)
def test_a_chunk_lowers_for_cuda_without_a_gpu(model, novel_weight, kernels, monkeypatch):
  """Views are mapped inside of the gradient and scenes outside: both fold into one image axis."""
  monkeypatch.setattr(implementation_registry, "default_implementation", lambda: "pallas")
  config = FitConfig(
    model=model,
    num_gaussians=64,
    iterations=4,
    relocate_every=2,
    views_per_step=2,
    novel_weight=novel_weight,
  )
  monkeypatch.setattr(novel_normals, "_SIZE", 32)
  batch, state = random_batch([_scene(3, 32)] * 2, config)
  text = lower_for_cuda(run_chunk, state, batch, config, 1, 4, True)
  assert text.count("triton") >= kernels
