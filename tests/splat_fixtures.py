"""Small random splats and cameras that several tests share."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxsplat_mouse import cameras
from jaxsplat_mouse.gaussians import Gaussians, Gaussians2D, Gaussians3D


def random_gaussians(
  flat: bool, count: int = 60, seed: int = 0, size: float = 0.06, sh_coefficients: int = 4
) -> Gaussians:
  """Gaussians around the origin, several layers deep for a camera at distance 2.7."""
  keys = jax.random.split(jax.random.key(seed), 5)
  return (Gaussians2D if flat else Gaussians3D)(
    means=0.4 * jax.random.normal(keys[0], (count, 3)),
    log_scales=jnp.log(size) + 0.4 * jax.random.normal(keys[1], (count, 2 if flat else 3)),
    quats=jax.random.normal(keys[2], (count, 4)),
    logit_opacities=jax.random.normal(keys[3], (count,)) + 1.0,
    sh=0.5 * jax.random.normal(keys[4], (count, sh_coefficients, 3)),
  )


def odd_cameras(count: int = 2, width: int = 42, height: int = 35) -> cameras.Cameras:
  """Cameras with fx != fy, off-centre principal points and an image no tile size divides."""
  ring = cameras.generate_camera_poses(count, image_size=48)
  intrinsics = jnp.asarray(ring.intrinsics) + jnp.array([3.0, -1.0, -4.0, -6.5])
  return cameras.Cameras(
    world_to_camera=jnp.asarray(ring.world_to_camera),
    intrinsics=intrinsics,
    width=width,
    height=height,
  )
