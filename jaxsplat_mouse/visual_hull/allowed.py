"""Which points the silhouettes allow, asked point by point and without a grid."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

from jaxsplat_mouse.scene import Scene
from jaxsplat_mouse.visual_hull.silhouette_views import (
  dilate,
  make_views,
  pack_quads,
  quantize,
  sample_view,
  scan_views,
)


def allowed_points(
  scene: Scene, points: jax.Array, slack: float = 3.0, dissent: int = 1
) -> jax.Array:
  """Whether points (N, 3) can belong to the animal; (N,) bool.

  A point is refused where more than `dissent` views that have it in frame see background there, or
  where fewer than two views have it in frame.

  Args:
    scene: V views; pixels in doubt refuse nothing.
    points: world.
    slack: pixels by which silhouettes are widened first.
    dissent: views that may be wrong.
  """
  coverage = quantize(jnp.asarray(scene.alphas))
  if scene.doubted is not None:
    coverage = jnp.where(jnp.asarray(scene.doubted), jnp.uint8(255), coverage)
  cameras = scene.cameras
  views = make_views(
    coverage, cameras.world_to_camera, cameras.intrinsics, scene.frames, scene.view_mask, 2
  )
  reach = jnp.full(len(views.valid), slack)
  wide = dilate(coverage, reach, reach)
  views = dataclasses.replace(views, coverage=wide, quads=pack_quads(wide))
  value, known = jax.vmap(lambda view: sample_view(view, points))(scan_views(views))
  refused = (known & (value < 0.5)).sum(0)
  return (refused <= dissent) & (known.sum(0) >= 2)
