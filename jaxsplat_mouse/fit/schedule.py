"""The stages of a fit, coarse to fine, and the chunks of steps that run as one program."""

from __future__ import annotations

import dataclasses

from jaxsplat_mouse.fit.config import FitConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stage:
  """A stretch of steps with one set of array shapes.

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
    """The static arguments that `loop.run_chunk` takes: resolution, number of steps, geometry."""
    return (self.resolution, self.last - self.first, self.geometry)


def stages(config: FitConfig) -> list[Stage]:
  """Returns the stages of a fit, cut at whole relocation periods, without empty ones."""
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
  """Cuts a fit into pieces of at most `longest` steps, whole relocation periods each.

  A fit that stops after any of them and goes on later computes the same bits.
  """
  period = max(config.relocate_every, 1)
  size = max(longest // period, 1) * period
  return [
    dataclasses.replace(stage, first=a, last=min(a + size, stage.last))
    for stage in stages(config)
    for a in range(stage.first, stage.last, size)
  ]
