"""What a fit minimises: training views at one resolution, and the loss against them."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp

from jaxsplat_mouse import gaussians as gs
from jaxsplat_mouse import losses
from jaxsplat_mouse.cameras import Cameras
from jaxsplat_mouse.fit.config import FitConfig
from jaxsplat_mouse.fit.poses import Adjustments, adjust_cameras, expose
from jaxsplat_mouse.gaussians import Gaussians
from jaxsplat_mouse.ops.photometric.api import photometric
from jaxsplat_mouse.rendering import RenderOutput, render
from jaxsplat_mouse.scene import HullViews, Scene, unit


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class TargetViews:
  """Training views at one resolution.

  Attributes:
    cameras: (V,).
    colors: (V, H, W, 3) premultiplied.
    alphas: (V, H, W) silhouettes.
    observed: (V, H, W) 1 where a view is fitted to, 0 elsewhere.
    exposure: (V, 3, 4), see `Adjustments`; None where views are taken as they are.
  """

  cameras: Cameras
  colors: jax.Array
  alphas: jax.Array
  observed: jax.Array
  exposure: jax.Array | None = None


def views_at(scene: Scene, resolution: int, mask_tolerance: int = 0) -> TargetViews:
  """Averages views over resolution^2 pixels, as premultiplied colour, and moves the intrinsics.

  Pixels that no camera saw, that other views contradict, or that lie within `mask_tolerance` of a
  silhouette's outline are not observed.
  """
  alphas = unit(jnp.asarray(scene.alphas))
  colors = unit(jnp.asarray(scene.images)) * alphas[..., None]
  height, width = scene.alphas.shape[1:]
  x = jnp.arange(width) + 0.5
  y = jnp.arange(height) + 0.5
  frame = jnp.asarray(scene.frames)[:, :, None, None]
  inside = (x >= frame[:, 0]) & (x <= frame[:, 2])
  observed = (inside & ((y[:, None] >= frame[:, 1]) & (y[:, None] <= frame[:, 3]))).astype(
    jnp.float32
  )
  observed *= jnp.asarray(scene.view_mask, jnp.float32)[:, None, None]
  if scene.doubted is not None:
    observed *= ~jnp.asarray(scene.doubted)
  if mask_tolerance > 0:
    observed *= ~_outline(alphas, mask_tolerance)
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


def _outline(alphas: jax.Array, width: int) -> jax.Array:
  """Pixels (V, H, W) bool with both animal and background at most `width` pixels away."""
  window = (1, 2 * width + 1, 2 * width + 1)
  reduce = lambda a: jax.lax.reduce_window(a, -jnp.inf, jax.lax.max, window, (1, 1, 1), "SAME")
  return (reduce(alphas) >= 0.5) & (-reduce(-alphas) < 0.5)


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class Problem:
  """One scene's views at one resolution, and the measures that make weights mean the same anywhere.

  Attributes:
    views: (V,) targets.
    area: () pixels of a view over the mean pixels of its silhouette.
    footprint: () width of a full-resolution pixel at the scene's origin, world units; the median
      over the views.
    filter_width: () of the screen-space filter, see `render`.
    hull_views: of the scene.
  """

  views: TargetViews
  area: jax.Array
  footprint: jax.Array
  filter_width: jax.Array
  hull_views: HullViews | None = None


def problem_at(scene: Scene, resolution: int, config: FitConfig) -> Problem:
  """What a fit of `scene` minimises at a downsampling of its views; see `views_at`."""
  views = views_at(scene, resolution, config.mask_tolerance)
  real = jnp.asarray(scene.view_mask)
  count = jnp.maximum(real.sum(), 1)
  covered = (views.alphas.mean((1, 2)) * real).sum() / count
  footprint = _footprint(scene)
  return Problem(
    views=views,
    area=1.0 / jnp.maximum(covered, 1e-3),
    footprint=footprint,
    filter_width=resolution * config.low_pass**0.5 * footprint,
    hull_views=scene.hull_views,
  )


def filter_width(scene: Scene, config: FitConfig) -> jax.Array:
  """() width of the screen-space filter with which a fit of `scene` is to be rendered."""
  return config.resolutions[-1] * config.low_pass**0.5 * _footprint(scene)


def _footprint(scene: Scene) -> jax.Array:
  """() width of a full-resolution pixel at the scene's origin; the median over the real views."""
  real = jnp.asarray(scene.view_mask)
  footprints = jnp.sort(jnp.where(real, scene.cameras.footprints, jnp.inf))
  return footprints[(jnp.maximum(real.sum(), 1) - 1) // 2]


def adjusted(views: TargetViews, adjustments: Adjustments | None) -> TargetViews:
  """The views with what was found out about their cameras and exposures."""
  if adjustments is None:
    return views
  cameras = adjust_cameras(views.cameras, adjustments)
  return dataclasses.replace(views, cameras=cameras, exposure=adjustments.exposure)


def _view_loss(
  output: RenderOutput,
  target: TargetViews,
  background: jax.Array,
  config: FitConfig,
  geometry: bool,
) -> dict[str, jax.Array]:
  """Per-pixel mean losses of one view, unweighted."""
  wanted = target.colors + (1.0 - target.alphas)[..., None] * background
  shown = expose_over(output, target.exposure, background)
  parts = {"mask": losses.mask_l1(output.alpha, target.alphas, target.observed)}
  if config.ssim_weight > 0:
    parts["l1"], parts["ssim"] = photometric(shown, wanted, target.observed)
  else:
    parts["l1"] = losses.l1(shown, wanted, target.observed)
  if geometry:
    parts["distortion"] = losses.distortion(output.distortion, target.observed)
    parts["normal"] = losses.normal_consistency(
      output.normal, output.depth, output.alpha, target.cameras, target.observed
    )
  return parts


def expose_over(
  output: RenderOutput, exposure: jax.Array | None, background: jax.Array
) -> jax.Array:
  """Colour (H, W, 3) of a render over a background (3,), the animal alone as the view shows it."""
  if exposure is None:
    return output.rgb
  behind = (1.0 - output.alpha)[..., None] * background
  return expose(output.rgb - behind, output.alpha, exposure) + behind


def loss(
  gaussians: Gaussians,
  alive: jax.Array,
  views: TargetViews,
  backgrounds: jax.Array,
  problem: Problem,
  config: FitConfig,
  geometry: bool,
) -> tuple[jax.Array, dict[str, jax.Array]]:
  """How far N Gaussians are from the given views, and the parts of that for the record.

  Args:
    gaussians: (N,).
    alive: (N,) bool, slots in use.
    views: (V,) targets.
    backgrounds: (V, 3) colours behind render and photograph alike.
    problem: of the scene; its own views are not looked at.
    config: weights.
    geometry: whether depth and normals count.
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
      alpha_max=config.alpha_max,
    )
    return _view_loss(output, view, background, config, geometry), output.overflow

  parts, overflow = jax.vmap(one)(views, backgrounds)
  real = (views.observed.max((1, 2)) > 0).astype(jnp.float32)
  parts = {k: (v * real).sum() / jnp.maximum(real.sum(), 1.0) for k, v in parts.items()}
  image = (1.0 - config.ssim_weight) * parts["l1"]
  if config.ssim_weight > 0:
    image += config.ssim_weight * (1.0 - parts["ssim"])
  total = image + config.mask_weight * parts["mask"]
  if geometry:
    total += config.depth_weight * parts["distortion"] + config.normal_weight * parts["normal"]
  total = total * problem.area
  return total, {**parts, "loss": total, "overflow": overflow.max()}


def regularizer(gaussians: Gaussians, alive: jax.Array, config: FitConfig) -> jax.Array:
  """Pressure of N Gaussians, those alive (N,), toward few and small ones."""
  total = config.opacity_weight * losses.opacity_regularizer(gs.opacities(gaussians), alive)
  return total + config.scale_weight * losses.scale_regularizer(gs.scales(gaussians), alive)


def draw_views(views: TargetViews, key: jax.Array, count: int) -> TargetViews:
  """`count` views drawn without replacement; all where count is 0 or reaches their number.

  Padding views, which observe nothing, come last.
  """
  number = views.alphas.shape[0]
  if count <= 0 or count >= number:
    return views
  padding = views.observed.max((1, 2)) == 0
  picked = jnp.argsort(jax.random.uniform(key, (number,)) + padding)[:count]
  return jax.tree.map(lambda a: a[picked], views)
