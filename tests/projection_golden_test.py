"""Projection against gsplat's, and its bounds against the definitions.

A third of the splats lie at the edge of the frustum or beyond it, where the EWA Jacobian is frozen.
"""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsplat_mouse import projection
from jaxsplat_mouse.cameras import Cameras
from jaxsplat_mouse.gaussians import Gaussians2D, Gaussians3D
from tests.golden.probe import assert_gradients_match, load, probe

FIELDS = ("means", "log_scales", "quats", "logit_opacities", "sh")
MODELS = {3: Gaussians3D, 2: Gaussians2D}
ALPHA_MIN, EXTENT = 1 / 255, 3.33

both_models = pytest.mark.parametrize("model", (3, 2))
both_cameras = pytest.mark.parametrize("index", (0, 1))


@functools.cache
def golden(model):
  return load(f"projection_{model}d")


def case(model, index):
  """Gaussians, camera, and the golden arrays of that camera without their prefix."""
  arrays = golden(model)
  gaussians = MODELS[model](**{name: jnp.asarray(arrays[name]) for name in FIELDS})
  width, height = map(int, arrays["sizes"][index])
  camera = Cameras(
    world_to_camera=jnp.asarray(arrays["world_to_camera"][index]),
    intrinsics=jnp.asarray(arrays["intrinsics"][index]),
    width=width,
    height=height,
  )
  prefix = f"camera{index}/"
  mine = {k.removeprefix(prefix): v for k, v in arrays.items() if k.startswith(prefix)}
  return gaussians, camera, mine


def comparable(model, splats, expected):
  """What gsplat's outputs are compared with, by name; what lies behind the camera is zeroed."""
  if model == 3:
    outputs = dict(means2d=splats.centers, conics=splats.shapes, depths=splats.depths)
  else:
    outputs = dict(normals=splats.normals, depths=splats.depths)
    outputs["footprint"], outputs["hit"] = disc_samples(splats, expected["pixels"])
  front = expected["in_front"]
  mask = lambda x: jnp.where(front.reshape(front.shape + (1,) * (x.ndim - 1)), x, 0.0)
  return {name: mask(x) for name, x in outputs.items()}


def disc_samples(splats, pixels):
  """exp(-|s|^2 / 2) and the hit's depth times that, (N, S) each; notation of `projection`."""
  offsets = pixels - splats.centers[:, None]
  u, v, w = (splats.shapes[:, None, i : i + 2] for i in (0, 2, 4))
  q = 1.0 + (w * offsets).sum(-1)
  s = [(axis * offsets).sum(-1) / q for axis in (u, v)]
  footprint = jnp.exp(-0.5 * (s[0] ** 2 + s[1] ** 2))
  return footprint, footprint * splats.depths[:, None] / q


@both_cameras
@both_models
def test_outputs_equal_gsplat(model, index):
  gaussians, camera, expected = case(model, index)
  outputs = comparable(model, projection.project(gaussians, camera), expected)
  front = expected["in_front"]
  assert 40 < front.sum() < len(front), "some splats are behind the camera, most are not"
  for name, found in outputs.items():
    # Pixel coordinates outside the image reach hundreds: rounding is relative there.
    np.testing.assert_allclose(
      np.asarray(found)[front], expected[name][front], rtol=1e-5, atol=1e-5, err_msg=name
    )


SALTS = {3: dict(means2d=1, conics=2, depths=3), 2: dict(normals=5, footprint=10, hit=11)}


@pytest.mark.parametrize(
  ("model", "output", "salt"), [(m, name, s) for m in SALTS for name, s in SALTS[m].items()]
)
@both_cameras
def test_gradients_equal_gsplat(model, index, output, salt):
  gaussians, camera, expected = case(model, index)
  weights = jnp.asarray(probe(expected[output].shape, salt), jnp.float32)

  def loss(g):
    return (weights * comparable(model, projection.project(g, camera), expected)[output]).sum()

  found = jax.grad(loss)(gaussians)
  assert_gradients_match(
    {name: getattr(found, name) for name in FIELDS}, golden(model), f"camera{index}/d_{output}/"
  )


@both_cameras
def test_boxes_of_ellipsoids_follow_the_opacity(index):
  gaussians, camera, expected = case(3, index)
  logits = np.array(gaussians.logit_opacities)
  logits[::12] = -6.0  # below 1/255: culled
  gaussians = dataclasses.replace(gaussians, logit_opacities=jnp.asarray(logits))
  boxes = np.asarray(projection.project(gaussians, camera).boxes, np.float64)

  opacity = 1 / (1 + np.exp(-logits.astype(np.float64)))
  a, b, c = expected["conics"].astype(np.float64).T
  with np.errstate(divide="ignore", invalid="ignore"):
    sizes = np.sqrt(np.stack([c, a], -1) / (a * c - b * b)[:, None])
    reach = np.minimum(EXTENT, np.sqrt(2 * np.log(np.maximum(opacity / ALPHA_MIN, 1))))
  half = reach[:, None] * sizes
  low, high = expected["means2d"] - half, expected["means2d"] + half
  size = np.array([camera.width, camera.height])
  seen = expected["in_front"] & (opacity > ALPHA_MIN)
  seen &= (high > 0).all(-1) & (low < size).all(-1)
  clear = (np.abs(np.stack([high, low - size])) > 1e-3).all((0, 2))  # not just touching the border
  assert 10 < seen.sum() < len(seen) - 6
  np.testing.assert_array_equal((boxes[:, 2] >= boxes[:, 0])[clear], seen[clear])
  found = np.concatenate([low, high], -1)[seen]
  np.testing.assert_allclose(boxes[seen], found, rtol=1e-4, atol=1e-3)
  assert (expected["radii"][seen] >= half[seen]).all(), "gsplat's bounds do not know the opacity"


@both_cameras
@both_models
def test_bounds_contain_every_pixel_that_counts(model, index):
  """Evaluates alpha on the pixels of the image and around it, and looks for one that is cut off."""
  gaussians, camera, expected = case(model, index)
  splats = projection.project(gaussians, camera)
  y, x = np.mgrid[: camera.height, : camera.width] + 0.5
  pixels = jnp.asarray(np.stack([x.ravel(), y.ravel()], -1), jnp.float32)
  offsets = pixels[None] - splats.centers[:, None]
  if model == 3:
    a, b, c = (splats.shapes[:, None, i] for i in range(3))
    dx, dy = offsets[..., 0], offsets[..., 1]
    sigma = 0.5 * (a * dx * dx + c * dy * dy) + b * dx * dy
  else:
    everywhere = jnp.broadcast_to(pixels, offsets.shape)
    sigma = jnp.minimum(-jnp.log(disc_samples(splats, everywhere)[0]), (offsets**2).sum(-1))
  counts = np.asarray(splats.opacities[:, None] * jnp.exp(-sigma)) >= ALPHA_MIN * (1 + 1e-4)
  counts &= expected["in_front"][:, None]
  boxes = np.asarray(splats.boxes)
  inside = (np.asarray(pixels)[None] >= boxes[:, None, :2] - 1e-3).all(-1)
  inside &= (np.asarray(pixels)[None] <= boxes[:, None, 2:] + 1e-3).all(-1)
  assert counts.any(-1).sum() > 20
  assert not (counts & ~inside).any()
