"""Warm start: a fit starts from that of the previous frame, and takes a third of the steps.

In the canonical frame an animal stays in place from frame to frame, so the splats of the previous
frame need no more than the change of scale. Some splats come from the new frame's hull all the
same: they cover parts that appear or have moved far.
"""

from __future__ import annotations

import dataclasses
import math

import jax
import numpy as np

from jaxsplat_mouse.fit.config import FitConfig
from jaxsplat_mouse.gaussians import Gaussians, opacities

_SHARE = 1.0 / 3.0  # of the iterations that a fit from the hull takes
_FRESH = 0.2  # least share of the splats that start on the new hull


def continuation_config(config: FitConfig) -> FitConfig:
  """Returns the recipe of a warm start: fewer steps, full resolution from the first step."""
  period = max(config.relocate_every, 1)
  steps = math.ceil(config.iterations * _SHARE / period) * period
  return dataclasses.replace(
    config,
    iterations=min(steps, config.iterations),
    resolutions=config.resolutions[-1:],
    stages=(),
    geometry_from=0.0,
    warm_start="off",  # has no effect on a fit, but on the name of its programs
  )


def carry_over(
  previous: Gaussians, fresh: Gaussians, ratio: float = 1.0, shift: np.ndarray | None = None
) -> Gaussians:
  """Joins the strongest Gaussians of the previous frame and some on the new frame's hull.

  Args:
    previous: (M,) visible splats of the previous frame, in its canonical frame.
    fresh: (N,) splats on the new frame's hull.
    ratio: canonical units per world unit of the new frame over that of the previous frame.
    shift: (3,) motion of the animal between the frames, canonical units; none by default.

  Returns:
    Gaussians (N,) to start from, as NumPy.
  """
  count = len(fresh.means)
  kept = min(len(previous.means), count - math.ceil(_FRESH * count))
  strongest = np.argsort(-np.asarray(opacities(previous)), kind="stable")[:kept]
  picked = np.linspace(0, count - 1, count - kept).round().astype(int)
  moved = jax.tree.map(lambda leaf: np.asarray(leaf)[np.sort(strongest)], previous)
  moved = dataclasses.replace(
    moved,
    means=(moved.means * ratio + (0.0 if shift is None else shift)).astype(np.float32),
    log_scales=(moved.log_scales + math.log(ratio)).astype(np.float32),
  )
  join = lambda a, b: np.concatenate([a, np.asarray(b)[picked]])
  return jax.tree.map(join, moved, fresh)
