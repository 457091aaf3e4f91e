"""The start of a fit: Gaussians on the visual hull, and the pixels that the hull contradicts."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable

import jax
import numpy as np

from jaxsplat_mouse.fit.config import FitConfig
from jaxsplat_mouse.gaussians import Gaussians
from jaxsplat_mouse.scene import Scene, widen_frames
from jaxsplat_mouse.visual_hull.build import build_hull, carve_hull
from jaxsplat_mouse.visual_hull.hull import Hull, HullConfig
from jaxsplat_mouse.visual_hull.initial_gaussians import initial_gaussians


def start_on_hull(
  scene: Scene,
  config: FitConfig,
  hull_config: HullConfig | None = None,
  seed: int = 0,
  carve: Callable[[Scene, HullConfig], Hull] = carve_hull,
) -> tuple[Scene, Gaussians]:
  """Carves the hull of one canonical scene and places Gaussians on it.

  Args:
    scene: V views, not cropped; crops are fine as long as `frames` says what was seen.
    config: the recipe: model, number of Gaussians, degree of the harmonics.
    hull_config: how to carve; by default with as many points as Gaussians.
    seed: of the random numbers, 32 bits.
    carve: `carve_hull`, or the same compiled already.

  Returns:
    the scene with the pixels that other views contradict (`Scene.doubted`) and, if the recipe asks
    for it, wider `frames`; and Gaussians (N,). Both as NumPy.

  Raises:
    ValueError: the cameras see no common volume, or the silhouettes admit no common solid.
  """
  if config.whole_silhouettes:
    scene = widen_frames(scene)
  hull = build_hull(scene, hull_config or HullConfig(num_points=config.num_gaussians), carve)
  gaussians = gaussians_on_hull(hull, config, jax.random.key(np.uint32(seed)))
  doubted = np.asarray(hull.doubted)
  scene = jax.tree.map(np.asarray, scene)
  return dataclasses.replace(scene, doubted=doubted), jax.tree.map(np.asarray, gaussians)


@functools.partial(jax.jit, static_argnames="config")
def gaussians_on_hull(hull: Hull, config: FitConfig, key: jax.Array) -> Gaussians:
  """Returns Gaussians (N,) on a hull as a fit starts from them; their means are NaN if it is empty.

  Args:
    hull: as `carve_hull` gives it.
    config: model, number of Gaussians, degree of the harmonics.
    key: PRNG key.
  """
  return initial_gaussians(
    hull, key, config.num_gaussians, model=config.model, sh_degree=config.sh_degree
  )
