"""The camera file of a FaceLift scene, `opencv_cameras.json`: read strictly, written in one step.

The file is `{"id": ..., "frames": [{w, h, fx, fy, cx, cy, w2c, file_path}, ...]}`: OpenCV axes,
intrinsics in pixels of the image, `w2c` a rigid 4x4 matrix, `file_path` relative to the scene's
folder. A frame may have `observed_path` too, a grey image that is 0 where another animal hides this
one and 255 elsewhere. An impossible camera raises `InputError` with the file, the field and what
was expected; nothing is repaired silently.
"""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxsplat_mouse.cameras import Cameras
from jaxsplat_mouse.errors import InputError, short
from jaxsplat_mouse.io import atomic, checks, images

CAMERAS_FILE = "opencv_cameras.json"
OBSERVED_KEY = "observed_path"
_FRAME_KEYS = ("w", "h", "fx", "fy", "cx", "cy", "w2c", "file_path")


@dataclasses.dataclass(frozen=True, kw_only=True)
class CameraFile:
  """The cameras of one file, whose image sizes may differ.

  Attributes:
    world_to_camera: (V, 4, 4) float64.
    intrinsics: (V, 4) float64, fx fy cx cy in pixels.
    sizes: (V, 2) width and height in pixels.
    names: V image paths relative to the scene folder.
    id: the scene's id, by default the folder's name.
    extra: top-level keys other than `id` and `frames`.
    frame_extra: V dicts of the frames' other keys.
  """

  world_to_camera: np.ndarray
  intrinsics: np.ndarray
  sizes: np.ndarray
  names: tuple[str, ...]
  id: str
  extra: dict[str, Any]
  frame_extra: tuple[dict[str, Any], ...]

  @property
  def observed_names(self) -> tuple[str, ...]:
    """V paths of the images that mark hidden pixels, relative to the scene folder; "" for none."""
    return tuple(extra.get(OBSERVED_KEY, "") for extra in self.frame_extra)

  def groups(self) -> list[tuple[np.ndarray, Cameras]]:
    """Returns view indices and cameras of each image size, in the order of first appearance."""
    sizes = [(int(w), int(h)) for w, h in self.sizes]
    groups = []
    for width, height in dict.fromkeys(sizes):
      index = np.array([i for i, size in enumerate(sizes) if size == (width, height)])
      groups.append((index, self.cameras(index, width, height)))
    return groups

  def cameras(self, index: Any, width: int, height: int) -> Cameras:
    """Returns views as float32 cameras.

    Args:
      index: the views, as NumPy indexes an axis.
      width: of their images, pixels.
      height: likewise.
    """
    return Cameras(
      world_to_camera=self.world_to_camera[index].astype(np.float32),
      intrinsics=self.intrinsics[index].astype(np.float32),
      width=width,
      height=height,
    )


def read_cameras(path: str | os.PathLike[str]) -> CameraFile:
  """Reads a camera file, or the one of a scene folder, without its images.

  Raises:
    InputError: broken JSON; missing keys, `w` and `h` included; no camera, or an impossible one.
  """
  path = pathlib.Path(path)
  if path.is_dir():
    path = path / CAMERAS_FILE
  parsed = parse(path)
  for i, (w, h) in enumerate(parsed.sizes):
    if w == 0 or h == 0:
      raise InputError(
        path, f"frames[{i}].{'w' if w == 0 else 'h'}", "missing; expected pixels > 0"
      )
  return parsed


def cameras_json(
  cameras: Cameras | Sequence[Cameras],
  names: Sequence[str],
  *,
  scene_id: str,
  extra: dict[str, Any] | None = None,
  frame_extra: Sequence[dict[str, Any]] | None = None,
) -> str:
  """Returns the text of a camera file, one line per frame.

  Args:
    cameras: (V,) cameras of one image size, or several batches or single cameras of any sizes.
    names: V image paths relative to the scene folder.
    scene_id: the scene's id.
    extra: more top-level keys.
    frame_extra: more keys for each frame.

  Returns:
    the JSON text.

  Raises:
    ValueError: the counts differ, or a number is not finite.
  """
  batches = [cameras] if isinstance(cameras, Cameras) else list(cameras)
  poses = [w2c for b in batches for w2c in np.asarray(b.world_to_camera).reshape(-1, 4, 4)]
  intrinsics = [k for b in batches for k in np.asarray(b.intrinsics).reshape(-1, 4)]
  sizes = [(b.width, b.height) for b in batches for _ in np.asarray(b.intrinsics).reshape(-1, 4)]
  extras = list(frame_extra) if frame_extra is not None else [{} for _ in poses]
  if not len(poses) == len(names) == len(extras):
    raise ValueError(
      f"{len(poses)} cameras, {len(names)} names, {len(extras)} extras: expected as many of each"
    )
  frames = []
  for w2c, k, size, name, more in zip(poses, intrinsics, sizes, names, extras, strict=True):
    numbers = [*size, *k.astype(np.float64).tolist()]
    frame = {**more, **dict(zip(_FRAME_KEYS, numbers, strict=False)), "w2c": w2c.tolist()}
    frames.append(json.dumps({**frame, "file_path": name}, allow_nan=False))
  more = {k: v for k, v in (extra or {}).items() if k not in ("id", "frames")}
  head = json.dumps({"id": scene_id, **more}, allow_nan=False)[:-1]
  return head + ', "frames": [\n  ' + ",\n  ".join(frames) + "\n]}\n"


def write_scene_cameras(
  folder: str | os.PathLike[str],
  cameras: Cameras | Sequence[Cameras],
  names: Sequence[str],
  *,
  scene_id: str | None = None,
  extra: dict[str, Any] | None = None,
  frame_extra: Sequence[dict[str, Any]] | None = None,
) -> pathlib.Path:
  """Writes the camera file of a scene in one step.

  Args:
    folder: the scene; its name is the default of `scene_id`.
    cameras: as in `cameras_json`, like the rest.
    names: likewise.
    scene_id: likewise.
    extra: likewise.
    frame_extra: likewise.

  Returns:
    the file's path.
  """
  path = pathlib.Path(folder) / CAMERAS_FILE
  text = cameras_json(
    cameras, names, scene_id=scene_id or path.parent.name, extra=extra, frame_extra=frame_extra
  )
  atomic.write_bytes(path, text.encode())
  return path


def parse(path: pathlib.Path) -> CameraFile:
  """Reads a camera file in which `w` and `h` may be missing; such sizes are 0."""
  data = checks.read_json(path)
  frames = data.get("frames")
  if not isinstance(frames, list) or not frames:
    raise InputError(path, "frames", "missing or empty; expected a list of cameras")
  rows = [_parse_frame(path, f"frames[{i}]", frame) for i, frame in enumerate(frames)]
  poses, intrinsics, sizes, names = (list(column) for column in zip(*rows, strict=True))
  identifier = data.get("id", path.absolute().parent.name)
  if not isinstance(identifier, (str, int)):
    raise InputError(path, "id", f"{short(identifier)}; expected a text")
  return CameraFile(
    world_to_camera=np.stack(poses),
    intrinsics=np.array(intrinsics, np.float64),
    sizes=np.array(sizes, np.int64),
    names=tuple(names),
    id=str(identifier),
    extra={k: v for k, v in data.items() if k not in ("id", "frames")},
    frame_extra=tuple({k: v for k, v in f.items() if k not in _FRAME_KEYS} for f in frames),
  )


def _parse_frame(
  path: pathlib.Path, field: str, frame: Any
) -> tuple[np.ndarray, list[float], list[int], str]:
  if not isinstance(frame, dict):
    raise InputError(path, field, f"{short(frame)}; expected an object with {_FRAME_KEYS}")
  missing = [key for key in _FRAME_KEYS[2:] if key not in frame]
  if missing:
    raise InputError(path, f"{field}.{missing[0]}", f"missing; expected {', '.join(_FRAME_KEYS)}")
  fx, fy, cx, cy = (_number(path, f"{field}.{k}", frame[k]) for k in ("fx", "fy", "cx", "cy"))
  for key, value in (("fx", fx), ("fy", fy)):
    if value <= 0:
      raise InputError(path, f"{field}.{key}", f"{value:g}; expected a focal length > 0 in pixels")
  sizes = [_pixels(path, f"{field}.{key}", frame[key]) if key in frame else 0 for key in "wh"]
  name = frame["file_path"]
  for key in ("file_path", *([OBSERVED_KEY] if OBSERVED_KEY in frame else [])):
    given = frame[key]
    if not isinstance(given, str) or not given.strip() or not given.isprintable():
      raise InputError(path, f"{field}.{key}", f"{short(given)}; expected a relative path")
  return _pose(path, f"{field}.w2c", frame["w2c"]), [fx, fy, cx, cy], sizes, name


def _number(path: pathlib.Path, field: str, value: Any) -> float:
  if isinstance(value, bool) or not isinstance(value, (int, float)):
    raise InputError(path, field, f"{short(value)}; expected a number")
  if not abs(value) < 1e30:  # NaN fails this too; what is larger would not fit float32
    raise InputError(path, field, f"{short(value)}; expected a finite number")
  return float(value)


def _pixels(path: pathlib.Path, field: str, value: Any) -> int:
  number = _number(path, field, value)
  if number != int(number) or not 0 < number <= images.MAX_SIDE:
    raise InputError(path, field, f"{number:g}; expected whole pixels from 1 to {images.MAX_SIDE}")
  return int(number)


def _pose(path: pathlib.Path, field: str, value: Any) -> np.ndarray:
  if not (
    isinstance(value, list)
    and len(value) == 4
    and all(isinstance(row, list) and len(row) == 4 for row in value)
  ):
    raise InputError(path, field, "expected a 4x4 matrix as a list of four rows of four numbers")
  matrix = np.array(
    [
      [_number(path, f"{field}[{r}][{c}]", x) for c, x in enumerate(row)]
      for r, row in enumerate(value)
    ]
  )
  _check_rigid(path, field, matrix)
  return matrix


def _check_rigid(path: pathlib.Path, field: str, matrix: np.ndarray) -> None:
  if np.abs(matrix[3] - [0, 0, 0, 1]).max() > 1e-6:
    problem = f"last row {matrix[3].tolist()}; expected [0, 0, 0, 1]"
    if np.abs(matrix[:, 3] - [0, 0, 0, 1]).max() <= 1e-6:
      problem += " (the matrix is transposed: the translation belongs in the last column)"
    raise InputError(path, field, problem)
  checks.rotation(path, field, matrix[:3, :3])
