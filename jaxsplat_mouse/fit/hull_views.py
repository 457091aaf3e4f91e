"""What the hull says about cameras that took no photograph: where nothing is, where something is.

Splats that no photograph shows learn nothing and fade under the pressure toward few; what is left
of them shows in the views that are written. The hull's silhouettes there bound the animal from
outside, and its inside has to be filled up to their outline.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxsplat_mouse import gaussians as gs
from jaxsplat_mouse.cameras import generate_camera_poses
from jaxsplat_mouse.fit.config import FitConfig
from jaxsplat_mouse.gaussians import Gaussians
from jaxsplat_mouse.rendering import render
from jaxsplat_mouse.scene import HullViews
from jaxsplat_mouse.visual_hull.hull import Hull
from jaxsplat_mouse.visual_hull.hull_alpha import hull_alpha
from jaxsplat_mouse.visual_hull.silhouette_views import dilate

_MARGIN = 2.0  # pixels of the hull's views: its outline is not the animal's, only near it


def hull_views(hull: Hull, config: FitConfig) -> HullViews | None:
  """Silhouettes of one hull in the output's orbit; None where the config gives them no weight."""
  if config.hull_inside <= 0 and config.hull_outside <= 0:
    return None
  cameras = generate_camera_poses(num_views=config.hull_views, image_size=config.hull_size)
  alphas = jnp.round(hull_alpha(hull, cameras) * 255.0).astype(jnp.uint8)
  margin = jnp.full(config.hull_views, _MARGIN)
  return HullViews(
    cameras=jax.tree.map(jnp.asarray, cameras),
    outer=dilate(alphas, margin, margin),
    inner=255 - dilate(255 - alphas, margin, margin),
  )


def hull_loss(
  gaussians: Gaussians, alive: jax.Array, views: HullViews | None, key: jax.Array, config: FitConfig
) -> jax.Array:
  """Coverage outside of the hull and gaps inside it in one of its views, drawn by `key`; ().

  Sums over pixels are divided by the silhouette's area, as all losses are.
  """
  if views is None:
    return jnp.zeros(())
  picked = jax.random.randint(key, (), 0, views.outer.shape[0])
  view = jax.tree.map(lambda leaf: leaf[picked], views)
  shown = gs.mask(gaussians, alive)
  alpha = render(shown, view.cameras, geometry=False, capacity=config.capacity).alpha
  outer, inner = view.outer / 255.0, view.inner / 255.0
  area = jnp.maximum(inner.sum(), 1.0)
  outside = ((1.0 - outer) * alpha).sum() / area
  inside = (inner * (1.0 - alpha)).sum() / area
  return config.hull_outside * outside + config.hull_inside * inside
