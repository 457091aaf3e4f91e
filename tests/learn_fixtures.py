"""Small samples, and one training step that all tests of a run share: it compiles for long."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np

from jaxsplat_mouse.cameras import generate_camera_poses
from jaxsplat_mouse.learn.gslrm.architecture import SIZES
from jaxsplat_mouse.learn.gslrm.tokens import PosedImages
from jaxsplat_mouse.procedural_mouse.mouse_scenes import make_scene

TINY = SIZES["tiny"]


@functools.cache
def mouse_sample(seed: int = 0, views: int = 8) -> PosedImages:
  """Views (V,) of a built-in mouse on FaceLift's orbit, every second one first: the inputs."""
  orbit = generate_camera_poses(views, image_size=TINY.image_size)
  made = make_scene(seed, orbit)
  order = np.array([*range(0, views, 2), *range(1, views, 2)])
  rgba = np.concatenate([made.images, made.alphas[..., None]], -1)
  sample = PosedImages(rgba=rgba, cameras=orbit)
  return jax.tree.map(lambda leaf: jnp.asarray(leaf)[order], sample)


def with_batch(sample: PosedImages) -> PosedImages:
  """A batch of one sample."""
  return jax.tree.map(lambda leaf: leaf[None], sample)


def views_of(sample: PosedImages, index: object) -> PosedImages:
  return PosedImages(rgba=sample.rgba[index], cameras=sample.cameras[index])
