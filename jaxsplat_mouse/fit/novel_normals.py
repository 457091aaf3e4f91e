"""What a fit asks of views that nobody took: no photograph is needed to want one surface there.

Splats that agree with each other in six photographs need not agree from between them, where they
are seen at other slants. RegNeRF (Niemeyer et al. 2022) asks for smooth depth in unobserved views;
here it is the agreement of normals with the depth's own, as in the photographs.
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

_VIEWS = 32  # of FaceLift's orbit, which is what is written


def novel_loss(
  gaussians: Gaussians,
  alive: jax.Array,
  filter_width: jax.Array,
  key: jax.Array,
  config: FitConfig,
) -> tuple[jax.Array, jax.Array]:
  """Disagreement of normals in one view of FaceLift's orbit, and the intersections without room.

  Args:
    gaussians: (N,).
    alive: (N,) bool, those that are shown.
    filter_width: () of the screen-space filter, as the fit's own views have it.
    key: draws the view.
    config: weight and size; with weight 0 nothing is rendered.

  Returns:
    the weighted loss (), a mean over the silhouette's area as all losses are; overflow () int32.
  """
  if config.novel_weight <= 0:
    return jnp.zeros(()), jnp.zeros((), jnp.int32)
  orbit = generate_camera_poses(num_views=_VIEWS, image_size=config.novel_size)
  picked = jax.random.randint(key, (), 0, _VIEWS)
  camera = jax.tree.map(lambda leaf: jnp.asarray(leaf)[picked], orbit)
  output = render(
    gs.mask(gaussians, alive),
    camera,
    geometry=True,
    filter_width=filter_width,
    capacity=config.capacity,
    alpha_max=config.alpha_max,
  )
  covered = jnp.maximum(jax.lax.stop_gradient(output.alpha).mean(), 1e-3)
  mean = losses.normal_consistency(output.normal, output.depth, output.alpha, camera)
  return config.novel_weight * mean / covered, output.overflow
