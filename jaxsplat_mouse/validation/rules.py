"""The rules that a valid FaceLift scene keeps. Loads no NumPy: `--help` shows the defaults."""

from __future__ import annotations

import dataclasses


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rules:
  """What a scene must be.

  Attributes:
    views: frames in a scene.
    size: side of the square images in pixels.
    fov: field of view in degrees.
    elevation: of the cameras above the XY plane, degrees.
    distance: of the cameras from the origin, world units.
    orbit: cameras must stand on the exact orbit with the exact intrinsics; without it any rigid
      camera and any image size will do.
    hull_iou: share of each silhouette that the common visual hull must explain.
    hull_resolution: voxels along each side of the hull's cube, where a first look is enough.
    may_touch_edge: silhouettes may reach the image edge.
    any_hidden_colour: pixels of alpha 0 may keep a colour.
  """

  views: int = 32
  size: int = 512
  fov: float = 50.0
  elevation: float = 20.0
  distance: float = 2.7
  orbit: bool = True
  hull_iou: float = 0.9
  hull_resolution: int = 128
  may_touch_edge: bool = False
  any_hidden_colour: bool = False
