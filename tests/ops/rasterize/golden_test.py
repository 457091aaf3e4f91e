"""Rasterization against gsplat's golden images, the float64 oracle and finite differences.

The golden scenes keep clear of every threshold (see tests/golden), so no pixel is excused there.
"""

from __future__ import annotations

import functools
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsplat_mouse import rendering
from jaxsplat_mouse.cameras import Cameras
from jaxsplat_mouse.gaussians import Gaussians2D, Gaussians3D
from jaxsplat_mouse.ops.rasterize.base import Options
from tests.golden.probe import assert_gradients_match, load, probe
from tests.ops.rasterize import dense_oracle

pytestmark = pytest.mark.unoptimized

FIELDS = ("means", "log_scales", "quats", "logit_opacities", "sh")
OUTPUTS = ("rgb", "alpha", "depth", "median_depth", "normal", "distortion")
SALTS = dict(rgb=6, alpha=7, depth=8, normal=9, median_depth=12, distortion=13)
GOLDEN_OUTPUTS = {3: ("rgb", "alpha", "depth"), 2: ("rgb", "alpha", "normal")}
GSPLAT_ALPHA_MAX = 0.999
NEAR, FAR = 1.8, 3.8
KEPT = np.array([0, 1, 15, 20, 25, 30, 35, 40])  # splats of the small scene; 0 and 1 are opaque

each_model = pytest.mark.parametrize("model", (3, 2))
each_camera = pytest.mark.parametrize("index", (0, 1))
each_implementation = pytest.mark.parametrize(
  "implementation", ("reference", "xla", pytest.param("pallas", marks=pytest.mark.gpu))
)


@functools.cache
def golden(model):
  return load(f"render_{model}d")


@functools.cache
def small_scene(model):
  """Eight of the golden scene's splats. The others are made invisible: no second compilation."""
  scene = dict(golden(model))
  scene["logit_opacities"] = np.full_like(scene["logit_opacities"], -30.0)
  scene["logit_opacities"][KEPT] = golden(model)["logit_opacities"][KEPT]
  return scene


@functools.cache
def oracle(model, index):
  return run_oracle(golden(model), index)


def run_oracle(arrays, index, p=None, decisions=None):
  width, height = map(int, arrays["sizes"][index])
  camera = dense_oracle.Camera(
    arrays["world_to_camera"][index], arrays["intrinsics"][index], width, height
  )
  return dense_oracle.render(
    p or {name: arrays[name] for name in FIELDS},
    camera,
    arrays["background"],
    alpha_max=GSPLAT_ALPHA_MAX,
    near=NEAR,
    far=FAR,
    decisions=decisions,
  )


# `render` clamps alpha at the package's ceiling; this one call is compiled with that of gsplat.
@mock.patch.object(rendering, "Options", functools.partial(Options, alpha_max=GSPLAT_ALPHA_MAX))
@functools.partial(jax.jit, static_argnames=("size", "implementation"))
def render_and_pull(gaussians, poses, intrinsics, background, cotangents, *, size, implementation):
  """Images of both cameras, and for every cotangent the gradient of the Gaussians, per camera."""

  def image(g, pose, intrinsic):
    camera = Cameras(world_to_camera=pose, intrinsics=intrinsic, width=size[0], height=size[1])
    out = rendering.render(
      g,
      camera,
      background=background,
      near=NEAR,
      far=FAR,
      capacity=4096,
      implementation=implementation,
    )
    return {name: getattr(out, name) for name in OUTPUTS}, out.overflow

  # The Gaussians are repeated, so that their gradient is told apart by camera.
  repeated = jax.tree.map(lambda x: jnp.stack([x] * len(poses)), gaussians)
  both = lambda g: jax.vmap(image)(g, poses, intrinsics)
  images, pull, overflow = jax.vjp(both, repeated, has_aux=True)
  # Mapped, not looped: backward then sees 12 images at once, and tiles are gathered as they end.
  return images, jax.vmap(lambda c: pull(c)[0])(cotangents), overflow


def weights(model, index, name):
  """The functional's weights of one output. The median has a gradient where T crosses 0.5."""
  alpha = run_oracle(small_scene(model), index).alpha if name == "median_depth" else 1.0
  shape = getattr(oracle(model, index), name).shape
  return probe(shape, SALTS[name]) * (np.asarray(alpha) > 0.5)


def cotangents(model):
  """For every output a cotangent of all outputs that is its probe there and zero elsewhere."""
  one = {name: np.stack([weights(model, i, name) for i in (0, 1)]) for name in OUTPUTS}
  return {
    name: jnp.asarray(np.stack([one[name] * (name == other) for other in OUTPUTS]), jnp.float32)
    for name in OUTPUTS
  }


@functools.cache
def rendered(model, implementation, small=False):
  """The package's images (2, H, W, ...), and by output the gradients of sum(weights * output)."""
  arrays = small_scene(model) if small else golden(model)
  kind = Gaussians3D if model == 3 else Gaussians2D
  size = tuple(map(int, arrays["sizes"][0]))
  images, gradients, overflow = render_and_pull(
    kind(**{name: jnp.asarray(arrays[name]) for name in FIELDS}),
    jnp.asarray(arrays["world_to_camera"]),
    jnp.asarray(arrays["intrinsics"]),
    jnp.asarray(arrays["background"]),
    cotangents(model),
    size=size,
    implementation=implementation,
  )
  assert not np.asarray(overflow).any()
  by_output = {
    output: {field: np.asarray(getattr(gradients, field)[i]) for field in FIELDS}
    for i, output in enumerate(OUTPUTS)
  }
  return {name: np.asarray(images[name]) for name in OUTPUTS}, by_output


def assert_images_match(name, images, index, expected, alpha):
  """Every pixel to 1e-5. The expected depth is compared as what is blended, the sum of w depth.

  Divided by alpha it is compared where alpha >= 1/32: alpha = 1 - T is rounded like a number near
  1, by 1e-7, so the mean of a faint pixel has fewer digits than its sum.
  """
  found = images[name][index]
  if name == "depth":
    clear = alpha >= 1 / 32
    np.testing.assert_allclose(found[clear], expected[clear], rtol=0, atol=1e-5, err_msg=name)
    found, expected = found * images["alpha"][index], expected * alpha
  np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5, err_msg=name)


@each_camera
@each_model
def test_oracle_equals_gsplat(model, index):
  # Guards the oracle itself; nothing of the package runs here.
  images = oracle(model, index)
  for name in GOLDEN_OUTPUTS[model]:
    expected = golden(model)[f"camera{index}/{name}"]
    np.testing.assert_allclose(getattr(images, name), expected, rtol=0, atol=1e-6, err_msg=name)


@each_implementation
@each_camera
@each_model
def test_images_equal_gsplat(model, index, implementation):
  images, _ = rendered(model, implementation)
  for name in GOLDEN_OUTPUTS[model]:
    expected = golden(model)[f"camera{index}/{name}"]
    assert_images_match(name, images, index, expected, golden(model)[f"camera{index}/alpha"])


@each_implementation
@each_camera
@each_model
def test_gradients_equal_gsplat(model, index, implementation):
  _, gradients = rendered(model, implementation)
  for name in GOLDEN_OUTPUTS[model]:
    found = {field: value[index] for field, value in gradients[name].items()}
    assert_gradients_match(found, golden(model), f"camera{index}/d_{name}/")


@each_implementation
@each_camera
@each_model
@pytest.mark.parametrize("name", OUTPUTS)
def test_images_equal_the_oracle(name, model, index, implementation):
  """Includes what gsplat's reference lacks: true ray depth of discs, median depth, distortion."""
  images, _ = rendered(model, implementation)
  expected = oracle(model, index)
  assert_images_match(name, images, index, getattr(expected, name), expected.alpha)


@functools.cache
def differences(model):
  """Finite differences of the oracle on the small scene, seen by camera 0, by output name."""
  arrays = small_scene(model)
  visible = {name: arrays[name][KEPT] for name in FIELDS}
  functional = {name: weights(model, 0, name) for name in OUTPUTS}
  frozen = run_oracle(arrays, 0, visible).decisions

  def functionals(p):
    images = run_oracle(arrays, 0, p, frozen)
    return np.array([(w * getattr(images, name)).sum() for name, w in functional.items()])

  gradients = dense_oracle.finite_differences(functionals, visible)
  return {
    f"{output}/{field}": gradients[field][i] for i, output in enumerate(OUTPUTS) for field in FIELDS
  }


@each_implementation
@each_model
@pytest.mark.parametrize("name", OUTPUTS)
def test_gradients_equal_finite_differences(name, model, implementation):
  _, gradients = rendered(model, implementation, small=True)
  found = {field: value[0][KEPT] for field, value in gradients[name].items()}
  assert_gradients_match(found, differences(model), f"{name}/")


@each_implementation
@each_model
def test_invisible_splats_get_no_gradient(model, implementation):
  _, gradients = rendered(model, implementation, small=True)
  hidden = np.setdiff1d(np.arange(len(golden(model)["means"])), KEPT)
  for output, fields in gradients.items():
    for field, value in fields.items():
      assert np.isfinite(value).all(), (output, field)
      assert not value[:, hidden].any(), (output, field)
