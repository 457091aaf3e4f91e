"""A raw capture of spheres behind real lenses: exact geometry in a few lines of numpy."""

from __future__ import annotations

import pathlib

import numpy as np

from jaxsplat_mouse.cameras import look_at
from jaxsplat_mouse.capture.raw_capture import Capture, Stream
from jaxsplat_mouse.capture.rig import Rig
from jaxsplat_mouse.io import images

VIEWS, WIDTH, HEIGHT = 5, 144, 120
BACKGROUND = np.array([0.2, 0.55, 0.3])
# Centre and radius in mm, colour: without symmetry.
Spheres = tuple[tuple[tuple[float, float, float], float, tuple[float, float, float]], ...]
SPHERES: Spheres = (
  ((0.0, 0.0, 20.0), 21.0, (0.8, 0.5, 0.3)),
  ((24.0, 5.0, 28.0), 11.0, (0.3, 0.4, 0.8)),
  ((-14.0, -24.0, 36.0), 8.0, (0.9, 0.8, 0.2)),
)
LENS = (-0.16, 0.9, -0.0011, -0.0038, -2.7)  # of the order of a real one, see rig.py for its names


def make_rig(lens: bool = True) -> Rig:
  """Five cameras around the floor, no two alike."""
  poses, matrices = [], []
  for i in range(VIEWS):
    angle = 2 * np.pi * (i + 0.13 * i * i) / VIEWS
    eye = (260 + 22 * i) * np.array([np.cos(angle), np.sin(angle), 0.25 + 0.12 * i])
    poses.append(look_at(eye, (0.0, 0.0, 20.0 + 2 * i)))
    skew = -1.5 if lens else 0.0
    matrices.append([[212 + 3 * i, skew, 75 + i], [0, 214 + 3 * i, 58 - i], [0, 0, 1]])
  return Rig(
    names=tuple(f"Camera{i + 1}" for i in range(VIEWS)),
    matrices=np.array(matrices, np.float64),
    world_to_camera=np.array(poses),
    distortion=np.outer(1 - 0.02 * np.arange(VIEWS), LENS if lens else np.zeros(5)),
    sizes=np.tile([WIDTH, HEIGHT], (VIEWS, 1)),
    unit="mm",
  )


def straight_rays(rig: Rig, view: int, samples: int) -> np.ndarray:
  """Normalised pinhole coordinates (n H, n W, 2) of raw sub-pixels, by fixed-point iteration."""
  x = (np.arange(WIDTH * samples) + 0.5) / samples
  y = (np.arange(HEIGHT * samples) + 0.5) / samples
  pixels = np.stack(np.meshgrid(x, y), -1)
  k, (k1, k2, p1, p2, k3) = rig.matrices[view], rig.distortion[view]
  v = (pixels[..., 1] - k[1, 2]) / k[1, 1]
  u = (pixels[..., 0] - k[0, 2] - k[0, 1] * v) / k[0, 0]
  a, b = u.copy(), v.copy()
  for _ in range(60):
    r2 = a * a + b * b
    radial = 1 + k1 * r2 + k2 * r2**2 + k3 * r2**3
    a, b = (
      (u - 2 * p1 * a * b - p2 * (r2 + 2 * a * a)) / radial,
      (v - p1 * (r2 + 2 * b * b) - 2 * p2 * a * b) / radial,
    )
  return np.stack([a, b], -1)


def trace(
  rig: Rig,
  view: int,
  spheres: Spheres,
  shift: tuple[float, float, float] = (0, 0, 0),
  samples: int = 4,
) -> tuple[np.ndarray, np.ndarray]:
  """RGBA (n H, n W, 4) of spheres moved by `shift`, and the number of the visible one, or -1."""
  rays = straight_rays(rig, view, samples)
  rays = np.concatenate([rays, np.ones_like(rays[..., :1])], -1)
  pose = rig.world_to_camera[view]
  image = np.zeros((*rays.shape[:2], 4))
  nearest, number = np.full(rays.shape[:2], np.inf), np.full(rays.shape[:2], -1)
  for i, (centre, radius, colour) in enumerate(spheres):
    c = pose[:3, :3] @ (np.array(centre) + shift) + pose[:3, 3]
    a, b = (rays * rays).sum(-1), rays @ c
    inner = b * b - a * (c @ c - radius**2)
    depth = (b - np.sqrt(np.maximum(inner, 0))) / a
    hit = (inner > 0) & (depth < nearest)
    nearest[hit] = depth[hit]
    image[hit] = [*colour, 1.0]
    number[hit] = i
  return image, number


def develop(image: np.ndarray, samples: int = 4) -> tuple[np.ndarray, np.ndarray]:
  """Photograph (H, W, 3) and coverage (H, W), uint8, of sub-pixels before the background."""
  blocks = image.reshape(HEIGHT, samples, WIDTH, samples, 4).mean((1, 3))
  photo = blocks[..., :3] + (1 - blocks[..., 3:]) * BACKGROUND
  to_bytes = lambda x: (x * 255 + 0.5).astype(np.uint8)
  return to_bytes(photo), to_bytes(blocks[..., 3])


def render(
  rig: Rig, view: int, shift: tuple[float, float, float] = (0, 0, 0), samples: int = 4
) -> tuple[np.ndarray, np.ndarray]:
  """Raw photograph (H, W, 3) and coverage (H, W), uint8, of the spheres moved by `shift`."""
  return develop(trace(rig, view, SPHERES, shift, samples)[0], samples)


def walk(frame: int) -> tuple[float, float, float]:
  """Where the animal is in a frame."""
  return (4.0 * frame - 4.0, 3.0 * frame, 0.0)


def write_images(folder: pathlib.Path, rig: Rig, frames: int = 3, views: int = VIEWS) -> Capture:
  """A capture of PNG photographs and masks, frame by frame."""
  pictures, masks = [], []
  for view in range(views):
    files: dict[str, list[pathlib.Path]] = {"photo": [], "mask": []}
    for frame in range(frames):
      for kind, image in zip(files, render(rig, view, walk(frame)), strict=True):
        path = folder / kind / rig.names[view] / f"{frame}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(images.encode_png(image))
        files[kind].append(path)
    pictures.append(Stream(images=tuple(files["photo"])))
    masks.append(Stream(images=tuple(files["mask"])))
  return make_capture(folder, rig, pictures, masks, frames)


def make_capture(
  folder: pathlib.Path, rig: Rig, pictures: list[Stream], masks: list[Stream], frames: int
) -> Capture:
  return Capture(
    path=folder,
    rig=rig,
    pictures=tuple(pictures),
    masks=tuple(masks),
    frames=np.tile(np.arange(frames)[:, None], (1, len(rig))),
    moments=10 * np.arange(frames) + 1,
    up="+z",
  )
