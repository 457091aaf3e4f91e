"""The network is FaceLift's: every number that its own code computed, within 1e-5.

`../shared/data/gslrm_golden` was made by running the original with random weights; only numbers of
it are there.
"""

from __future__ import annotations

import dataclasses
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxsplat_mouse import gaussians as gs
from jaxsplat_mouse.cameras import Cameras
from jaxsplat_mouse.learn.gslrm.decoding import decode
from jaxsplat_mouse.learn.gslrm.network import GSLRM
from jaxsplat_mouse.learn.gslrm.tokens import PosedImages, embed_inputs
from jaxsplat_mouse.learn.training.conversion import convert_checkpoint
from jaxsplat_mouse.math import normalize_quaternion

_TOLERANCE = 1e-5


@pytest.fixture(scope="module")
def golden(shared_dir: pathlib.Path) -> dict[str, np.ndarray]:
  with np.load(shared_dir / "data" / "gslrm_golden" / "golden.npz") as archive:
    return dict(archive)


@pytest.fixture(scope="module")
def weights(shared_dir: pathlib.Path) -> Any:
  path = shared_dir / "data" / "gslrm_golden" / "checkpoint.pt"
  found = convert_checkpoint(path, head_width=32)
  exact = dataclasses.replace(found.architecture, dtype="float32", remat=False)
  return dataclasses.replace(found, architecture=exact)


def _inputs(numbers: dict[str, np.ndarray]) -> PosedImages:
  """Photographs that are composited already: alpha is 1."""
  rgb = numbers["image"].transpose(0, 2, 3, 1)
  poses = np.linalg.inv(numbers["c2w"].astype(np.float64)).astype(np.float32)
  cameras = Cameras(
    world_to_camera=jnp.asarray(poses),
    intrinsics=jnp.asarray(numbers["fxfycxcy"]),
    width=rgb.shape[2],
    height=rgb.shape[1],
  )
  return PosedImages(
    rgba=jnp.asarray(np.pad(rgb, [(0, 0)] * 3 + [(0, 1)], constant_values=1)), cameras=cameras
  )


def _compute(weights: Any, images: PosedImages) -> dict[str, jax.Array]:
  """All intermediate values by the names of the golden file."""
  shape = weights.architecture

  @jax.jit
  def run(parameters: Any, images: PosedImages) -> dict[str, Any]:
    tokens = embed_inputs(images, shape)
    (raw, registers), kept = GSLRM(shape).apply(
      {"params": parameters},
      tokens.features[None],
      tokens.count[None],
      mutable=["intermediates"],
    )
    gaussians = decode(raw[0], registers[0], tokens, shape)
    return {"raw": raw[0], "registers": registers[0], "tokens": tokens, "g": gaussians, **kept}

  found = run(weights.parameters, images)
  kept, g = found["intermediates"], found["g"]
  blocks, count = kept["blocks"], kept["tokens"][0].shape[1]
  block = lambda name, i: blocks[name][0][i, 0, :count]  # without what fills up
  side, patch = images.rgba.shape[1] // shape.patch, shape.patch
  pixels = found["tokens"].features.reshape(-1, side, side, patch, patch, shape.channels)
  posed = pixels.swapaxes(2, 3).reshape(-1, side * patch, side * patch, shape.channels)
  return {
    **{f"posed_view{i}": view.transpose(2, 0, 1) for i, view in enumerate(posed)},
    "patch_tokens": kept["patches"][0][0],
    "tokens_0": kept["tokens"][0][0],
    "attention_0": block("attention", 0),
    "mlp_0": block("perceptron", 0),
    "tokens_1": block("tokens", 0),
    "tokens_2": block("tokens", 1),
    "raw_extra": found["registers"],
    "raw_pixel": found["raw"].reshape(-1, shape.outputs),
    "xyz": g.means,
    "features": g.sh,
    "log_scaling": g.log_scales,
    "scaling": gs.scales(g),
    "quat": g.quats,
    "unit_quat": normalize_quaternion(g.quats),
    "logit_opacity": g.logit_opacities[:, None],
    "opacity": gs.opacities(g)[:, None],
  }


@pytest.mark.parametrize("case", ["a", "b"])
def test_every_intermediate_value_is_that_of_the_original(golden, weights, case):
  """In `b`, fx differs from fy, cx from cy, and the cameras are turned and rolled."""
  numbers = {key[2:]: value for key, value in golden.items() if key.startswith(f"{case}/")}
  found = _compute(weights, _inputs(numbers))
  compared = sorted(set(found) & set(numbers))
  missing = set(numbers) - set(found) - {"image", "c2w", "fxfycxcy", "xyz_clamped"}
  assert not missing
  for key in compared:
    np.testing.assert_allclose(found[key], numbers[key], rtol=0, atol=_TOLERANCE, err_msg=key)


def test_room_for_all_patches_is_no_limit(golden, weights):
  """Sparse tokens with room for more than all patches, which are equally covered here."""
  numbers = {key[2:]: value for key, value in golden.items() if key.startswith("a/")}
  sparse = dataclasses.replace(weights.architecture, max_tokens=1000)
  found = _compute(dataclasses.replace(weights, architecture=sparse), _inputs(numbers))
  for key in ("raw_extra", "raw_pixel", "xyz"):
    np.testing.assert_allclose(found[key], numbers[key], rtol=0, atol=_TOLERANCE, err_msg=key)
