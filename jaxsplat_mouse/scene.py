"""Scenes: a few photographs of one moment, their silhouettes and cameras, on the host as NumPy.

Every crop here moves the intrinsics with the pixels.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from jaxsplat_mouse.cameras import Cameras


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True, kw_only=True)
class Scene:
  """V views of one moment, padded to one image shape.

  Attributes:
    cameras: (V,) cameras whose width and height are those of `images`.
    images: (V, H, W, 3) straight colour, 0 where alpha is 0: float32 in [0, 1], or uint8.
    alphas: (V, H, W) silhouettes, soft at the edges: float32 in [0, 1], or uint8.
    frames: (V, 4) x0 y0 x1 y1 in pixels: the rectangle that the camera saw. Pixels outside it are
      unknown, not background.
    view_mask: (V,) bool; False marks a padding view.
    doubted: (V, H, W) bool, pixels whose silhouette the other views contradict, which the fit
      leaves out; None where there are none.
    hidden: (V, H, W) bool, pixels where another animal may hide this one; unknown like those
      outside `frames`. None where there are none.
    inexact: (V,) bool, the same for all views: whether the scene is fitted as one whose cameras and
      masks are not exact (`fit.inexact_fits`); None stands for False.
  """

  cameras: Cameras
  images: np.ndarray
  alphas: np.ndarray
  frames: np.ndarray
  view_mask: np.ndarray
  doubted: np.ndarray | None = None
  hidden: np.ndarray | None = None
  inexact: np.ndarray | None = None

  @property
  def num_views(self) -> int:
    """Number of photographs of one scene, padding not counted."""
    return int(np.asarray(self.view_mask).sum())


def scene_from_rgba(cameras: Cameras, rgba: np.ndarray) -> Scene:
  """Makes a scene of whole photographs of one size.

  Args:
    cameras: (V,) cameras of the photographs' size.
    rgba: (V, H, W, 4) float32, straight colour and alpha in [0, 1], colour 0 where alpha is 0.
  """
  frame = np.array([0, 0, cameras.width, cameras.height], np.float32)
  return Scene(
    cameras=cameras,
    images=np.ascontiguousarray(rgba[..., :3]),
    alphas=np.ascontiguousarray(rgba[..., 3]),
    frames=np.tile(frame, (len(rgba), 1)),
    view_mask=np.ones(len(rgba), bool),
  )


def as_unit_floats(values: Any) -> Any:
  """Returns a scene's images or alphas as float32 in [0, 1]; NumPy or JAX, uint8 or float32."""
  return values.astype(np.float32) / np.float32(255) if values.dtype == np.uint8 else values


def to_uint8(scene: Scene) -> Scene:
  """Returns the scene with uint8 images and alphas: a quarter of the memory to copy and upload.

  Photographs that were read from 8-bit files lose nothing.
  """
  levels = lambda x: x if x.dtype == np.uint8 else (x * np.float32(255) + 0.5).astype(np.uint8)
  return dataclasses.replace(scene, images=levels(scene.images), alphas=levels(scene.alphas))


def observed_pixels(scene: Scene) -> Any:
  """Returns (V, H, W) bool, the pixels that the cameras saw.

  They lie inside `frames`, are not of padding views and not `hidden`. A NumPy array for a scene of
  NumPy arrays, otherwise a JAX array.
  """
  seen = _inside(scene, scene.frames) & scene.view_mask[:, None, None]
  return seen if scene.hidden is None else seen & ~scene.hidden


def _inside(scene: Scene, frames: Any) -> Any:
  """Returns (V, H, W) bool, the pixels whose centres lie in the frames (V, 4)."""
  height, width = scene.alphas.shape[1:]
  x = np.arange(width, dtype=np.float32) + np.float32(0.5)
  y = np.arange(height, dtype=np.float32)[:, None] + np.float32(0.5)
  x0, y0, x1, y1 = (frames[:, i, None, None] for i in range(4))
  return (x >= x0) & (x <= x1) & (y >= y0) & (y <= y1)


def widen_frames(scene: Scene) -> Scene:
  """Takes what lies beyond the frame of a whole silhouette for background.

  The image of a connected animal is connected. A silhouette that touches no border of its frame is
  therefore all of the animal, and nothing of it lies beyond: such a frame grows by the larger side
  of the images on every side. A silhouette that is in pieces, because something hides the part
  between them, can deceive this.

  Args:
    scene: views; photographs cropped close to the animal gain most.

  Returns:
    the scene with other `frames`.
  """
  outward = np.array([-1.0, -1.0, 1.0, 1.0], np.float32)
  silhouette = scene.alphas >= (128 if scene.alphas.dtype == np.uint8 else 0.5)
  if scene.hidden is not None:
    silhouette = silhouette | scene.hidden
  border = _inside(scene, scene.frames) & ~_inside(scene, scene.frames - outward)
  whole = ~(silhouette & border).any((1, 2))
  reach = np.float32(max(scene.alphas.shape[1:]))
  return dataclasses.replace(scene, frames=scene.frames + reach * outward * whole[:, None])


@dataclasses.dataclass(frozen=True, kw_only=True)
class Similarity:
  """A change of world frame: x_new = scale * rotation @ x_old + translation, float64.

  Attributes:
    scale: new units per old unit, > 0.
    rotation: (3, 3), determinant +1.
    translation: (3,) in new units.

  >>> to_metres = Similarity(scale=0.001, translation=np.array([0.0, 0.0, 1.0]))
  >>> to_metres.points(np.array([500.0, 0.0, 0.0]))
  array([0.5, 0. , 1. ])
  >>> to_metres.inverse().points(np.array([0.5, 0.0, 1.0]))
  array([500.,   0.,   0.])
  """

  scale: float = 1.0
  rotation: np.ndarray = dataclasses.field(default_factory=lambda: np.eye(3))
  translation: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(3))

  def matrix(self) -> np.ndarray:
    """Returns the transform as one (4, 4) matrix."""
    matrix = np.eye(4)
    matrix[:3, :3] = self.scale * np.asarray(self.rotation)
    matrix[:3, 3] = self.translation
    return matrix

  def inverse(self) -> Similarity:
    """Returns the transform from the new world to the old."""
    rotation = np.asarray(self.rotation).T
    return Similarity(
      scale=1.0 / self.scale,
      rotation=rotation,
      translation=-(rotation @ np.asarray(self.translation)) / self.scale,
    )

  def points(self, x: np.ndarray) -> np.ndarray:
    """Returns points (..., 3) of the old world in the new one."""
    return self.scale * (np.asarray(x, np.float64) @ np.asarray(self.rotation).T) + self.translation

  def world_to_camera(self, world_to_camera: np.ndarray) -> np.ndarray:
    """Returns the rigid transforms (..., 4, 4) of the same cameras from the new world.

    Camera-space lengths are multiplied by `scale`, so images and intrinsics stay the same.
    """
    old = np.asarray(world_to_camera, np.float64)
    new = old.copy()
    new[..., :3, :3] = old[..., :3, :3] @ np.asarray(self.rotation).T
    new[..., :3, 3] = self.scale * old[..., :3, 3] - new[..., :3, :3] @ np.asarray(self.translation)
    return new

  def to_json(self) -> dict[str, Any]:
    """Returns a JSON object: scale, rotation (row-major), translation."""
    return {
      "scale": float(self.scale),
      "rotation": np.asarray(self.rotation).tolist(),
      "translation": np.asarray(self.translation).tolist(),
    }

  @classmethod
  def from_json(cls, value: dict[str, Any]) -> Similarity:
    """Reads what `to_json` wrote.

    Raises:
      ValueError: the value is not a similarity.
    """
    rotation = np.asarray(value["rotation"], np.float64)
    translation = np.asarray(value["translation"], np.float64)
    scale = float(value["scale"])
    if rotation.shape != (3, 3) or translation.shape != (3,) or not scale > 0:
      raise ValueError("transform: expected scale > 0, rotation (3, 3), translation (3,)")
    if not np.allclose(rotation @ rotation.T, np.eye(3), atol=1e-6) or np.linalg.det(rotation) < 0:
      raise ValueError("transform: rotation must be orthonormal with determinant +1")
    return cls(scale=scale, rotation=rotation, translation=translation)


def transform_scene(scene: Scene, similarity: Similarity) -> Scene:
  """Returns the scene with its cameras in a new world; images and intrinsics stay the same."""
  moved = similarity.world_to_camera(scene.cameras.world_to_camera).astype(np.float32)
  return dataclasses.replace(
    scene, cameras=dataclasses.replace(scene.cameras, world_to_camera=moved)
  )


def silhouette_boxes(scene: Scene, threshold: float = 0.02) -> np.ndarray:
  """Returns the pixel boxes (V, 4) x0 y0 x1 y1 of silhouettes; of an empty view, its centre pixel.

  Args:
    scene: V views.
    threshold: the alpha in [0, 1] above which a pixel counts.
  """
  boxes = np.zeros((len(scene.alphas), 4), np.int64)
  for i, alpha in enumerate(scene.alphas):
    shown = np.asarray(alpha) > threshold * (255 if alpha.dtype == np.uint8 else 1)
    rows, columns = np.flatnonzero(shown.any(1)), np.flatnonzero(shown.any(0))
    if len(rows) == 0:
      height, width = alpha.shape
      boxes[i] = (width // 2, height // 2, width // 2 + 1, height // 2 + 1)
    else:
      boxes[i] = (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)
  return boxes


def crop_shape(
  scenes: Sequence[Scene], margin: float = 0.06, multiple: int = 32
) -> tuple[int, int]:
  """Returns one (height, width) in pixels that holds the silhouette of every view.

  Args:
    scenes: at least one.
    margin: room on each side, as a share of the silhouette's side.
    multiple: of which both sides are multiples: few distinct shapes mean few compilations.
  """
  sides = np.concatenate([silhouette_boxes(scene) for scene in scenes])
  wide, high = (sides[:, 2] - sides[:, 0]).max(), (sides[:, 3] - sides[:, 1]).max()
  grow = lambda side: math.ceil((side * (1 + 2 * margin) + 4) / multiple) * multiple
  return grow(high), grow(wide)


def crop_views(scene: Scene, shape: tuple[int, int] | None = None) -> Scene:
  """Cuts every view to one shape around its silhouette, and moves cx and cy with it.

  Where the cut reaches past the photograph, the new pixels are empty and lie outside `frames`.

  Args:
    scene: the views.
    shape: (height, width) of the cut; by default `crop_shape([scene])`.
  """
  height, width = shape or crop_shape([scene])
  boxes = silhouette_boxes(scene)
  views = len(boxes)
  images = np.zeros((views, height, width, 3), scene.images.dtype)
  alphas = np.zeros((views, height, width), scene.alphas.dtype)
  intrinsics = np.array(scene.cameras.intrinsics, np.float32)
  frames = np.array(scene.frames, np.float32)
  flags = {"doubted": scene.doubted, "hidden": scene.hidden}
  cut = {name: np.zeros(alphas.shape, bool) for name, f in flags.items() if f is not None}
  full_h, full_w = scene.alphas.shape[1:]
  for i, (x0, y0, x1, y1) in enumerate(boxes):
    left, top = (x0 + x1 - width) // 2, (y0 + y1 - height) // 2
    a, b = max(left, 0), max(top, 0)
    c, d = min(left + width, full_w), min(top + height, full_h)
    images[i, b - top : d - top, a - left : c - left] = scene.images[i, b:d, a:c]
    alphas[i, b - top : d - top, a - left : c - left] = scene.alphas[i, b:d, a:c]
    for name, part in cut.items():
      part[i, b - top : d - top, a - left : c - left] = np.asarray(flags[name])[i, b:d, a:c]
    shift = np.array([left, top, left, top], np.float32)
    intrinsics[i, 2:] -= shift[:2]
    frames[i] = np.clip(frames[i] - shift, 0, [width, height, width, height])
  cameras = Cameras(
    world_to_camera=scene.cameras.world_to_camera, intrinsics=intrinsics, width=width, height=height
  )
  moved = dataclasses.replace(scene, cameras=cameras, images=images, alphas=alphas, frames=frames)
  return dataclasses.replace(moved, doubted=cut.get("doubted"), hidden=cut.get("hidden"))


def pad_views(scene: Scene, num_views: int) -> Scene:
  """Appends masked copies of the first view until the scene has `num_views` views.

  Raises:
    ValueError: the scene has more views.
  """
  missing = num_views - len(scene.view_mask)
  if missing < 0:
    raise ValueError(
      f"pad_views: the scene has {len(scene.view_mask)} views, more than {num_views}"
    )
  if missing == 0:
    return scene
  repeat = lambda x: np.concatenate([np.asarray(x), np.repeat(np.asarray(x)[:1], missing, 0)])
  padded = jax.tree.map(repeat, scene)
  padded.view_mask[len(scene.view_mask) :] = False
  return padded


def without_padding(scene: Scene) -> Scene:
  """Returns the photographs of a scene, on the host: the inverse of `pad_views`."""
  real = np.asarray(scene.view_mask)
  return jax.tree.map(lambda x: np.asarray(x) if real.all() else np.asarray(x)[real], scene)


def stack_scenes(scenes: Sequence[Scene]) -> Scene:
  """Stacks scenes of one image shape into a batch (B, V, ...), padded to the largest V.

  A batch has no `hidden`: its pixels count as `doubted`, so that every batch runs the same program.
  All scenes have `inexact` as soon as one has it.
  """
  scenes = _with_inexact(_without_hidden(scenes))
  views = max(len(scene.view_mask) for scene in scenes)
  return jax.tree.map(lambda *x: np.stack(x), *[pad_views(scene, views) for scene in scenes])


def _with_inexact(scenes: Sequence[Scene]) -> list[Scene]:
  """Returns scenes that all say whether they are inexact, or all of which are exact."""
  if all(scene.inexact is None for scene in scenes):
    return list(scenes)
  exact = lambda scene: np.zeros(len(scene.view_mask), bool)
  given = [exact(scene) if scene.inexact is None else scene.inexact for scene in scenes]
  return [dataclasses.replace(s, inexact=flag) for s, flag in zip(scenes, given, strict=True)]


def _without_hidden(scenes: Sequence[Scene]) -> list[Scene]:
  """Returns scenes whose `doubted` holds their `hidden` pixels; all have it as soon as one does."""
  if all(scene.hidden is None for scene in scenes):
    return list(scenes)
  merged = []
  for scene in scenes:
    flags = [np.asarray(f) for f in (scene.doubted, scene.hidden) if f is not None]
    doubted = np.logical_or.reduce([np.zeros(scene.alphas.shape, bool), *flags])
    merged.append(dataclasses.replace(scene, doubted=doubted, hidden=None))
  return merged
