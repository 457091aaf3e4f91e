"""Where scenes come from: a scene folder, a folder of them, a list file, or the built-in mice.

A folder is one of:

    RECORDING/SCENE/opencv_cameras.json        a scene
    RECORDING/SCENE/input/, SCENE/target/      a scene with held-out views for `evaluate`
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import os
import pathlib
import re
from collections.abc import Iterable
from typing import Any

import numpy as np
from absl import logging

from jaxsplat_mouse import canonical
from jaxsplat_mouse.cameras import Cameras, generate_camera_poses
from jaxsplat_mouse.dataset import camera_file, facelift, lists
from jaxsplat_mouse.errors import InputError
from jaxsplat_mouse.io import images
from jaxsplat_mouse.procedural_mouse.mouse import make_mouse, render_truth
from jaxsplat_mouse.procedural_mouse.mouse_scenes import input_cameras, make_scene
from jaxsplat_mouse.scene import Scene

_INPUT, _TARGET = "input", "target"
_SAME_CENTER = 1e-2  # of a camera's distance from the origin, below which it is an input's camera


@dataclasses.dataclass(frozen=True, kw_only=True)
class Source:
  """One scene that can be read.

  Attributes:
    name: unique in its run, fit for a folder's name.
    recording: scenes of one recording go to one list, and may share a scale.
    folder: its scene folder; None for a built-in mouse.
    mouse: seed of a built-in mouse.
    image_size: side of its images, pixels.
  """

  name: str
  recording: str
  folder: pathlib.Path | None = None
  mouse: int = 0
  image_size: int = 0

  def __str__(self) -> str:
    """Returns the place of the scene, for messages."""
    return str(self.folder) if self.folder else f"built-in mouse {self.mouse}"

  def to_json(self) -> dict[str, object]:
    """Returns a JSON object that `from_json` reads."""
    return {**dataclasses.asdict(self), "folder": str(self.folder) if self.folder else None}

  @classmethod
  def from_json(cls, value: dict[str, Any]) -> Source:
    """Reads what `to_json` returned; raises TypeError for anything else."""
    folder = value.get("folder")
    return cls(**{**value, "folder": pathlib.Path(folder) if folder else None})


@dataclasses.dataclass(frozen=True, kw_only=True)
class Truth:
  """Held-out views of a scene, in its input frame.

  Attributes:
    rgba: V images (H, W, 4), float32 straight alpha, of any sizes.
    groups: view indices and cameras of each image size.
    seen: (V,) bool, whether the camera is one of the scene's own.
  """

  rgba: list[np.ndarray]
  groups: list[tuple[np.ndarray, Cameras]]
  seen: np.ndarray


def find_sources(
  path: str | os.PathLike[str], *, mice: int = 1, mouse_image_size: int = 512
) -> list[Source]:
  """Returns the scenes at `path`, in the order of their names or of the list.

  Args:
    path: a scene folder, a folder of scenes (or of recordings, folders of scenes), or a list file;
      empty for the built-in mice.
    mice: how many built-in mice.
    mouse_image_size: side of their images, pixels.

  Raises:
    InputError: no such file or folder, or no scene in it.
  """
  if not os.fspath(path):
    names = [f"mouse_{i:04d}" for i in range(mice)]
    return [
      Source(name=name, recording=name, mouse=i, image_size=mouse_image_size)
      for i, name in enumerate(names)
    ]
  path = pathlib.Path(path)
  if path.is_file():
    return _sources_of(_scene_root(f) or f for f in lists.read_list(path))
  if not path.is_dir():
    expected = "expected a scene folder, a folder of scenes or a list file"
    raise InputError(path, "", f"no such file or folder; {expected}")
  root = _scene_root(path)
  if root is not None:
    return _sources_of([root])
  children = _subfolders(path)
  found = [r for c in children if (r := _scene_root(c))]
  found = found or [r for c in children for g in _subfolders(c) if (r := _scene_root(g))]
  if not found:
    raise InputError(path, "", f"no scene in it; expected folders with {camera_file.CAMERAS_FILE}")
  return _sources_of(found)


def _subfolders(path: pathlib.Path) -> list[pathlib.Path]:
  return sorted(p for p in path.iterdir() if p.is_dir() and not p.name.startswith("."))


def _scene_root(path: pathlib.Path) -> pathlib.Path | None:
  """Returns the folder to read where `path` is a scene, or holds one in `input/`; None otherwise.

  A folder of images without a camera file counts too: reading it reports the missing file.
  """
  for folder in (path, path / _INPUT):
    if (folder / camera_file.CAMERAS_FILE).is_file() or (folder / "images").is_dir():
      return folder
  return None


def _sources_of(folders: Iterable[pathlib.Path]) -> list[Source]:
  sources: list[Source] = []
  taken: set[str] = set()
  places: set[pathlib.Path] = set()
  for folder in folders:
    place = folder.resolve()
    if place in places:
      logging.warning("%s: listed twice; taken once", folder)
      continue
    places.add(place)
    outer = place.parent if place.name == _INPUT else place
    name = _free_name([outer.name, f"{outer.parent.name}_{outer.name}"], taken)
    taken.add(name)
    sources.append(Source(name=name, recording=outer.parent.name, folder=place))
  return sources


def _free_name(candidates: list[str], taken: set[str]) -> str:
  """Returns the first candidate that is not taken, as a folder name; numbered where all are."""
  clean = [re.sub(r"[^A-Za-z0-9_.+=-]", "_", c)[:120] for c in candidates]
  clean = [c if re.match(r"[A-Za-z0-9_]", c) else f"_{c}" for c in clean]
  numbered = (f"{clean[-1]}_{i}" for i in itertools.count(2))
  return next(c for c in itertools.chain(clean, numbered) if c not in taken)


def digest(source: Source) -> str:
  """Returns the SHA-256 of everything that is read for a scene: its camera file and images.

  Raises:
    InputError: a file is missing or not readable.
  """
  if source.folder is None:
    return hashlib.sha256(f"mouse {source.mouse} {source.image_size}".encode()).hexdigest()
  path = source.folder / camera_file.CAMERAS_FILE
  cameras = camera_file.parse(path)
  names = (*cameras.names, *filter(None, cameras.observed_names))
  total = hashlib.sha256()
  try:
    for name in (camera_file.CAMERAS_FILE, *names):
      path = source.folder / name
      if source.folder.resolve() in path.resolve().parents and path.is_file():
        total.update(hashlib.sha256(path.read_bytes()).digest())
  except OSError as error:
    raise InputError(path, "", f"not readable ({error.strerror})") from None
  return total.hexdigest()


def read_source(source: Source) -> tuple[Scene, tuple[str, ...]]:
  """Returns the scene in its own world, and what is suspicious about it.

  Raises:
    InputError: anything missing, broken or contradictory.
  """
  if source.folder is not None:
    read = facelift.read_scene(source.folder)
    return read.scene, read.warnings
  cameras = input_cameras(image_size=source.image_size)
  return make_scene(source.mouse, cameras), ()


def read_truth(
  source: Source, scene: Scene, *, folder: pathlib.Path | None = None, num_views: int = 32
) -> Truth | None:
  """Reads held-out views: of `folder`, of the `target/` beside an `input/`, or of a built-in mouse.

  Args:
    source: the scene.
    scene: its views, whose cameras are not held out.
    folder: a scene folder with the held-out views, in the world of the scene.
    num_views: the number of views of a built-in mouse.

  Returns:
    the views, or None where there are none.

  Raises:
    InputError: a camera file or an image that is broken.
  """
  if folder is None and source.folder is None:
    cameras = generate_camera_poses(num_views, image_size=source.image_size)
    rgba = render_truth(make_mouse(source.mouse), cameras).rgba
    return _truth(list(rgba), [(np.arange(num_views), cameras)], scene)
  if folder is None:
    folder = source.folder.parent / _TARGET if source.folder else None
    if source.folder is None or source.folder.name != _INPUT or not folder or not folder.is_dir():
      return None
  cameras_file = camera_file.read_cameras(folder)
  views = [_read_rgba(folder, cameras_file, i) for i in range(len(cameras_file.names))]
  return _truth(views, cameras_file.groups(), scene)


def _truth(rgba: list[np.ndarray], groups: list[tuple[np.ndarray, Cameras]], scene: Scene) -> Truth:
  own = np.asarray(scene.cameras.centers)[np.asarray(scene.view_mask)]
  seen = np.zeros(len(rgba), bool)
  for index, cameras in groups:
    centers = np.asarray(cameras.centers)
    nearest = np.linalg.norm(centers[:, None] - own[None], axis=-1).min(1)
    seen[index] = nearest < _SAME_CENTER * np.linalg.norm(centers, axis=-1)
  return Truth(rgba=rgba, groups=groups, seen=seen)


def _read_rgba(folder: pathlib.Path, cameras: camera_file.CameraFile, view: int) -> np.ndarray:
  """Reads one held-out image as float32 RGBA (H, W, 4) of the size of its camera."""
  name, field = cameras.names[view], f"frames[{view}].file_path"
  if folder.resolve() not in (folder / name).resolve().parents:
    raise InputError(folder / camera_file.CAMERAS_FILE, field, f"{name} leads out of the folder")
  image = images.read_image(folder / name, field)
  if image.shape[2] == 3:
    image = images.rgba_from_white(image)
  width, height = cameras.sizes[view]
  if image.shape[:2] != (height, width):
    problem = f"{image.shape[1]} x {image.shape[0]} pixels; expected {width} x {height}"
    raise InputError(folder / name, field, problem)
  rgba = image.astype(np.float32) / np.float32(255)
  rgba[rgba[..., 3] == 0] = 0
  return rgba


def load_scene(path: str | os.PathLike[str], *, normalize: str = "scene", up: str = "+z") -> Scene:
  """Reads one scene folder into the canonical frame, where it can be fitted.

  The cameras of `generate_camera_poses` are in the same frame.

  >>> scene = load_scene("scene")
  >>> scene.images.shape, scene.alphas.shape, len(scene.cameras)
  ((6, 36, 36, 3), (6, 36, 36), 6)

  Args:
    path: the folder with the camera file, or one that holds it in `input/`.
    normalize: `scene`, or `none` to keep the input frame.
    up: the input world's up axis, see `canonical.canonicalize`.

  Returns:
    the scene, with V views of (H, W) pixels.

  Raises:
    InputError: the scene cannot be read, or its silhouettes admit no solid.
  """
  folder = _scene_root(pathlib.Path(path)) or pathlib.Path(path)
  scene = facelift.read_scene(folder).scene
  try:
    return canonical.canonicalize(scene, normalize=normalize, up=up)[0]
  except ValueError as error:
    raise InputError(folder, "", str(error)) from None
