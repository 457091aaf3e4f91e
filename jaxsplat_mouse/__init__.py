"""From a few calibrated photographs of an animal to a dataset for feed-forward 3D models.

The names below are the public API; each is imported when it is first used, so that
`import jaxsplat_mouse` loads no JAX and starts no device:

    import jaxsplat_mouse as jm
    scene = jm.load_scene("path/to/scene")
    fit = jm.fit_scene(scene, jm.FitConfig(model="2dgs"))
    orbit = jm.generate_camera_poses(num_views=32)
    views = jm.render_views(fit.gaussians, orbit, filter_width=fit.filter_width)
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:  # For type checkers and editors; _EXPORTS below is what runs.
  from jaxsplat_mouse.cameras import Cameras, generate_camera_poses
  from jaxsplat_mouse.dataset.sources import load_scene
  from jaxsplat_mouse.errors import InputError
  from jaxsplat_mouse.fit.config import FitConfig
  from jaxsplat_mouse.fit.loop import fit_scene, fit_scenes
  from jaxsplat_mouse.gaussians import Gaussians2D, Gaussians3D
  from jaxsplat_mouse.rendering import render_views
  from jaxsplat_mouse.scene import Scene

__version__ = "0.1.0"

__all__ = [
  "Cameras",
  "FitConfig",
  "Gaussians2D",
  "Gaussians3D",
  "InputError",
  "Scene",
  "__version__",
  "fit_scene",
  "fit_scenes",
  "generate_camera_poses",
  "load_scene",
  "render_views",
]

# Public name -> (module of this package, name there).
_EXPORTS = {
  "Cameras": ("cameras", "Cameras"),
  "FitConfig": ("fit.config", "FitConfig"),
  "Gaussians2D": ("gaussians", "Gaussians2D"),
  "Gaussians3D": ("gaussians", "Gaussians3D"),
  "InputError": ("errors", "InputError"),
  "Scene": ("scene", "Scene"),
  "fit_scene": ("fit.loop", "fit_scene"),
  "fit_scenes": ("fit.loop", "fit_scenes"),
  "generate_camera_poses": ("cameras", "generate_camera_poses"),
  "load_scene": ("dataset.sources", "load_scene"),
  "render_views": ("rendering", "render_views"),
}


def __getattr__(name: str) -> Any:
  """Imports a public name on first use (PEP 562) and keeps it."""
  if name not in _EXPORTS:
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
  module, attribute = _EXPORTS[name]
  value = getattr(importlib.import_module(f"{__name__}.{module}"), attribute)
  globals()[name] = value
  return value


def __dir__() -> list[str]:
  """Lists what is loaded and what can be, for completion."""
  return sorted({*globals(), *_EXPORTS})
