"""The canonical frame: up is +Z, the animal stands at the origin, one scale for everything.

The frame is one similarity transform of the world per scene. Images and intrinsics stay the same:
scaling the world by s scales every camera-space length by s and moves no pixel.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from jaxsplat_mouse.cameras import Cameras
from jaxsplat_mouse.scene import Scene, Similarity, transform_scene, without_padding
from jaxsplat_mouse.visual_hull.build import hull_extent
from jaxsplat_mouse.visual_hull.hull import HullConfig

DEFAULT_RADIUS = 0.85
_EXTENT_CONFIG = HullConfig(resolution=128)


def canonicalize(
  scene: Scene,
  *,
  normalize: str = "scene",
  radius: float = DEFAULT_RADIUS,
  up: str | Sequence[float] | np.ndarray = "+z",
  scale: float | None = None,
  config: HullConfig = _EXTENT_CONFIG,
) -> tuple[Scene, Similarity]:
  """Moves a scene into the canonical frame.

  Args:
    scene: the views, in any world units.
    normalize: `scene` scales the animal to `radius`; `recording` takes `scale`, so that sizes stay
      comparable between the scenes of a recording; `none` keeps the input frame.
    radius: largest distance of the visual hull (tail included) from its centroid, canonical units.
    up: the input world's up axis: a signed axis name such as `+z`, a vector (3,), or `cameras` for
      the axis on which level cameras agree.
    scale: canonical units per input unit; overrides `radius`.
    config: how to carve the hull, from which centroid and radius are measured.

  Returns:
    The scene in the canonical frame, and the transform from the input frame to it.

  Raises:
    ValueError: an argument is not one of the above, or the scene has no visual hull.

  >>> from jaxsplat_mouse.procedural_mouse.mouse_scenes import input_cameras, make_scene
  >>> scene = make_scene(0, input_cameras(image_size=64))
  >>> moved, similarity = canonicalize(scene, radius=0.5)
  >>> moved.images is scene.images, 0.4 < similarity.scale < 0.7
  (True, True)
  """
  if normalize not in ("scene", "recording", "none"):
    raise ValueError(f"normalize: expected scene, recording or none, got {normalize!r}")
  if normalize == "none":
    return scene, Similarity()
  if normalize == "recording" and scale is None:
    raise ValueError("normalize: recording takes the recording's scale; see `recording_scale`")
  if scale is not None and not (np.isfinite(scale) and scale > 0):
    raise ValueError(f"scale: expected a number > 0, got {scale}")
  if not radius > 0:
    raise ValueError(f"radius: expected a number > 0, got {radius}")
  rotation = rotation_to_z(up_axis(without_padding(scene).cameras, up))
  centroid, reach = hull_extent(scene, config)
  factor = radius / reach if scale is None else float(scale)
  similarity = Similarity(
    scale=factor, rotation=rotation, translation=-factor * (rotation @ centroid)
  )
  return transform_scene(scene, similarity), similarity


def recording_scale(radii: Sequence[float], radius: float = DEFAULT_RADIUS) -> float:
  """Returns one scale for the scenes of a recording, which takes the largest radius to `radius`.

  Args:
    radii: of the scenes' hulls, input units.
    radius: of the largest one, canonical units.

  Raises:
    ValueError: no radii, or one that is not a number > 0.
  """
  values = np.asarray(radii, np.float64)
  if values.size == 0 or not np.all(np.isfinite(values) & (values > 0)):
    raise ValueError(f"radii: expected numbers > 0, got {radii}")
  return float(radius / values.max())


def up_axis(cameras: Cameras, up: str | Sequence[float] | np.ndarray) -> np.ndarray:
  """Returns the unit up axis (3,) of the input world.

  Args:
    cameras: (V,) those of the photographs, no padding.
    up: as for `canonicalize`.

  Raises:
    ValueError: `up` is not an axis, or the cameras agree on none.
  """
  if isinstance(up, str):
    if up == "cameras":
      return _cameras_up(np.asarray(cameras.world_to_camera, np.float64))
    name = up.lower().removeprefix("+")
    sign, letter = (-1.0, name[1:]) if name.startswith("-") else (1.0, name)
    if letter not in ("x", "y", "z"):
      raise ValueError(f"up: expected cameras, a vector or one of +-x +-y +-z, got {up!r}")
    return sign * np.eye(3)["xyz".index(letter)]
  vector = np.asarray(up, np.float64)
  if vector.shape != (3,) or not np.all(np.isfinite(vector)) or np.linalg.norm(vector) < 1e-12:
    raise ValueError(f"up: expected three numbers that are not all zero, got {up}")
  return vector / np.linalg.norm(vector)


def _cameras_up(world_to_camera: np.ndarray) -> np.ndarray:
  """Returns the axis on which level cameras (V, 4, 4) agree.

  A level camera's right axis is horizontal whatever its elevation, so up is the direction to which
  all right axes are closest to perpendicular. The mean of the cameras' own up axes gives the sign,
  and also the axis where the right axes are parallel and do not determine it.
  """
  right, own_up = world_to_camera[:, 0, :3], -world_to_camera[:, 1, :3].mean(0)
  values, vectors = np.linalg.eigh(right.T @ right)
  axis = vectors[:, 0] if values[1] > 0.05 * values[2] else own_up
  if np.linalg.norm(axis) < 1e-6 or abs(own_up @ axis) < 1e-3 * np.linalg.norm(axis):
    raise ValueError("up: the cameras do not agree on an up axis; expected a vector in its place")
  return np.sign(own_up @ axis) * axis / np.linalg.norm(axis)


def rotation_to_z(axis: np.ndarray) -> np.ndarray:
  """Returns the smallest rotation (3, 3) that takes a unit axis (3,) to +Z (Rodrigues)."""
  x, y, z = np.asarray(axis, np.float64)
  if z < -1.0 + 1e-12:
    return np.diag([1.0, -1.0, -1.0])
  skew = np.array([[0.0, 0.0, -x], [0.0, 0.0, -y], [x, y, 0.0]])
  return np.eye(3) + skew + skew @ skew / (1.0 + z)
