"""Normal consistency in views that no camera took.

Splats that agree with each other in six photographs need not agree from between them, where they
are seen at other slants. RegNeRF (Niemeyer et al. 2022) asks for smooth depth in unobserved views;
here normals agree with the depth's own, as in the photographs.
"""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxsplat_mouse import gaussians as gs
from jaxsplat_mouse import losses
from jaxsplat_mouse.cameras import generate_camera_poses
from jaxsplat_mouse.fit.config import FitConfig
from jaxsplat_mouse.gaussians import Gaussians
from jaxsplat_mouse.rendering import render

_NUM_VIEWS = 32  # of FaceLift's orbit, the views that a dataset holds
_SIZE = 256  # their side, pixels


def novel_normal_loss(
  gaussians: Gaussians,
  alive: jax.Array,
  filter_width: jax.Array,
  key: jax.Array,
  config: FitConfig,
) -> tuple[jax.Array, jax.Array]:
  """Measures the disagreement of normals in one view of FaceLift's orbit.

  Args:
    gaussians: (N,).
    alive: (N,) bool, those that are rendered.
    filter_width: () width of the screen-space filter, that of the fit's own views.
    key: PRNG key that draws the view.
    config: the weight; at weight 0 nothing is rendered.

  Returns:
    the weighted loss (), a mean over the silhouette's area as all losses are; and () int32, the
    splat-tile intersections that found no room.
  """
  if config.novel_weight <= 0:
    return jnp.zeros(()), jnp.zeros((), jnp.int32)
  orbit = generate_camera_poses(num_views=_NUM_VIEWS, image_size=_SIZE)
  picked = jax.random.randint(key, (), 0, _NUM_VIEWS)
  camera = jax.tree.map(lambda leaf: jnp.asarray(leaf)[picked], orbit)
  output = render(
    gs.mask(gaussians, alive),
    camera,
    geometry=True,
    filter_width=filter_width,
    capacity=config.capacity,
  )
  covered = jnp.maximum(jax.lax.stop_gradient(output.alpha).mean(), 1e-3)
  mean = losses.normal_consistency(output.normal, output.depth, output.alpha, camera)
  return config.novel_weight * mean / covered, output.overflow
