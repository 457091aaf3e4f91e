"""Recordings with faults: what cameras, masks and light that are a little wrong cost, and what
`capture.pose_refinement` wins back.

Built-in mice walk through the arena of a real rig. The pictures are exact; a fault changes what the
fit is told about them: a calibration, masks, the exposure, the frame that a camera delivers.
"""

from __future__ import annotations

import dataclasses
import math
import os
import pathlib
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import numpy as np

from jaxsplat_mouse.cameras import Cameras, generate_camera_poses
from jaxsplat_mouse.procedural_mouse.mouse import Mouse, make_mouse, render_truth, walking
from jaxsplat_mouse.procedural_mouse.mouse_scenes import rig_cameras
from jaxsplat_mouse.procedural_mouse.real_rig import dannce_cameras

MM = 99.0 / 0.82  # millimetres per world unit: `real_rig`'s mouse
LATE_CAMERA = 3  # the camera that has a second set of pictures, taken one frame earlier
_FRAME = 1.0 / 30.0  # seconds
_SPACING = 0.7  # seconds between two moments
_REACH = 0.15  # world units that the animal walks to either side
_SPEEDS = 5.0, 3.7  # radians per second along x and y
_STRIDES = 3.0  # per second


@dataclasses.dataclass(frozen=True, kw_only=True)
class Subject:
  """An animal and the rig that films it.

  Attributes:
    seed: of the animal.
    coat: its name; see `procedural_mouse`.
    rig: `dannce` for the real rig, or the seed of a drawn one.
  """

  seed: int
  coat: str
  rig: str = "dannce"


SUBJECTS = {
  "agouti": Subject(seed=301, coat="agouti"),
  "pied": Subject(seed=302, coat="pied"),
  "black": Subject(seed=303, coat="black"),
  "grey": Subject(seed=304, coat="grey", rig="7"),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Film:
  """Exact pictures of one animal.

  Attributes:
    cameras: (V,) true cameras.
    rgba: (M, V, H, W, 4) uint8, straight.
    late: (M, H, W, 4) uint8 of `LATE_CAMERA`, one frame earlier.
    truth: (T, N, S, S, 4) uint8 of the first T moments at `novel`.
    novel: (N,) cameras that took no photograph.
  """

  cameras: Cameras
  rgba: np.ndarray
  late: np.ndarray
  truth: np.ndarray
  novel: Cameras


def mouse_at(subject: Subject, time: float) -> Mouse:
  """Returns the animal at a time of its walk, seconds."""
  mouse = walking(make_mouse(subject.seed, "walk", subject.coat), _STRIDES * time)
  rng = np.random.default_rng(subject.seed)
  phase = rng.uniform(0, 2 * math.pi, 2) + np.array(_SPEEDS) * time
  turn = math.atan2(_SPEEDS[1] * math.cos(phase[1]), _SPEEDS[0] * math.cos(phase[0])) - mouse.yaw
  x, y, z = mouse.translation
  c, s = math.cos(turn), math.sin(turn)
  place = _REACH * np.sin(phase) + np.array([c * x - s * y, s * x + c * y])
  return dataclasses.replace(
    mouse, yaw=mouse.yaw + turn, translation=(float(place[0]), float(place[1]), z)
  )


def rig_of(subject: Subject, width: int) -> Cameras:
  """Returns the true cameras (6,) of a subject, with images `width` pixels wide."""
  if subject.rig == "dannce":
    return dannce_cameras(width)
  return rig_cameras(int(subject.rig), width, width * 8 // 9)


def novel_cameras(width: int, views: int) -> Cameras:
  """Returns views of FaceLift's orbit."""
  return generate_camera_poses(views, image_size=width)


def _levels(rgba: np.ndarray) -> np.ndarray:
  return np.round(255 * rgba).astype(np.uint8)


def _shoot(job: tuple[Subject, int, int, int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Pictures of one moment: of the rig, of the late camera, and truth (views, S, S, 4)."""
  subject, moment, width, views = job
  rig = rig_of(subject, width)
  mouse = mouse_at(subject, _SPACING * moment)
  own = _levels(render_truth(mouse, rig).rgba)
  one = dataclasses.replace(
    rig,
    world_to_camera=rig.world_to_camera[LATE_CAMERA : LATE_CAMERA + 1],
    intrinsics=rig.intrinsics[LATE_CAMERA : LATE_CAMERA + 1],
  )
  earlier = mouse_at(subject, _SPACING * moment - _FRAME)
  late = _levels(render_truth(earlier, one).rgba[0])
  truth = np.zeros((0, width, width, 4), np.uint8)
  if views:
    truth = _levels(render_truth(mouse, novel_cameras(width, views)).rgba)
  return own, late, truth


def make_films(
  names: list[str], moments: int, scored: int, width: int, views: int, cache: pathlib.Path
) -> dict[str, Film]:
  """Renders, or reads from the cache, the films of some subjects.

  Args:
    names: of `SUBJECTS`.
    moments: M, of each film.
    scored: T, the moments that have novel views.
    width: of all images, pixels; a multiple of 9.
    views: novel views.
    cache: the folder that keeps what was rendered.
  """
  path = lambda name: cache / f"{name}_{moments}_{scored}_{width}_{views}.npz"
  missing = [name for name in names if not path(name).is_file()]
  jobs = [
    (SUBJECTS[n], m, width, views if m < scored else 0) for n in missing for m in range(moments)
  ]
  if jobs:
    cache.mkdir(parents=True, exist_ok=True)
    # Tracing is NumPy's: processes, which must not inherit this one's device.
    with ProcessPoolExecutor(os.cpu_count(), get_context("spawn")) as pool:
      shots = list(pool.map(_shoot, jobs))
    for i, name in enumerate(missing):
      own, late, truth = zip(*shots[i * moments : (i + 1) * moments], strict=True)
      arrays = {"rgba": np.stack(own), "late": np.stack(late), "truth": np.stack(truth[:scored])}
      np.savez_compressed(path(name), **arrays)
  films = {}
  for name in names:
    held = np.load(path(name))
    films[name] = Film(
      cameras=rig_of(SUBJECTS[name], width),
      rgba=held["rgba"],
      late=held["late"],
      truth=held["truth"],
      novel=novel_cameras(width, views),
    )
  return films
