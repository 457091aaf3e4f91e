"""A solid without symmetry, seen by the orbit: exact silhouettes in a few lines of numpy."""

from __future__ import annotations

import functools
import json
import pathlib

import numpy as np

from jaxsplat_mouse.cameras import Cameras, generate_camera_poses
from jaxsplat_mouse.dataset import writer
from jaxsplat_mouse.dataset.scene_records import SceneRecord

VIEWS, SIZE = 12, 80
_SPHERES = (  # centre, radius, colour
  ((0.0, 0.0, 0.0), 0.42, (0.8, 0.5, 0.3)),
  ((0.45, 0.1, 0.15), 0.22, (0.3, 0.6, 0.8)),
  ((-0.3, -0.45, 0.3), 0.16, (0.9, 0.8, 0.2)),
)


def cameras(views: int = VIEWS) -> Cameras:
  return generate_camera_poses(num_views=views, image_size=SIZE)


@functools.cache
def renders(
  scale: float = 1.0, views: int = VIEWS, samples: int = 4
) -> tuple[np.ndarray, np.ndarray]:
  """Colour times alpha (V, S, S, 3) and alpha (V, S, S) of the orbit's views, float32."""
  orbit = cameras(views)
  poses = orbit.world_to_camera.astype(np.float64)
  images = [_render(*view, scale, samples) for view in zip(poses, orbit.intrinsics, strict=True)]
  return np.stack([i[..., :3] for i in images]), np.stack([i[..., 3] for i in images])


def _render(w2c: np.ndarray, k: np.ndarray, scale: float, samples: int) -> np.ndarray:
  steps = (np.arange(SIZE * samples) + 0.5) / samples
  x, y = np.meshgrid((steps - k[2]) / k[0], (steps - k[3]) / k[1])
  ray = np.stack([x, y, np.ones_like(x)], -1)
  image = np.zeros((*x.shape, 4))
  nearest = np.full(x.shape, np.inf)
  for center, radius, colour in _SPHERES:
    c = w2c[:3, :3] @ (np.array(center) * scale) + w2c[:3, 3]
    a, b = (ray * ray).sum(-1), ray @ c
    inner = b * b - a * (c @ c - (radius * scale) ** 2)
    depth = (b - np.sqrt(np.maximum(inner, 0))) / a
    hit = (inner > 0) & (depth < nearest)
    nearest[hit] = depth[hit]
    normal = (depth[..., None] * ray - c) / (radius * scale)
    shade = 0.7 - 0.3 * normal[..., 2:]
    image[hit] = np.concatenate([np.array(colour) * shade, np.ones_like(shade)], -1)[hit]
  blocks = image.reshape(SIZE, samples, SIZE, samples, 4)
  return blocks.mean((1, 3)).astype(np.float32)


def edit_frames(folder: pathlib.Path, change) -> None:
  """Applies `change(data)` to a scene's camera file; what it returns, if anything, replaces it."""
  path = folder / "opencv_cameras.json"
  data = json.loads(path.read_text())
  path.write_text(json.dumps(change(data) or data))


def small_scene(views=3, size=8):
  rgba = np.zeros((views, size, size, 4), np.uint8)
  rgba[:, 2:6, 2:6] = (10, 200, 30, 255)
  return rgba, generate_camera_poses(num_views=views, image_size=size)


def dataset_of(root: pathlib.Path, *names: str) -> pathlib.Path:
  for name in names:
    writer.write_scene(root, name, *small_scene())
  return root


def record(scene: str, **values) -> SceneRecord:
  return SceneRecord(scene=scene, status=values.pop("status", "done"), **values)
