"""Bounds of discs that are seen edge-on: they hold all that is drawn, and not the whole image."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsplat_mouse import cameras as cam
from jaxsplat_mouse.gaussians import Gaussians2D
from jaxsplat_mouse.ops.rasterize import blend
from jaxsplat_mouse.ops.rasterize.base import Options
from jaxsplat_mouse.projection import ALPHA_MIN, project_2d

SIZE, COUNT = 96, 400


def _edge_on(tilt: float, seed: int, camera: cam.Cameras) -> Gaussians2D:
  """Discs whose normals are `tilt` off the right angle to the ray to their centres."""
  rng = np.random.default_rng(seed)
  means = rng.uniform(-0.7, 0.7, (COUNT, 3))
  ray = means - np.asarray(camera.centers)
  ray /= np.linalg.norm(ray, axis=1, keepdims=True)
  across = np.cross(ray, rng.normal(size=ray.shape))
  across /= np.linalg.norm(across, axis=1, keepdims=True)
  normal = across + tilt * rng.uniform(-1, 1, (COUNT, 1)) * ray
  normal /= np.linalg.norm(normal, axis=1, keepdims=True)
  spin = np.cross(normal, rng.normal(size=ray.shape))
  first = spin / np.linalg.norm(spin, axis=1, keepdims=True)
  frames = np.stack([first, np.cross(normal, first), normal], -1)
  w = np.sqrt(np.maximum(1 + np.trace(frames, axis1=1, axis2=2), 1e-9)) / 2
  vector = [frames[:, j, k] - frames[:, k, j] for j, k in ((2, 1), (0, 2), (1, 0))]
  quats = np.stack([w, *(v / (4 * w) for v in vector)], -1)
  return Gaussians2D(
    means=jnp.asarray(means, jnp.float32),
    log_scales=jnp.asarray(rng.uniform(-4.0, -1.5, (COUNT, 2)), jnp.float32),
    quats=jnp.asarray(quats, jnp.float32),
    logit_opacities=jnp.asarray(rng.uniform(-2, 4, COUNT), jnp.float32),
    sh=jnp.zeros((COUNT, 1, 3)),
  )


@jax.jit
def _drawn(gaussians: Gaussians2D, camera: cam.Cameras, low_pass: jax.Array):
  """Boxes, and which pixel centres each disc reaches, (N, H, W)."""
  splats = project_2d(gaussians, camera, low_pass)
  falloff = 0.5 * blend.LOG2E / low_pass
  y, x = jnp.mgrid[:SIZE, :SIZE] + 0.5
  options = Options(width=SIZE, height=SIZE, flat=True, geometry=False)
  one = lambda f: blend.respond(tuple(f), x, y, jnp.float32(0.3), falloff, options)[0]
  return splats.boxes, jax.vmap(one)(blend.pack(splats, False)) >= ALPHA_MIN


@pytest.mark.parametrize("low_pass", [0.5, 0.15])
@pytest.mark.parametrize("tilt", [0.0, 1e-4, 1e-3, 1e-2])
def test_boxes_hold_what_is_drawn_and_no_more_than_the_ball(tilt, low_pass):
  camera = jax.tree.map(jnp.asarray, cam.generate_camera_poses(4, 20.0, 2.7, SIZE, 50.0))[1]
  boxes, drawn = map(np.asarray, _drawn(_edge_on(tilt, 3, camera), camera, low_pass))
  splat, row, column = np.nonzero(drawn)
  assert len(splat) > 1000
  x, y, box = column + 0.5, row + 0.5, boxes[splat]
  slack = 1e-3
  assert (x >= box[:, 0] - slack).all() and (x <= box[:, 2] + slack).all()
  assert (y >= box[:, 1] - slack).all() and (y <= box[:, 3] + slack).all()
  seen = boxes[:, 2] > boxes[:, 0]
  # 3.33 standard deviations of the largest disc are 0.74 long, 2 away or more: 0.9 of the image.
  assert (boxes[seen, 2] - boxes[seen, 0]).max() < 1.3 * SIZE
