"""The settings of a fit."""

from __future__ import annotations

import dataclasses
import math

from jaxsplat_mouse import optimizer
from jaxsplat_mouse.gaussians import MODELS

# What the two models differ in, measured by `benchmarks.ablation` and `benchmarks.quality`.
MODEL_SETTINGS: dict[str, dict[str, float]] = {
  "2dgs": {
    "opacity_weight": 0.12,
    "lr_scaling": 0.01,
    "depth_weight": 0.1,
    "normal_weight": 0.05,
    "novel_weight": 0.0,
  },
  "3dgs": {
    "opacity_weight": 0.15,
    "lr_scaling": 0.0075,
    "depth_weight": 0.0,
    "normal_weight": 0.1,
    "novel_weight": 0.02,
  },
}
OF_MODEL = math.nan  # default of the settings above: the model's own value


@dataclasses.dataclass(frozen=True, kw_only=True)
class FitConfig:
  """How a scene is fitted. Lengths are in canonical units: the animal's radius is just below 1.

  `FitConfig()` is the recipe of discs, `FitConfig(model="3dgs")` that of ellipsoids: the settings
  whose default is `OF_MODEL` take the value that `MODEL_SETTINGS` holds for the model.

  Losses are means over the silhouette's area, so that weights do not depend on how much of a frame
  the animal fills, on crops or on resolution.

  Attributes:
    model: `2dgs` (discs) or `3dgs` (ellipsoids).
    num_gaussians: number of Gaussians; it never changes.
    iterations: optimisation steps.
    sh_degree: degree of the spherical harmonics, 0 to 3.
    lr_position: learning rate of the means, see `optimizer.Rates`.
    lr_position_final: likewise.
    lr_feature: likewise.
    lr_bands: likewise.
    lr_opacity: likewise.
    lr_scaling: likewise.
    lr_rotation: likewise.
    ssim_weight: share of 1 - SSIM in the photometric loss; L1 has the rest.
    mask_weight: weight of the L1 distance between alpha and silhouette.
    depth_weight: weight of the depth distortion.
    normal_weight: weight of the disagreement between the normals of the splats (of ellipsoids:
      their shortest axes) and those of the rendered depth.
    novel_weight: weight of the same disagreement in a view of FaceLift's orbit that no camera took.
    geometry_from: fraction of the iterations after which these three losses act; before it no
      geometry is rendered.
    opacity_weight: weight of the mean opacity; it makes faint splats vanish.
    scale_weight: weight of the mean standard deviation.
    opacity_decay: factor on every opacity, per step. On photographs whose cameras and masks are not
      exact, .999 removes haze; on exact ones 1, which changes nothing, is better.
    dropout: probability that a step leaves a splat out, so that no splat relies on another.
    noise: strength of the exploration noise, times the current position rate.
    relocate_every: steps between relocations of dead Gaussians; 0 never relocates.
    average_from: fraction of the iterations after which the splats are averaged over the steps; the
      mean is the result. 1 returns the last step's splats.
    low_pass: variance of the screen-space filter, in squared pixels of the photographs at the
      scene's origin: pixels of the stage during a fit, full-resolution ones for everything that is
      rendered of it (`objective.filter_width`). A wider filter shows splats edge-on that the
      views never saw so.
    max_scale: largest standard deviation.
    random_background: draw a background colour per view and step; white otherwise.
    resolutions: downsampling of the views, one stage each, coarse to fine.
    stages: fractions of the iterations at which the second and later stages begin.
    whole_silhouettes: take what lies beyond the frame of a silhouette that touches none of its
      borders for background (`scene.widen_frames`), and not for unknown.
    pose_rate: learning rate of every camera's rotation (radians) and position; 0 trusts them.
    inexact_from: share of the outlines' rays that other views refuse from which a run takes a scene
      for inexact: refines its poses, and fits it as `inexact_fits` says; 1 measures nothing. Exact
      scenes have hardly any, however they are rendered.
    views_per_step: views drawn at random for each step; 0 takes all.
    warm_start: `auto`: in a run, moments of a recording that are near one another start from each
      other's fits, with fewer steps; `off`: every scene starts from its hull.
    tile_entries: splat-tile intersections per Gaussian and view that a step has room for.
  """

  model: str = "2dgs"
  num_gaussians: int = 20_000
  iterations: int = 1500
  sh_degree: int = 1
  lr_position: float = 0.002
  lr_position_final: float = 0.03
  lr_feature: float = 0.005
  lr_bands: float = 0.2
  lr_opacity: float = 0.05
  lr_scaling: float = OF_MODEL
  lr_rotation: float = 0.001
  ssim_weight: float = 0.4
  mask_weight: float = 0.5
  depth_weight: float = OF_MODEL
  normal_weight: float = OF_MODEL
  novel_weight: float = OF_MODEL
  geometry_from: float = 0.5
  opacity_weight: float = OF_MODEL
  scale_weight: float = 0.5
  opacity_decay: float = 1.0
  dropout: float = 0.05
  noise: float = 2.5e5
  relocate_every: int = 50
  average_from: float = 0.85
  low_pass: float = 0.2
  max_scale: float = 0.3
  random_background: bool = True
  resolutions: tuple[int, ...] = (2, 1)
  stages: tuple[float, ...] = (0.5,)
  whole_silhouettes: bool = False
  pose_rate: float = 0.0
  inexact_from: float = 0.02
  views_per_step: int = 2
  warm_start: str = "off"
  tile_entries: float = 8.0

  def __post_init__(self) -> None:
    """Fills in the model's settings and refuses values that could only fail later."""
    if self.model not in MODELS:
      raise ValueError(f"fit.model: {self.model!r}, expected one of {sorted(MODELS)}")
    for name, value in MODEL_SETTINGS[self.model].items():
      if math.isnan(getattr(self, name)):
        object.__setattr__(self, name, value)
    self._check_model_settings()
    if len(self.stages) != len(self.resolutions) - 1:
      raise ValueError(
        f"fit.stages: {self.stages}, expected one fraction fewer than fit.resolutions "
        f"{self.resolutions}"
      )
    for name in ("num_gaussians", "iterations"):
      if getattr(self, name) < 1:
        raise ValueError(f"fit.{name}: {getattr(self, name)}, expected at least 1")
    if self.warm_start not in ("auto", "off"):
      raise ValueError(f"fit.warm_start: {self.warm_start!r}, expected 'auto' or 'off'")
    if not 0 <= self.inexact_from <= 1:
      raise ValueError(f"fit.inexact_from: {self.inexact_from}, expected 0 to 1")
    if self.low_pass <= 0:
      raise ValueError(f"fit.low_pass: {self.low_pass}, expected above 0")
    if self.sh_degree not in range(4):
      raise ValueError(f"fit.sh_degree: {self.sh_degree}, expected 0 to 3")

  def _check_model_settings(self) -> None:
    """Refuses a model with the settings of another: `replace(FitConfig(), model="3dgs")`."""
    for other, settings in MODEL_SETTINGS.items():
      compared = settings.keys() - {"novel_weight"}  # previews of both models have none
      if other != self.model and all(getattr(self, k) == settings[k] for k in compared):
        raise ValueError(
          f"fit.model: {self.model!r} with the weights and rates of {other!r}; expected "
          f"--config={self.model}, or FitConfig(model={self.model!r})"
        )

  @classmethod
  def for_model(cls, model: str) -> FitConfig:
    """Returns the recipe of a model, `2dgs` or `3dgs`.

    Raises:
      ValueError: no such model.
    """
    return cls(model=model)

  @property
  def adjusts_poses(self) -> bool:
    """Whether the cameras' poses are fitted beside the Gaussians."""
    return self.pose_rate > 0

  @property
  def shapes_surface(self) -> bool:
    """Whether depth or normals have losses."""
    return self.depth_weight > 0 or self.normal_weight > 0 or self.novel_weight > 0

  @property
  def capacity(self) -> int:
    """Splat-tile intersections that a view has room for."""
    return max(int(self.tile_entries * self.num_gaussians), 64)

  @property
  def rates(self) -> optimizer.Rates:
    """The learning rates."""
    return optimizer.Rates(
      position=self.lr_position,
      position_final=self.lr_position_final,
      feature=self.lr_feature,
      bands=self.lr_bands,
      opacity=self.lr_opacity,
      scaling=self.lr_scaling,
      rotation=self.lr_rotation,
    )
