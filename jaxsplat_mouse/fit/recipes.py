"""Recipes: the settings that `configs/` and the Python API start from.

`FitConfig.for_model("3dgs")` and `configs/3dgs.py` are the same recipe.
"""

from __future__ import annotations

import dataclasses

from jaxsplat_mouse.fit.config import FitConfig
from jaxsplat_mouse.fit.inexact_fits import OPACITY_DECAY, OPACITY_WEIGHT, POSE_RATE

VARIANTS = ("preview", "photographs")
PREVIEW_IMAGE_SIZE = 256  # pixels, of the built-in mouse and of the renders
PREVIEW_HULL_RESOLUTION = 128


def fit_recipe(model: str, variant: str = "") -> FitConfig:
  """Returns the recipe of a model, or a variant of it.

  Args:
    model: `2dgs` or `3dgs`.
    variant: empty, `preview` for a quick look, or `photographs` for cameras and masks that are not
      exact.

  Raises:
    ValueError: no such model or variant.
  """
  config = FitConfig.for_model(model)
  if not variant:
    return config
  if variant not in VARIANTS:
    raise ValueError(f"variant {variant!r}: expected {' or '.join(VARIANTS)}")
  return preview(config) if variant == "preview" else photographs(config)


def photographs(config: FitConfig) -> FitConfig:
  """Returns a recipe for photographs whose cameras are a fraction of a degree off, masks a pixel.

  Where six views contradict each other a little, splats beside the animal explain what its surface
  cannot. So the cameras move, splats that no photograph needs vanish sooner, and none fill what a
  tight crop leaves out. Exact scenes lose some tenths of a decibel.
  """
  return dataclasses.replace(
    config,
    opacity_weight=OPACITY_WEIGHT,
    opacity_decay=OPACITY_DECAY,
    whole_silhouettes=True,
    pose_rate=POSE_RATE,
  )


def preview(config: FitConfig) -> FitConfig:
  """Returns a recipe for a quick look: few Gaussians, few iterations, one stage.

  At this size compiling a second stage takes longer than its smaller images save. Geometry then
  counts from the first step on, so the views that no camera took are left out.
  """
  return dataclasses.replace(
    config,
    num_gaussians=4000,
    iterations=200,
    resolutions=(1,),
    stages=(),
    geometry_from=0.0,
    novel_weight=0.0,
  )
