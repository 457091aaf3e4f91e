"""Scenes of a procedural mouse to fit, and the cameras of the usual set-ups."""

from __future__ import annotations

import math

import numpy as np

from jaxsplat_mouse.cameras import Cameras, focal_from_fov, look_at
from jaxsplat_mouse.procedural_mouse.disturb import rotation_about
from jaxsplat_mouse.procedural_mouse.mouse import make_mouse, render_truth
from jaxsplat_mouse.procedural_mouse.parameters import Coat, Pose
from jaxsplat_mouse.procedural_mouse.shading import Lighting
from jaxsplat_mouse.scene import Scene, scene_from_rgba


def input_cameras(num_views: int = 6, image_size: int = 512) -> Cameras:
  """Returns cameras on FaceLift's ring (distance 2.7, field of view 50 degrees), as in a rig.

  Azimuths start at 15 degrees and are evenly spaced; elevations alternate between 12 and 28
  degrees, 20 on average.

  Args:
    num_views: number of cameras.
    image_size: width and height in pixels.
  """
  focal = focal_from_fov(50.0, image_size)
  poses = []
  for i in range(num_views):
    azimuth, lift = math.radians(15.0 + 360.0 * i / num_views), math.radians((12.0, 28.0)[i % 2])
    eye = (math.cos(lift) * math.cos(azimuth), math.cos(lift) * math.sin(azimuth), math.sin(lift))
    poses.append(look_at(2.7 * np.array(eye)))
  intrinsics = np.array([focal, focal, image_size / 2, image_size / 2], np.float32)
  return Cameras(
    world_to_camera=np.stack(poses).astype(np.float32),
    intrinsics=np.tile(intrinsics, (num_views, 1)),
    width=image_size,
    height=image_size,
  )


def rig_cameras(seed: int = 0, width: int = 576, height: int = 512) -> Cameras:
  """Returns six cameras as uneven as those of a real rig.

  Distances differ by up to 1.6, azimuth gaps are 54 to 66 degrees, elevations 7 to 24 degrees; the
  principal points lie up to 9 % of the image off-centre, and the optical axes miss the animal. The
  whole animal stays in every frame of about the default shape.

  Args:
    seed: of the rig.
    width: of the images, pixels.
    height: of the images, pixels.
  """
  rng = np.random.default_rng([seed, width, height])
  azimuth = np.radians(60.0 * np.arange(6) + rng.uniform(-3, 3, 6) + rng.uniform(0, 360))
  lift = np.radians(rng.uniform(7.0, 24.0, 6))
  distance = 3.1 * rng.permutation(np.linspace(1.0, 1.55, 6))
  poses, intrinsics = [], []
  size = np.array([width, height])
  for a, e, d in zip(azimuth, lift, distance, strict=True):
    eye = d * np.array([math.cos(e) * math.cos(a), math.cos(e) * math.sin(a), math.sin(e)])
    focal = 1.45 * width * rng.uniform(0.98, 1.02) * np.array([1.0, rng.uniform(0.995, 1.005)])
    centre = size * (0.5 + rng.uniform(-0.09, 0.09, 2))
    # The camera turns until the animal is near the middle of the frame.
    room = np.maximum(size / 2 - focal * 0.9 / (d - 0.3), 0.0)
    seen = size / 2 + rng.uniform(-1, 1, 2) * room
    poses.append(_aimed(eye, (seen - centre) / focal))
    intrinsics.append([*focal, *centre])
  return Cameras(
    world_to_camera=np.stack(poses).astype(np.float32),
    intrinsics=np.asarray(intrinsics, np.float32),
    width=width,
    height=height,
  )


def _aimed(eye: np.ndarray, offset: np.ndarray) -> np.ndarray:
  """Returns world-to-camera (4, 4) of a camera at `eye` with the origin at (x, y) / z = offset."""
  direction = np.array([*offset, 1.0]) / math.sqrt(1.0 + float((offset**2).sum()))
  axis = np.cross([0.0, 0.0, 1.0], direction)
  turn = np.eye(4)
  angle = math.acos(float(direction[2]))
  turn[:3, :3] = rotation_about(axis * (angle / max(float(np.linalg.norm(axis)), 1e-12)))
  return turn @ look_at(eye)


def make_scene(
  seed: int,
  cameras: Cameras | None = None,
  *,
  pose: str | Pose | None = None,
  coat: str | Coat | None = None,
  samples: int = 2,
  edge_samples: int = 4,
  fur: float = 0.0,
  lighting: Lighting | None = None,
) -> Scene:
  """Makes the scene of one mouse.

  The cameras and the mouse share one world, so `render_truth` of the same mouse at any other camera
  gives held-out truth for the scene.

  Args:
    seed: of `make_mouse`.
    cameras: (V,) by default `input_cameras()`.
    pose: of `make_mouse`.
    coat: of `make_mouse`.
    samples: rays along each side of a pixel.
    edge_samples: likewise for pixels on the silhouette.
    fur: length of soft hair, world units.
    lighting: lights fixed in the world.
  """
  cameras = input_cameras() if cameras is None else cameras
  mouse = make_mouse(seed, pose, coat)
  views = render_truth(
    mouse, cameras, samples, edge_samples=edge_samples, fur=fur, lighting=lighting
  )
  return scene_from_rgba(cameras, views.rgba)
