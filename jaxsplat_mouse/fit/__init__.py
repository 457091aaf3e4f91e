"""Fitting Gaussians to the views of a scene.

Everything is a pure function of arrays. One scene is a `FitState` and a `Scene`; a batch is the
same pytrees with a leading axis, and `run_chunk` is the vmap of a scan of `step` over it. A fit
is a list of `Stage`s, coarse to fine; within a stage shapes never change.
"""

from jaxsplat_mouse.fit.config import Config, Stage, chunks, stages
from jaxsplat_mouse.fit.loop import (
  Fit,
  FitState,
  fit_scene,
  fit_scenes,
  init,
  run_chunk,
  unstack,
)
from jaxsplat_mouse.fit.objective import filter_width
from jaxsplat_mouse.fit.start import (
  from_hull,
  initialize,
  initialize_batch,
  know_hull,
  random_gaussians,
  start,
  start_batch,
)
from jaxsplat_mouse.fit.warm import start_warm, warm_config

__all__ = [
  "Config",
  "Fit",
  "FitState",
  "Stage",
  "chunks",
  "filter_width",
  "fit_scene",
  "fit_scenes",
  "from_hull",
  "init",
  "initialize",
  "initialize_batch",
  "know_hull",
  "random_gaussians",
  "run_chunk",
  "stages",
  "start",
  "start_batch",
  "start_warm",
  "unstack",
  "warm_config",
]
