"""Frames of one recording: a fit starts from that of the frame before, and takes a third as long.

In the canonical frame an animal stays where it is from frame to frame, so the splats of the frame
before need no more than the change of scale. A share of the splats is taken from the new frame's
hull all the same: what appears, and what moved far, has something to grow from.
"""

from __future__ import annotations

import dataclasses
import math

import jax
import numpy as np

from jaxsplat_mouse.fit.config import FitConfig
from jaxsplat_mouse.gaussians import Gaussians, opacities

_SHARE = 1.0 / 3.0  # of the iterations of a fit from its hull
_FRESH = 0.2  # least share of the splats that start on the new hull


def continuation_config(config: FitConfig) -> FitConfig:
  """How a frame is fitted that starts from the one before: shorter, fine from the first step."""
  period = max(config.relocate_every, 1)
  steps = math.ceil(config.iterations * _SHARE / period) * period
  return dataclasses.replace(
    config,
    iterations=min(steps, config.iterations),
    resolutions=config.resolutions[-1:],
    stages=(),
    geometry_from=0.0,
  )


def carry_over(
  previous: Gaussians, fresh: Gaussians, ratio: float = 1.0, shift: np.ndarray | None = None
) -> Gaussians:
  """Gaussians (N,) to start from, as NumPy: those of the frame before, and some of the new hull's.

  Args:
    previous: (M,) visible splats of the frame before, in its canonical frame.
    fresh: (N,) on the new frame's hull; how many there are is how many come out.
    ratio: canonical units per world unit of the new frame over that of the frame before.
    shift: (3,) canonical units, of the animal between the frames.
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
