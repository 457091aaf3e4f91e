"""What a fit minimises: training views at one resolution, and the losses against them.

A loss of the photographs is one entry of `view_losses` and its weight one entry of `loss_weights`.
"""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

from jaxsplat_mouse import gaussians as gs
from jaxsplat_mouse import losses
from jaxsplat_mouse.cameras import Cameras
from jaxsplat_mouse.fit import inexact_fits
from jaxsplat_mouse.fit.config import FitConfig
from jaxsplat_mouse.gaussians import Gaussians
from jaxsplat_mouse.ops.photometric.api import photometric
from jaxsplat_mouse.rendering import RenderOutput, render
from jaxsplat_mouse.scene import Scene, as_unit_floats, observed_pixels


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class TargetViews:
  """Training views at one resolution.

  Attributes:
    cameras: (V,).
    colors: (V, H, W, 3) premultiplied by alpha.
    alphas: (V, H, W) silhouettes.
    observed: (V, H, W) 1 where a pixel has losses, 0 elsewhere.
  """

  cameras: Cameras
  colors: jax.Array
  alphas: jax.Array
  observed: jax.Array


def views_at(scene: Scene, resolution: int) -> TargetViews:
  """Averages views over resolution^2 pixels, as premultiplied colour, and scales the intrinsics.

  Pixels that no camera saw or that other views contradict are not observed.

  Args:
    scene: V views.
    resolution: side of the square of pixels that are averaged, at least 1.

  Returns:
    V views of the reduced size; rows and columns that fill no square are cut off.
  """
  alphas = as_unit_floats(jnp.asarray(scene.alphas))
  colors = as_unit_floats(jnp.asarray(scene.images)) * alphas[..., None]
  height, width = scene.alphas.shape[1:]
  observed = jnp.asarray(observed_pixels(scene), jnp.float32)
  if scene.doubted is not None:
    observed *= ~jnp.asarray(scene.doubted)
  if resolution == 1:
    return TargetViews(cameras=scene.cameras, colors=colors, alphas=alphas, observed=observed)
  high, wide = height // resolution, width // resolution

  def pool(a: jax.Array) -> jax.Array:
    a = a[:, : high * resolution, : wide * resolution]
    return a.reshape(-1, high, resolution, wide, resolution, *a.shape[3:]).mean((2, 4))

  cameras = Cameras(
    world_to_camera=scene.cameras.world_to_camera,
    intrinsics=scene.cameras.intrinsics / resolution,
    width=wide,
    height=high,
  )
  return TargetViews(
    cameras=cameras,
    colors=pool(colors),
    alphas=pool(alphas),
    observed=(pool(observed) > 0.999).astype(jnp.float32),
  )


def real_views(views: TargetViews) -> jax.Array:
  """Returns (V,) float32: 1 for views that observe a pixel, 0 for padding."""
  return (views.observed.max((1, 2)) > 0).astype(jnp.float32)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class Problem:
  """One scene's views at one resolution, and the measures that make weights mean the same anywhere.

  Attributes:
    views: (V,) targets.
    area: () pixels of a view over the mean pixels of its silhouette.
    footprint: () width of a full-resolution pixel at the scene's origin, world units; the median
      over the views.
    filter_width: () of the screen-space filter, world units, see `rendering.render`.
    inexact: () bool, see `inexact_fits`; None in a batch without inexact scenes.
  """

  views: TargetViews
  area: jax.Array
  footprint: jax.Array
  filter_width: jax.Array
  inexact: jax.Array | None = None


def problem_at(scene: Scene, resolution: int, config: FitConfig) -> Problem:
  """Returns what a fit of a scene minimises at a downsampling of its views; see `views_at`.

  Args:
    scene: V views.
    resolution: downsampling, at least 1.
    config: the filter.
  """
  views = views_at(scene, resolution)
  real = jnp.asarray(scene.view_mask)
  count = jnp.maximum(real.sum(), 1)
  covered = (views.alphas.mean((1, 2)) * real).sum() / count
  footprint = _footprint(scene)
  return Problem(
    views=views,
    area=1.0 / jnp.maximum(covered, 1e-3),
    footprint=footprint,
    filter_width=resolution * config.low_pass**0.5 * footprint,
    inexact=None if scene.inexact is None else jnp.asarray(scene.inexact).any(),
  )


def filter_width(scene: Scene, config: FitConfig) -> jax.Array:
  """Returns () the width, world units, of the filter that renders a fit as it was fitted."""
  return config.resolutions[-1] * config.low_pass**0.5 * _footprint(scene)


def _footprint(scene: Scene) -> jax.Array:
  """() width of a full-resolution pixel at the scene's origin; the median over the real views."""
  real = jnp.asarray(scene.view_mask)
  footprints = jnp.sort(jnp.where(real, scene.cameras.footprints, jnp.inf))
  return footprints[(jnp.maximum(real.sum(), 1) - 1) // 2]


def view_losses(
  output: RenderOutput,
  target: TargetViews,
  background: jax.Array,
  config: FitConfig,
  geometry: bool,
) -> dict[str, jax.Array]:
  """Returns the losses of one view by name, unweighted means over its observed pixels.

  Args:
    output: the render (H, W, ...) over `background`.
    target: one view (H, W, ...).
    background: (3,) colour behind render and photograph alike.
    config: whether SSIM has a weight.
    geometry: whether depth and normals were rendered.
  """
  wanted = target.colors + (1.0 - target.alphas)[..., None] * background
  parts = {}
  if config.ssim_weight > 0:
    parts["l1"], similarity = photometric(output.rgb, wanted, target.observed)
    parts["ssim"] = 1.0 - similarity
  else:
    parts["l1"] = losses.l1(output.rgb, wanted, target.observed)
  parts["mask"] = losses.mask_l1(output.alpha, target.alphas, target.observed)
  if geometry:
    parts["distortion"] = losses.distortion(output.distortion, target.observed)
    parts["normal"] = losses.normal_consistency(
      output.normal, output.depth, output.alpha, target.cameras, target.observed
    )
  return parts


def loss_weights(config: FitConfig) -> dict[str, float]:
  """Returns the weight of every loss of `view_losses`."""
  return {
    "l1": 1.0 - config.ssim_weight,
    "ssim": config.ssim_weight,
    "mask": config.mask_weight,
    "distortion": config.depth_weight,
    "normal": config.normal_weight,
  }


def loss(
  gaussians: Gaussians,
  alive: jax.Array,
  views: TargetViews,
  backgrounds: jax.Array,
  problem: Problem,
  config: FitConfig,
  geometry: bool,
) -> tuple[jax.Array, dict[str, jax.Array]]:
  """Compares N Gaussians with the given views.

  Args:
    gaussians: (N,).
    alive: (N,) bool, the splats that are rendered.
    views: (V,) targets.
    backgrounds: (V, 3) colours behind render and photograph alike.
    problem: of the scene; its area and filter count here, its views do not.
    config: weights.
    geometry: whether depth and normals have losses.

  Returns:
    the weighted sum () of the losses, times the area; and for the record the losses by name,
    means over the real views, with `loss` and `overflow` () int32, the most splat-tile
    intersections that found no room in a view.
  """
  shown = gs.mask(gaussians, alive)

  def one(view: TargetViews, background: jax.Array) -> tuple[dict[str, jax.Array], jax.Array]:
    output = render(
      shown,
      view.cameras,
      background=background,
      geometry=geometry,
      filter_width=problem.filter_width,
      capacity=config.capacity,
    )
    return view_losses(output, view, background, config, geometry), output.overflow

  parts, overflow = jax.vmap(one)(views, backgrounds)
  real = real_views(views)
  parts = {k: (v * real).sum() / jnp.maximum(real.sum(), 1.0) for k, v in parts.items()}
  weights = loss_weights(config)
  total = sum((weights[name] * value for name, value in parts.items()), jnp.zeros(()))
  total = total * problem.area
  return total, {**parts, "loss": total, "overflow": overflow.max()}


def regularizer(
  gaussians: Gaussians, alive: jax.Array, config: FitConfig, inexact: jax.Array | None = None
) -> jax.Array:
  """Returns the pressure () of N Gaussians toward few and small ones.

  Args:
    gaussians: (N,).
    alive: (N,) bool.
    config: weights.
    inexact: () bool, whether the scene is inexact.
  """
  weight = inexact_fits.opacity_weight(inexact, config)
  total = weight * losses.opacity_regularizer(gs.opacities(gaussians), alive)
  return total + config.scale_weight * losses.scale_regularizer(gs.scales(gaussians), alive)


def draw_views(views: TargetViews, key: jax.Array, count: int) -> TargetViews:
  """Draws `count` views without replacement; all where `count` is 0 or reaches their number.

  Args:
    views: (V,); padding views, which observe nothing, are drawn last.
    key: PRNG key.
    count: number of views.
  """
  number = views.alphas.shape[0]
  if count <= 0 or count >= number:
    return views
  padding = views.observed.max((1, 2)) == 0
  picked = jnp.argsort(jax.random.uniform(key, (number,)) + padding)[:count]
  return jax.tree.map(lambda a: a[picked], views)
