"""The built-in scene: a procedural mouse with exact truth for any camera, drawn from a seed.

`make_mouse` draws an animal, `render_truth` sees it from any cameras, `walking` moves it
through its stride, and `make_scene` gives the six views that a fit starts from:

  mouse = make_mouse(seed=0, pose="walk", coat="agouti")
  views = render_truth(mouse, cameras)  # .rgba .depth .normal
  scene = make_scene(seed=0, pose="walk", coat="agouti")
"""

from __future__ import annotations

from jaxsplat_mouse.procedural_mouse.disturb import (
  apply_exposure,
  exposure_gains,
  grow_masks,
  punch_holes,
  shake_cameras,
)
from jaxsplat_mouse.procedural_mouse.mouse import (
  RADIUS,
  Mouse,
  make_mouse,
  render_truth,
  signed_distance,
  truth_surface_points,
  walking,
)
from jaxsplat_mouse.procedural_mouse.parameters import COATS, POSES, Coat, Pose, Shape
from jaxsplat_mouse.procedural_mouse.real_rig import dannce_cameras
from jaxsplat_mouse.procedural_mouse.scenes import (
  input_cameras,
  make_scene,
  rig_cameras,
  scene_of,
)
from jaxsplat_mouse.procedural_mouse.shading import Lighting
from jaxsplat_mouse.procedural_mouse.tracer import Views

__all__ = [
  "COATS",
  "POSES",
  "RADIUS",
  "Coat",
  "Lighting",
  "Mouse",
  "Pose",
  "Shape",
  "Views",
  "apply_exposure",
  "dannce_cameras",
  "exposure_gains",
  "grow_masks",
  "input_cameras",
  "make_mouse",
  "make_scene",
  "punch_holes",
  "render_truth",
  "rig_cameras",
  "scene_of",
  "shake_cameras",
  "signed_distance",
  "truth_surface_points",
  "walking",
]
