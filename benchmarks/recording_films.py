"""Films of built-in mice that walk through the arena of a rig, for `recordings.py`.

Pictures are exact and those of pinholes; `recording_files.py` gives them a background, the rig's
lenses and faults. A moment has a second picture of each camera one frame earlier and one frame
later where a recording out of step is wanted.
"""

from __future__ import annotations

import dataclasses
import math
import pathlib
from collections.abc import Sequence

import numpy as np

from benchmarks.recording_workers import cpu_workers
from jaxsplat_mouse.cameras import Cameras, generate_camera_poses
from jaxsplat_mouse.procedural_mouse.mouse import Mouse, make_mouse, render_truth, walking
from jaxsplat_mouse.procedural_mouse.mouse_scenes import rig_cameras
from jaxsplat_mouse.procedural_mouse.real_rig import dannce_cameras

LATE_CAMERA = 3  # the camera that has pictures of two frames before a moment too
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
  "fawn": Subject(seed=305, coat="fawn", rig="11"),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class FilmSize:
  """How much of a film is rendered.

  Attributes:
    moments: M.
    scored: T, moments that have novel views, spread over the film.
    width: of all images, pixels; a multiple of 9.
    views: N novel views of each of them.
  """

  moments: int
  scored: int
  width: int
  views: int

  @property
  def scored_moments(self) -> np.ndarray:
    """(T,) numbers of these moments, evenly spaced."""
    step = self.moments // self.scored
    return step // 2 + step * np.arange(self.scored)

  def path(self, cache: pathlib.Path, name: str, part: str) -> pathlib.Path:
    """Returns the file that keeps a part of a film: `film` or `sides`."""
    size = f"{self.moments}_{self.scored}_{self.width}_{self.views}"
    return cache / f"{name}_{size}_{part}.npz"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Film:
  """Exact pictures of one animal.

  Attributes:
    cameras: (V,) true cameras.
    rgba: (M, V, H, W, 4) uint8, straight.
    truth: (T, N, S, S, 4) uint8 of the scored moments at `novel`.
    scored: (T,) numbers of these moments.
    novel: (N,) cameras that took no photograph.
    sides: (2, M, V, H, W, 4) uint8, one frame before and after each moment; None for none.
    earlier: (M, H, W, 4) uint8 of `LATE_CAMERA`, two frames before; None for none.
  """

  cameras: Cameras
  rgba: np.ndarray
  truth: np.ndarray
  scored: np.ndarray
  novel: Cameras
  sides: np.ndarray | None = None
  earlier: np.ndarray | None = None


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


def make_films(
  names: Sequence[str], size: FilmSize, cache: pathlib.Path, *, sides: bool, jobs: int
) -> None:
  """Renders what the cache lacks of the films of some subjects.

  Args:
    names: of `SUBJECTS`.
    size: of each film.
    cache: the folder that keeps what was rendered.
    sides: whether the frames beside the moments are rendered too.
    jobs: number of processes.
  """
  parts = ("film", "sides") if sides else ("film",)
  missing = [(n, p) for n in names for p in parts if not size.path(cache, n, p).is_file()]
  if not missing:
    return
  cache.mkdir(parents=True, exist_ok=True)
  work = [(n, p, m, size) for n, p in missing for m in range(size.moments)]
  with cpu_workers(jobs, 1 if jobs > 1 else 0) as pool:
    shots = list(pool.map(_shoot, work))
  for i, (name, part) in enumerate(missing):
    found = shots[i * size.moments : (i + 1) * size.moments]
    keys = dict.fromkeys(key for shot in found for key in shot)
    arrays = {key: np.stack([shot[key] for shot in found if key in shot]) for key in keys}
    np.savez_compressed(size.path(cache, name, part), **arrays)


def load_film(name: str, size: FilmSize, cache: pathlib.Path, *, sides: bool = False) -> Film:
  """Reads a film that `make_films` rendered."""
  held = np.load(size.path(cache, name, "film"))
  beside = np.load(size.path(cache, name, "sides")) if sides else {}
  return Film(
    cameras=rig_of(SUBJECTS[name], size.width),
    rgba=held["rgba"],
    truth=held["truth"],
    scored=size.scored_moments,
    novel=novel_cameras(size.width, size.views),
    sides=np.swapaxes(beside["sides"], 0, 1) if sides else None,
    earlier=beside["earlier"] if sides else None,
  )


def _levels(rgba: np.ndarray) -> np.ndarray:
  return np.round(255 * rgba).astype(np.uint8)


def _shoot(job: tuple[str, str, int, FilmSize]) -> dict[str, np.ndarray]:
  """Renders one moment of a part of a film: arrays by name."""
  name, part, moment, size = job
  subject, rig = SUBJECTS[name], rig_of(SUBJECTS[name], size.width)
  at = lambda frames: mouse_at(subject, _SPACING * moment + _FRAME * frames)
  if part == "sides":
    one = dataclasses.replace(
      rig,
      world_to_camera=rig.world_to_camera[LATE_CAMERA : LATE_CAMERA + 1],
      intrinsics=rig.intrinsics[LATE_CAMERA : LATE_CAMERA + 1],
    )
    sides = [_levels(render_truth(at(frames), rig).rgba) for frames in (-1, 1)]
    return {"sides": np.stack(sides), "earlier": _levels(render_truth(at(-2), one).rgba[0])}
  found = {"rgba": _levels(render_truth(at(0), rig).rgba)}
  if moment in size.scored_moments:
    found["truth"] = _levels(render_truth(at(0), novel_cameras(size.width, size.views)).rgba)
  return found
