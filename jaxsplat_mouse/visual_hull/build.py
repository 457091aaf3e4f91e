"""Builds a hull from photographs: as a pure function of arrays, or with errors for people."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from jaxsplat_mouse.scene import Scene, as_unit_floats
from jaxsplat_mouse.visual_hull.bounds import find_bounds
from jaxsplat_mouse.visual_hull.carve import carve_grid, tighten
from jaxsplat_mouse.visual_hull.color import point_colors
from jaxsplat_mouse.visual_hull.hull import DEFAULT_CONFIG, Hull, HullConfig, volume_moments
from jaxsplat_mouse.visual_hull.repair import repair_coverage
from jaxsplat_mouse.visual_hull.silhouette_views import (
  SilhouetteViews,
  dilate,
  make_views,
  pack_quads,
  quantize,
)
from jaxsplat_mouse.visual_hull.surface import surface_points

_VIEWS_FOR_REPAIR = 4  # with three, the hull of two views would overrule the third
_DOUBT_PIXELS = 2.0  # around what repair fills: the soft edge of a hole is wrong like the hole


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class _Carved:
  """A carved grid, the silhouettes as photographed and as carved; other fields as in `Hull`."""

  photographed: SilhouetteViews
  views: SilhouetteViews
  values: jax.Array
  origin: jax.Array
  voxel_size: jax.Array
  repaired: jax.Array
  doubted: jax.Array
  shared: jax.Array
  consistent: jax.Array


@functools.partial(jax.jit, static_argnames="config")
def carve_hull(scene: Scene, config: HullConfig = DEFAULT_CONFIG) -> Hull:
  """Carves, samples and colours the hull of one scene; `vmap` takes a stack of scenes.

  An empty hull raises no error: read `shared` and `consistent` of the result, or call `build_hull`.
  """
  carved = _carve_scene(scene, config)
  grid = (carved.values, carved.origin, carved.voxel_size)
  points, normals, area = surface_points(carved.views, *grid, config.num_points)
  images = as_unit_floats(jnp.asarray(scene.images))
  colors, visibility = point_colors(carved.photographed, images, *grid, points, normals)
  centroid, radius = volume_moments(*grid)
  return Hull(
    values=carved.values,
    origin=carved.origin,
    voxel_size=carved.voxel_size,
    points=points,
    normals=normals,
    colors=colors,
    visibility=visibility,
    area=area,
    centroid=centroid,
    radius=radius,
    repaired=carved.repaired,
    doubted=carved.doubted,
    shared=carved.shared,
    consistent=carved.consistent,
  )


def _carve_scene(scene: Scene, config: HullConfig) -> _Carved:
  """Widens and repairs the silhouettes, finds the box and carves the grid."""
  cameras = scene.cameras
  coverage = quantize(jnp.asarray(scene.alphas))
  views = make_views(
    coverage,
    cameras.world_to_camera,
    cameras.intrinsics,
    scene.frames,
    scene.view_mask,
    config.min_views,
    scene.hidden,
  )
  photographed = views
  if scene.hidden is not None:
    views = _with_coverage(views, jnp.where(views.hidden, jnp.uint8(255), coverage))
  if config.slack:
    slack = jnp.full(len(views.valid), config.slack)
    views = _with_coverage(views, dilate(views.coverage, slack, slack))
  before = views.coverage
  may_repair = config.repair & (views.valid.sum() >= _VIEWS_FOR_REPAIR)
  bounds = find_bounds(views, may_repair.astype(jnp.int32))
  if config.repair:
    repaired = repair_coverage(views, bounds.box)
    views = _with_coverage(views, jnp.where(may_repair, repaired, before))
  box, consistent = tighten(views, bounds.box)
  values = carve_grid(views, box, config.resolution)
  voxel_size = (box.high - box.low) / config.resolution
  changed = views.coverage != before
  around = jnp.full(len(views.valid), _DOUBT_PIXELS)
  return _Carved(
    photographed=photographed,
    views=views,
    values=values,
    origin=box.low + voxel_size / 2,
    voxel_size=voxel_size,
    doubted=dilate(changed.astype(jnp.uint8), around, around) > 0,
    repaired=changed.sum((1, 2)) / jnp.maximum((views.coverage >= 128).sum((1, 2)), 1),
    shared=bounds.shared,
    consistent=bounds.consistent & consistent & (values >= 128).any(),
  )


def _with_coverage(views: SilhouetteViews, coverage: jax.Array) -> SilhouetteViews:
  """Returns the views with other silhouettes (V, H, W) uint8."""
  return dataclasses.replace(views, coverage=coverage, quads=pack_quads(coverage))


def build_hull(
  scene: Scene,
  config: HullConfig = DEFAULT_CONFIG,
  carve: Callable[[Scene, HullConfig], Hull] = carve_hull,
) -> Hull:
  """Builds the visual hull of one scene.

  Args:
    scene: V >= 2 views in any world units; they may be crops if `frames` holds what was seen.
    config: sizes and rules.
    carve: `carve_hull`, or a compiled program of it.

  Raises:
    ValueError: the cameras see no common volume, or the silhouettes admit no common solid.
  """
  _check_scene(scene)
  hull = carve(scene, config)
  check_hull(hull)
  return hull


def hull_extent(scene: Scene, config: HullConfig = DEFAULT_CONFIG) -> tuple[np.ndarray, float]:
  """Measures the hull's volume, without sampling its surface.

  Args:
    scene: as for `build_hull`.
    config: sizes and rules.

  Returns:
    The centroid (3,) float64, and the largest distance of the volume from it, world units.

  Raises:
    ValueError: as `build_hull`.
  """
  _check_scene(scene)
  centroid, radius, shared, consistent = _measure(scene, config)
  _raise_if_empty(shared, consistent)
  return np.asarray(centroid, np.float64), float(radius)


@functools.partial(jax.jit, static_argnames="config")
def _measure(scene: Scene, config: HullConfig) -> tuple[jax.Array, ...]:
  """Returns centroid, radius, shared and consistent of the hull of one scene."""
  carved = _carve_scene(scene, config)
  moments = volume_moments(carved.values, carved.origin, carved.voxel_size)
  return *moments, carved.shared, carved.consistent


def _check_scene(scene: Scene) -> None:
  """Raises ValueError if the scene has too few views to carve with."""
  if scene.num_views < 2:
    raise ValueError(f"view_mask: a visual hull takes at least 2 views, got {scene.num_views}")


def check_hull(hull: Hull) -> None:
  """Raises ValueError if a hull is empty, with the reason."""
  _raise_if_empty(hull.shared, hull.consistent)


def _raise_if_empty(shared: jax.Array, consistent: jax.Array) -> None:
  """Raises ValueError for either of the two reasons for an empty hull."""
  if not bool(shared):
    raise ValueError(
      "cameras: no volume is in frame of enough views; expected cameras that look at one place"
    )
  if not bool(consistent):
    raise ValueError(
      "silhouettes: no point lies inside all of them; expected masks of one object at one moment "
      "and cameras in OpenCV axes (world to camera)"
    )
