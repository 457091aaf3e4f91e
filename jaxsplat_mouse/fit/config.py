"""What a fit is: its settings, and the stretches of steps that follow from them."""

from __future__ import annotations

import dataclasses

from jaxsplat_mouse import gaussians as gs
from jaxsplat_mouse import optimizer


@dataclasses.dataclass(frozen=True, kw_only=True)
class FitConfig:
  """How a scene is fitted. Lengths are in canonical units: the animal's radius is just below 1.

  Losses are means over the silhouette's area, so that weights do not depend on how much of a frame
  the animal fills, on crops or on resolution.

  Attributes:
    model: `2dgs` (discs) or `3dgs` (ellipsoids).
    num_gaussians: fixed count.
    iterations: optimisation steps.
    initialization: `hull` (on the visual hull's surface) or `random` (in the unit ball).
    sh_degree: 0 to 3.
    lr_position: learning rates, see `optimizer.Rates`.
    lr_position_final: likewise.
    lr_feature: likewise.
    lr_bands: likewise.
    lr_opacity: likewise.
    lr_scaling: likewise.
    lr_rotation: likewise.
    ssim_weight: share of 1 - SSIM in the photometric loss, the rest is L1.
    mask_weight: of the L1 distance between alpha and silhouette.
    hull_outside: of coverage outside the hull's silhouettes in views of the output's orbit.
    hull_inside: of gaps inside them.
    hull_views: how many views of the orbit that takes; each step draws one.
    hull_size: their side in pixels.
    depth_weight: of the depth distortion.
    normal_weight: of the disagreement of normals (of ellipsoids: their shortest axes) with the
      depth's own.
    novel_weight: of the same disagreement in a view of FaceLift's orbit, which nobody took.
    novel_size: its side in pixels; each step draws one.
    geometry_from: fraction of the iterations after which these three act; before it no geometry is
      rendered.
    opacity_weight: of the mean opacity: faint splats vanish.
    scale_weight: of the mean standard deviation.
    spare: splats whose opacity matters less than this to the views of a step (its gradient) feel
      neither of these two in it: what no photograph shows does not fade. 0 spares none.
    opacity_decay: factor on every opacity, per step.
    dropout: chance of every splat to be left out of a step, so that none learns to rely on another.
    noise: strength of the exploration noise, times the current position rate.
    relocate_every: steps between relocations of dead Gaussians; 0 never.
    relocate_until: fraction of the iterations after which nothing is relocated.
    average_from: fraction of the iterations after which the splats are averaged over the steps;
      that mean is the result. 1 takes the last step's.
    min_opacity: a Gaussian at or below it is dead.
    min_scale: smallest standard deviation of a disc along its axes, and of an ellipsoid along its
      two larger ones, in pixels at the scene's origin. The screen's low-pass shows a splat however
      small it is, so nothing else keeps splats from shrinking to dots that cover nothing between
      the views.
    low_pass: variance of the screen-space filter, in squared pixels of the photographs at the
      scene's origin: those of the stage during a fit, full-resolution ones for all that is rendered
      of it (`filter_width`). A wider one shows splats edge-on that the views never saw so.
    max_scale: largest standard deviation.
    max_anisotropy: largest ratio of the two largest axes.
    random_background: draw a background colour per view and step; white otherwise.
    resolutions: downsampling of the views, one stage each, coarse to fine.
    stages: fractions of the iterations at which the second and later stages begin.
    exposure: fit an affine colour per view: cameras differ in gain, white balance and offset.
    exposure_rate: learning rate of it.
    exposure_weight: pull of it toward the identity.
    pose_rate: learning rate of every camera's rotation (radians) and position; 0 trusts them.
    focal_rate: likewise of the logarithm of its focal length.
    mask_tolerance: half the width, in full-resolution pixels, of a band along the outline of every
      silhouette in which views are not fitted to: masks that are that much too wide or too narrow.
    views_per_step: views drawn at random for each step; 0 takes all.
    warm_start: frames of a recording start from the fit of the frame before.
    warm_share: of the iterations that such a fit takes.
    cull: leave out of the result what stands apart or what the silhouettes refuse.
    tile_entries: splat-tile intersections per Gaussian and view that a step has room for.
    alpha_max: ceiling of one splat's alpha.
  """

  model: str = "2dgs"
  num_gaussians: int = 20_000
  iterations: int = 1500
  initialization: str = "hull"
  sh_degree: int = 1
  lr_position: float = 0.002
  lr_position_final: float = 0.03
  lr_feature: float = 0.005
  lr_bands: float = 0.2
  lr_opacity: float = 0.05
  lr_scaling: float = 0.01
  lr_rotation: float = 0.001
  ssim_weight: float = 0.4
  mask_weight: float = 0.5
  hull_outside: float = 0.0
  hull_inside: float = 0.0
  hull_views: int = 16
  hull_size: int = 128
  depth_weight: float = 0.1
  normal_weight: float = 0.05
  novel_weight: float = 0.0
  novel_size: int = 256
  geometry_from: float = 0.5
  opacity_weight: float = 0.12
  scale_weight: float = 0.5
  spare: float = 0.0
  opacity_decay: float = 1.0
  dropout: float = 0.05
  noise: float = 2.5e5
  relocate_every: int = 50
  relocate_until: float = 0.85
  average_from: float = 0.85
  min_opacity: float = 0.005
  min_scale: float = 0.7
  low_pass: float = 0.2
  max_scale: float = 0.3
  max_anisotropy: float = 10.0
  random_background: bool = True
  resolutions: tuple[int, ...] = (2, 1)
  stages: tuple[float, ...] = (0.5,)
  exposure: bool = False
  exposure_rate: float = 0.002
  exposure_weight: float = 0.5
  pose_rate: float = 0.0
  focal_rate: float = 0.0
  mask_tolerance: int = 0
  views_per_step: int = 2
  warm_start: bool = False
  warm_share: float = 1.0 / 3.0
  cull: bool = False
  tile_entries: float = 8.0
  alpha_max: float = 0.99

  def __post_init__(self) -> None:
    """Refuses what could only fail later, naming the key."""
    if self.model not in gs.MODELS:
      raise ValueError(f"fit.model: {self.model!r}, expected one of {sorted(gs.MODELS)}")
    if self.initialization not in ("hull", "random"):
      raise ValueError(f"fit.initialization: {self.initialization!r}, expected 'hull' or 'random'")
    if len(self.stages) != len(self.resolutions) - 1:
      raise ValueError(
        f"fit.stages: {self.stages}, expected one fraction fewer than fit.resolutions "
        f"{self.resolutions}"
      )
    for name in ("num_gaussians", "iterations", "novel_size"):
      if getattr(self, name) < 1:
        raise ValueError(f"fit.{name}: {getattr(self, name)}, expected at least 1")
    if self.low_pass <= 0:
      raise ValueError(f"fit.low_pass: {self.low_pass}, expected above 0")
    if self.sh_degree not in range(4):
      raise ValueError(f"fit.sh_degree: {self.sh_degree}, expected 0 to 3")

  @property
  def adjusts_views(self) -> bool:
    """Whether anything of the views is fitted beside the Gaussians."""
    return self.exposure or self.pose_rate > 0 or self.focal_rate > 0

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


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stage:
  """A stretch of steps with one set of shapes.

  Attributes:
    first: its first step.
    last: one past its last step.
    resolution: downsampling of the views.
    geometry: whether depth and normals are rendered and have losses.
  """

  first: int
  last: int
  resolution: int
  geometry: bool

  @property
  def program(self) -> tuple[int, int, bool]:
    """What `run_chunk` has to know of it: resolution, number of steps, geometry."""
    return (self.resolution, self.last - self.first, self.geometry)


def stages(config: FitConfig) -> list[Stage]:
  """The stages of a fit, cut at whole relocation periods, without empty ones."""
  period = max(config.relocate_every, 1)
  cut = lambda fraction: round(fraction * config.iterations / period) * period
  edges = [0, *map(cut, config.stages), config.iterations]
  spans = zip(edges[:-1], edges[1:], config.resolutions, strict=True)
  geometry_from = cut(config.geometry_from) if config.shapes_surface else config.iterations
  return [
    Stage(first=a, last=b, resolution=resolution, geometry=geometry)
    for first, last, resolution in spans
    for a, b, geometry in (
      (first, min(last, geometry_from), False),
      (max(first, geometry_from), last, True),
    )
    if b > a
  ]


def chunks(config: FitConfig, longest: int) -> list[Stage]:
  """The fit cut into pieces of at most `longest` steps, whole relocation periods each."""
  period = max(config.relocate_every, 1)
  size = max(longest // period, 1) * period
  return [
    dataclasses.replace(stage, first=a, last=min(a + size, stage.last))
    for stage in stages(config)
    for a in range(stage.first, stage.last, size)
  ]
