"""From a few calibrated photographs of an animal to a dataset for feed-forward 3D models.

The names below are the public API; each is imported when it is first used, so that
`import jaxsplat_mouse` loads no JAX and starts no device.

A scene folder is read, fitted, and rendered where no camera stood. Few splats and steps are enough
to see it work; leave `FitConfig` as it is for a good fit.

>>> import jaxsplat_mouse as jm
>>> scene = jm.load_scene("scene")
>>> config = jm.FitConfig(
...   num_gaussians=128, iterations=20, relocate_every=5, resolutions=(1,), stages=()
... )
>>> fit = jm.fit_scene(scene, config)
>>> orbit = jm.generate_camera_poses(num_views=3, elevation=20, distance=2.7, image_size=32)
>>> views = jm.render_views(fit.gaussians, orbit, filter_width=fit.filter_width)
>>> views.rgb.shape, views.alpha.shape, views.depth.shape, views.normal.shape
((3, 32, 32, 3), (3, 32, 32), (3, 32, 32), (3, 32, 32, 3))

What cannot be read raises `InputError`, which names the file, the field and what was expected.

>>> jm.load_scene("nowhere")  # doctest: +ELLIPSIS
Traceback (most recent call last):
  ...
jaxsplat_mouse.errors.InputError: nowhere: no such folder; expected a scene folder with ...
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from jaxsplat_mouse.version import __version__

if TYPE_CHECKING:  # For type checkers and editors; _EXPORTS below is what runs.
  from jaxsplat_mouse.cameras import Cameras, generate_camera_poses
  from jaxsplat_mouse.dataset.sources import load_scene
  from jaxsplat_mouse.errors import InputError
  from jaxsplat_mouse.fit.config import FitConfig
  from jaxsplat_mouse.fit.driver import fit_scene, fit_scenes
  from jaxsplat_mouse.gaussians import Gaussians2D, Gaussians3D
  from jaxsplat_mouse.rendering import render_views
  from jaxsplat_mouse.scene import Scene

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
  "fit_scene": ("fit.driver", "fit_scene"),
  "fit_scenes": ("fit.driver", "fit_scenes"),
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
  """Lists the loaded names and the public ones, for completion."""
  return sorted({*globals(), *_EXPORTS})
