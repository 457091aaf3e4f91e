"""NeRF's `transforms.json`, as instant-ngp, nerfstudio and Blender's exporter write it.

    {"fl_x", "fl_y", "cx", "cy", "w", "h", "camera_angle_x", "k1", "k2", "k3", "p1", "p2",
     "frames": [{"file_path", "transform_matrix", "mask_path", "time", and any of the above}]}

`transform_matrix` is camera-to-world with OpenGL axes (y up, z backwards). Pixel centres are at
+0.5: Blender's centre is w / 2, and cx, cy of the other tools come from COLMAP, so nothing is
added. The world has no unit; the cameras define up, since only some tools align the world.

Every frame is a camera. If frames have more than one `time`, the frames of one pose are one camera,
and every time is a moment, numbered in order. Images with alpha need no `mask_path`.

Unsupported: camera models other than pinholes with k1 k2 p1 p2 k3 (no fisheye, no k4).
"""

from __future__ import annotations

import json
import math
import os
import pathlib
from typing import Any

import numpy as np

from jaxsplat_mouse.capture import rig_checks
from jaxsplat_mouse.capture.pose_conventions import OPENGL_AXES
from jaxsplat_mouse.capture.raw_capture import Capture, Stream
from jaxsplat_mouse.capture.rig import Rig
from jaxsplat_mouse.errors import InputError
from jaxsplat_mouse.io import checks, images

CAMERAS_FILE = "transforms.json"
_MODELS = ("OPENCV", "PINHOLE", "SIMPLE_PINHOLE", "SIMPLE_RADIAL", "RADIAL")
_SUFFIXES = ("", ".png", ".jpg", ".jpeg")  # Blender's exporter omits the suffix
_DISTORTION = ("k1", "k2", "p1", "p2", "k3")


def read_capture(path: str | os.PathLike[str]) -> Capture:
  """Reads a `transforms.json`, or the one in a folder.

  Raises:
    InputError: the file is broken, a value is missing or invalid, or a path is absolute, leads out
      of the folder or is not an image.
  """
  path = pathlib.Path(path)
  file = path / CAMERAS_FILE if path.is_dir() else path
  shots = _read_shots(file)
  cameras, times = _group_cameras(shots)
  first = [min(camera.values(), key=lambda shot: shot.time) for camera in cameras]
  joined = np.full((len(times), len(cameras)), -1, np.int64)
  for v, camera in enumerate(cameras):
    joined[[times.index(time) for time in sorted(camera)], v] = np.arange(len(camera))
  rig = Rig(
    names=checks.camera_names([shot.name for shot in first]),
    matrices=np.stack([shot.matrix for shot in first]),
    world_to_camera=np.stack([shot.pose for shot in first]),
    distortion=np.stack([shot.distortion for shot in first]),
    sizes=np.array([shot.size for shot in first]),
  )
  streams = [[camera[time] for time in sorted(camera)] for camera in cameras]
  masks = tuple(Stream(images=tuple(s.mask for s in stream if s.mask)) for stream in streams)
  return Capture(
    path=path,
    rig=rig_checks.check_rig(file, rig),
    pictures=tuple(Stream(images=tuple(s.image for s in stream)) for stream in streams),
    masks=masks if shots[0].mask else None,
    frames=joined,
    moments=np.arange(len(times), dtype=np.int64),
    up="cameras",
  )


def write_rig(capture: Capture, refined: Rig, folder: pathlib.Path) -> None:
  """Writes a copy of the recording's JSON with other cameras.

  Args:
    capture: the recording as it was read.
    refined: its cameras as they are to be read from the copy.
    folder: where the copy is written.

  Raises:
    InputError: the file can no longer be read.
  """
  file = capture.path / CAMERAS_FILE if capture.path.is_dir() else capture.path
  data = checks.read_json(file)
  shots = _read_shots(file)
  cameras, _ = _group_cameras(shots)
  numbers, given = {id(shot): i for i, shot in enumerate(shots)}, capture.rig
  for view, camera in enumerate(cameras):
    changed = {}
    if not np.array_equal(given.world_to_camera[view], refined.world_to_camera[view]):
      pose = np.linalg.inv(refined.world_to_camera[view]) @ OPENGL_AXES
      changed["transform_matrix"] = pose.tolist()
    if not np.array_equal(given.matrices[view], refined.matrices[view]):
      matrix = refined.matrices[view]
      changed |= {"fl_x": matrix[0, 0], "fl_y": matrix[1, 1], "cx": matrix[0, 2]}
      changed |= {"cy": matrix[1, 2]}
    for shot in camera.values():
      data["frames"][numbers[id(shot)]] |= changed
  (folder / CAMERAS_FILE).write_text(json.dumps(data, indent=2, allow_nan=False) + "\n")


def _read_shots(file: pathlib.Path) -> list[_Shot]:
  """Reads all frames; either all of them have masks or none has."""
  data = checks.read_json(file)
  frames = data.get("frames")
  if not isinstance(frames, list) or not frames:
    raise InputError(file, "frames", "missing or empty; expected a list of frames")
  shots = [_Shot(file, data, frame, f"frames[{i}]") for i, frame in enumerate(frames)]
  masked = [shot.mask is not None for shot in shots]
  if any(masked) and not all(masked):
    field = f"frames[{masked.index(False)}].mask_path"
    raise InputError(file, field, "missing; expected a mask for every frame or for none")
  return shots


class _Shot:
  """One frame: its camera, its time, its files."""

  def __init__(self, file: pathlib.Path, data: dict[str, Any], frame: Any, field: str):
    if not isinstance(frame, dict):
      raise InputError(file, field, f"{checks.one_line(frame)}; expected an object")
    self.file, self.field = file, field
    self._values = {**data, **frame}
    self._frame = frame
    self.image = self._find("file_path")
    self.name = str(frame["file_path"])
    self.mask = self._find("mask_path") if "mask_path" in frame else None
    self.time = self._number("time", 0.0)
    self.size = images.read_image_size(self.image, f"{field}.file_path")
    stated = (int(self._number("w", 0.0)), int(self._number("h", 0.0)))
    checks.check_same_size(file, f"{field}.file_path", self.size, stated)
    if self.mask is not None:
      mask_size = images.read_image_size(self.mask, f"{field}.mask_path")
      checks.check_same_size(file, f"{field}.mask_path", mask_size, self.size)
    self.matrix, self.distortion, self.pose = self._matrix(), self._lens(), self._pose()

  @property
  def camera(self) -> bytes:
    """A key that frames of one camera share."""
    return b"".join(a.tobytes() for a in (self.matrix, self.distortion, self.pose))

  def _number(self, key: str, default: float | None = None) -> float:
    if key not in self._values and default is not None:
      return default
    value = checks.get_field(self.file, self.field, self._values, key)
    return float(checks.numbers(self.file, f"{self.field}.{key}", value, ()))

  def _find(self, key: str) -> pathlib.Path:
    """Finds the image of a path, which may lack its suffix."""
    field = f"{self.field}.{key}"
    name = checks.get_field(self.file, self.field, self._frame, key)
    checks.path_inside(self.file.parent, name, self.file, field)
    for suffix in _SUFFIXES:
      found = checks.path_inside(self.file.parent, f"{name}{suffix}", self.file, field)
      if found.is_file():
        return found
    raise InputError(
      self.file, field, f"{checks.one_line(name)}: no such image; expected a PNG or JPEG"
    )

  def _matrix(self) -> np.ndarray:
    if "fl_x" in self._values:
      focal = self._number("fl_x")
    else:
      angle = self._number("camera_angle_x")
      if not 0 < angle < math.pi:
        problem = f"{angle:g}; expected an angle between 0 and pi in radians"
        raise InputError(self.file, f"{self.field}.camera_angle_x", problem)
      focal = 0.5 * self.size[0] / math.tan(0.5 * angle)
    width, height = self.size
    cx, cy = self._number("cx", 0.5 * width), self._number("cy", 0.5 * height)
    other = self._number("fl_y", focal)
    matrix = np.array([[focal, 0.0, cx], [0.0, other, cy], [0.0, 0.0, 1.0]])
    return checks.intrinsics(self.file, f"{self.field} (fl_x, fl_y, cx, cy)", matrix)

  def _lens(self) -> np.ndarray:
    model = self._values.get("camera_model", "OPENCV")
    if model not in _MODELS or self._values.get("is_fisheye"):
      problem = f"{checks.one_line(model)}; expected one of {', '.join(_MODELS)}"
      raise InputError(self.file, f"{self.field}.camera_model", problem)
    if self._number("k4", 0.0) != 0.0:
      raise InputError(self.file, f"{self.field}.k4", "not 0; expected k1 k2 k3 p1 p2 only")
    return np.array([self._number(key, 0.0) for key in _DISTORTION])

  def _pose(self) -> np.ndarray:
    field = f"{self.field}.transform_matrix"
    value = checks.get_field(self.file, self.field, self._frame, "transform_matrix")
    matrix = checks.numbers(self.file, field, value, (4, 4))
    if np.abs(matrix[3] - [0, 0, 0, 1]).max() > 1e-6:
      problem = f"last row {matrix[3].tolist()}; expected [0, 0, 0, 1]"
      if np.abs(matrix[:3, 3]).max() <= 1e-6:
        problem += " (the matrix is transposed: the translation belongs in the last column)"
      raise InputError(self.file, field, problem)
    checks.rotation(self.file, field, matrix[:3, :3])
    return np.linalg.inv(matrix @ OPENGL_AXES)


def _group_cameras(shots: list[_Shot]) -> tuple[list[dict[float, _Shot]], list[float]]:
  """Returns the frames of each camera by time, and all times.

  With a single time, each frame is a camera of its own.
  """
  times = sorted({shot.time for shot in shots})
  if len(times) == 1:
    return [{shot.time: shot} for shot in shots], times
  cameras: dict[bytes, dict[float, _Shot]] = {}
  for shot in shots:
    own = cameras.setdefault(shot.camera, {})
    if shot.time in own:
      problem = f"the same camera and time as {own[shot.time].field}; expected one image of each"
      raise InputError(shot.file, shot.field, problem)
    own[shot.time] = shot
  if not any(all(time in camera for camera in cameras.values()) for time in times):
    problem = f"no time is common to all {len(cameras)} cameras (poses); expected fixed cameras"
    raise InputError(shots[0].file, "frames.time", problem)
  return list(cameras.values()), times
