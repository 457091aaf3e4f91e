"""COLMAP sparse models, text or binary: a still scene with one camera for each registered image.

    FOLDER/sparse/0/cameras.{bin,txt} images.{bin,txt}     or FOLDER/sparse, or FOLDER itself
    FOLDER/images/NAME                                     the photographs
    FOLDER/masks/NAME.png                                  or NAME with another suffix (optional)

Poses are OpenCV's world-to-camera, and COLMAP's pixel centres are at +0.5 already: nothing is
added. The world has no unit; the cameras define up. Distortion is OpenCV's, of the models
SIMPLE_PINHOLE, PINHOLE, SIMPLE_RADIAL, RADIAL and OPENCV, and FULL_OPENCV without k4 k5 k6.

Unsupported: every other camera model; rigs and frames of COLMAP 3.12 (images are read one by one).
"""

from __future__ import annotations

import dataclasses
import os
import pathlib
import struct
from collections.abc import Sequence

import numpy as np

from jaxsplat_mouse.capture import rig_checks
from jaxsplat_mouse.capture.raw_capture import Capture, Stream
from jaxsplat_mouse.capture.rig import Rig
from jaxsplat_mouse.errors import InputError, reason
from jaxsplat_mouse.io import checks, images

# In the order of COLMAP's model numbers: the name, and the number of parameters; 0 is unsupported.
MODELS = (
  ("SIMPLE_PINHOLE", 3),
  ("PINHOLE", 4),
  ("SIMPLE_RADIAL", 4),
  ("RADIAL", 5),
  ("OPENCV", 8),
  ("OPENCV_FISHEYE", 0),
  ("FULL_OPENCV", 12),
  ("FOV", 0),
  ("SIMPLE_RADIAL_FISHEYE", 0),
  ("RADIAL_FISHEYE", 0),
  ("THIN_PRISM_FISHEYE", 0),
)
_READABLE = {name: count for name, count in MODELS if count}
_QUATERNION_TOLERANCE = 1e-3  # of its length, from 1
_POINT_BYTES = 24
_MASK_SUFFIXES = (".png", ".jpg", ".jpeg")


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Camera:
  """A lens: K (3, 3), distortion (5,) k1 k2 p1 p2 k3, and width and height of its images."""

  matrix: np.ndarray
  distortion: np.ndarray
  size: tuple[int, int]


@dataclasses.dataclass(frozen=True, kw_only=True)
class _Image:
  """A registered image: its file name, the id of its lens, its world-to-camera pose (4, 4)."""

  name: str
  camera: int
  pose: np.ndarray


def read_capture(path: str | os.PathLike[str]) -> Capture:
  """Reads a model and finds its images, which become the cameras, sorted by name.

  Raises:
    InputError: a file is missing, broken or cut short, a camera model is unsupported, a value is
      invalid, or an image or mask is missing, has another size or lies outside of the folder.
  """
  path = pathlib.Path(path)
  model = _find_model(path)
  file, shots, lenses = _read_model(model)
  files = [
    checks.path_inside(path / "images", shot.name, file, checks.one_line(shot.name))
    for shot in shots
  ]
  for photograph, lens, shot in zip(files, lenses, shots, strict=True):
    size = images.read_image_size(photograph, shot.name)
    checks.check_same_size(photograph, shot.name, size, lens.size)
  rig = Rig(
    names=checks.camera_names([shot.name for shot in shots]),
    matrices=np.stack([lens.matrix for lens in lenses]),
    world_to_camera=np.stack([shot.pose for shot in shots]),
    distortion=np.stack([lens.distortion for lens in lenses]),
    sizes=np.array([lens.size for lens in lenses]),
  )
  return Capture(
    path=path,
    rig=rig_checks.check_rig(file, rig),
    pictures=tuple(Stream(images=(f,)) for f in files),
    masks=_find_masks(path / "masks", shots, lenses),
    frames=np.zeros((1, len(shots)), np.int64),
    moments=np.zeros(1, np.int64),
    up="cameras",
  )


def write_rig(capture: Capture, refined: Rig, folder: pathlib.Path) -> None:
  """Writes the cameras as a text model with the names of the capture's images.

  Args:
    capture: the capture as it was read.
    refined: its cameras.
    folder: where the model is written.
  """
  names = [s.images[0].relative_to(capture.path / "images").as_posix() for s in capture.pictures]
  write_text_model(refined, names, folder)


def write_text_model(rig: Rig, names: Sequence[str], folder: pathlib.Path) -> None:
  """Writes cameras as a sparse model in text, without points: a start with known poses.

  Args:
    rig: V cameras of known sizes.
    names: V names of images.
    folder: where `cameras.txt`, `images.txt` and `points3D.txt` are written.

  Raises:
    ValueError: a camera has a skew, which no model of COLMAP has.
  """
  cameras = ["# CAMERA_ID MODEL WIDTH HEIGHT PARAMS"]
  shots = ["# IMAGE_ID QW QX QY QZ TX TY TZ CAMERA_ID NAME, then its points: none"]
  for i, name in enumerate(names):
    matrix, lens, pose = rig.matrices[i], rig.distortion[i], rig.world_to_camera[i]
    if matrix[0, 1] != 0:
      problem = f"{rig.names[i]} has a skew of {matrix[0, 1]:.3g} px"
      raise ValueError(f"{problem}; COLMAP has no model with one")
    values = [matrix[0, 0], matrix[1, 1], matrix[0, 2], matrix[1, 2], *lens[:4]]
    model = "OPENCV"
    if lens[4]:
      model, values = "FULL_OPENCV", [*values, lens[4], 0, 0, 0]
    width, height = rig.sizes[i]
    cameras.append(f"{i + 1} {model} {width} {height} {_words(values)}")
    numbers = [*_quaternion(pose[:3, :3]), *pose[:3, 3]]
    shots += [f"{i + 1} {_words(numbers)} {i + 1} {name}", ""]
  (folder / "cameras.txt").write_text("\n".join(cameras) + "\n")
  (folder / "images.txt").write_text("\n".join(shots) + "\n")
  (folder / "points3D.txt").write_text("")


def _words(numbers: Sequence[float]) -> str:
  return " ".join(repr(float(number)) for number in numbers)


def _quaternion(rotation: np.ndarray) -> np.ndarray:
  """Quaternion w x y z of a rotation (3, 3), or of the nearest to it (Bar-Itzhack 2000)."""
  (a, b, c), (d, e, f), (g, h, i) = rotation
  matrix = np.array(
    [
      [a - e - i, b + d, c + g, h - f],
      [b + d, e - a - i, f + h, c - g],
      [c + g, f + h, i - a - e, d - b],
      [h - f, c - g, d - b, a + e + i],
    ]
  )
  x, y, z, w = np.linalg.eigh(matrix)[1][:, -1]
  return np.array([w, x, y, z]) if w >= 0 else -np.array([w, x, y, z])


def _find_model(path: pathlib.Path) -> pathlib.Path:
  """Returns the folder of the sparse model."""
  candidates = [path / "sparse" / "0", path / "sparse", path]
  for folder in candidates:
    for suffix in (".bin", ".txt"):
      if (folder / f"images{suffix}").is_file():
        return folder
  expected = "expected images.bin or images.txt in sparse/0, sparse or the folder itself"
  raise InputError(path, "", f"no sparse model; {expected}")


def _read_model(folder: pathlib.Path) -> tuple[pathlib.Path, list[_Image], list[_Camera]]:
  """Reads a sparse model: the file of images, the images sorted by name, and their lenses."""
  suffix = ".bin" if (folder / "images.bin").is_file() else ".txt"
  read_cameras, read_images = (
    (_binary_cameras, _binary_images) if suffix == ".bin" else (_text_cameras, _text_images)
  )
  cameras = read_cameras(folder / f"cameras{suffix}")
  file = folder / f"images{suffix}"
  shots = sorted(read_images(file), key=lambda shot: shot.name)
  if not shots:
    raise InputError(file, "", "no image; expected the registered images of a capture")
  for shot in shots:
    if shot.camera not in cameras:
      problem = f"camera {shot.camera} is not in cameras{suffix}; expected one that is"
      raise InputError(file, shot.name, problem)
  return file, shots, [cameras[shot.camera] for shot in shots]


def _find_masks(
  folder: pathlib.Path, shots: list[_Image], lenses: list[_Camera]
) -> tuple[Stream, ...] | None:
  """Returns one mask for each image; None if there is no folder of masks."""
  if not folder.is_dir():
    return None
  found = []
  for shot, lens in zip(shots, lenses, strict=True):
    stem = str(pathlib.PurePosixPath(shot.name).with_suffix(""))
    names = [f"{shot.name}.png", shot.name, *(stem + suffix for suffix in _MASK_SUFFIXES)]
    files = [f for n in names if (f := checks.path_inside(folder, n, folder, shot.name)).is_file()]
    if not files:
      raise InputError(folder, shot.name, f"no mask; expected {names[0]} beside the others")
    size = images.read_image_size(files[0], shot.name)
    checks.check_same_size(files[0], shot.name, size, lens.size)
    found.append(Stream(images=(files[0],)))
  return tuple(found)


def _camera(
  path: pathlib.Path, field: str, model: str, size: tuple[int, int], values: list[float]
) -> _Camera:
  """Builds a camera.

  Args:
    path: the file, for messages.
    field: the camera in the file, for messages.
    model: COLMAP's name of the camera model.
    size: width and height of its images, pixels.
    values: the model's parameters, in COLMAP's order.
  """
  if model not in _READABLE:
    problem = f"camera model {checks.one_line(model)}; expected one of {', '.join(_READABLE)}"
    raise InputError(path, field, f"{problem} (undistort the images with COLMAP first)")
  p = checks.numbers(path, field, values, (_READABLE[model],))
  shared = model not in ("PINHOLE", "OPENCV", "FULL_OPENCV")  # one focal length for both axes
  fx, fy, cx, cy, *rest = [p[0], *p] if shared else p
  k1, k2, p1, p2, k3, *rational = [*rest, *[0.0] * 8][:8]
  if any(rational):
    problem = f"FULL_OPENCV with k4 k5 k6 of {_words(rational)}; expected 0 0 0"
    raise InputError(path, field, f"{problem} (undistort the images with COLMAP first)")
  matrix = np.array([[fx, 0.0, cx], [0.0, fy, cy], [0.0, 0.0, 1.0]])
  return _Camera(
    matrix=checks.intrinsics(path, field, matrix),
    distortion=np.array([k1, k2, p1, p2, k3]),
    size=images.check_image_size(path, field, size),
  )


def _image(path: pathlib.Path, name: str, values: list[float], camera: int) -> _Image:
  """Builds an image.

  Args:
    path: the file, for messages.
    name: of the image file.
    values: qw qx qy qz tx ty tz.
    camera: id of its camera.
  """
  pose = checks.numbers(path, checks.one_line(name), values, (7,))
  length = float(np.linalg.norm(pose[:4]))
  if abs(length - 1.0) > _QUATERNION_TOLERANCE:
    problem = f"a quaternion of length {length:.4g}; expected a rotation, of length 1"
    raise InputError(path, checks.one_line(name), problem)
  w, x, y, z = pose[:4] / length
  rotation = np.array(
    [
      [1 - 2 * (y * y + z * z), 2 * (x * y - w * z), 2 * (x * z + w * y)],
      [2 * (x * y + w * z), 1 - 2 * (x * x + z * z), 2 * (y * z - w * x)],
      [2 * (x * z - w * y), 2 * (y * z + w * x), 1 - 2 * (x * x + y * y)],
    ]
  )
  return _Image(name=name, camera=camera, pose=checks.pose_matrix(rotation, pose[4:]))


# --------------------------------------------------------------------------------------- text


def _lines(path: pathlib.Path) -> list[tuple[int, str]]:
  """Returns numbered lines without comments, but with empty ones: images may lack points."""
  try:
    text = path.read_text(encoding="utf-8")
  except (OSError, UnicodeDecodeError) as error:
    raise InputError(
      path, "", f"cannot be read ({reason(error)}); expected COLMAP's text"
    ) from None
  lines = [line.strip() for line in text.splitlines()]
  return [(i, line) for i, line in enumerate(lines, 1) if not line.startswith("#")]


def _text_cameras(path: pathlib.Path) -> dict[int, _Camera]:
  found = {}
  for number, line in _lines(path):
    if not line:
      continue
    words = line.split()
    try:
      key, size = int(words[0]), (int(words[2]), int(words[3]))
      values = [float(word) for word in words[4:]]
    except (ValueError, IndexError):
      expected = "expected CAMERA_ID MODEL WIDTH HEIGHT PARAMS"
      raise InputError(path, f"line {number}", f"{checks.one_line(line)}; {expected}") from None
    found[key] = _camera(path, f"line {number}", words[1], size, values)
  return found


def _text_images(path: pathlib.Path) -> list[_Image]:
  """Reads images: every other line is an image, the line after it lists its points."""
  lines = _lines(path)
  while lines and not lines[-1][1]:
    lines.pop()
  found = []
  for number, line in lines[::2]:
    words = line.split(maxsplit=9)
    try:
      values, camera, name = [float(word) for word in words[1:8]], int(words[8]), words[9]
    except (ValueError, IndexError):
      expected = "expected IMAGE_ID QW QX QY QZ TX TY TZ CAMERA_ID NAME, points on the next line"
      raise InputError(path, f"line {number}", f"{checks.one_line(line)}; {expected}") from None
    found.append(_image(path, name, values, camera))
  return found


# ------------------------------------------------------------------------------------- binary


class _Bytes:
  """Reads a file's bytes, one value after the other."""

  def __init__(self, path: pathlib.Path):
    self._path, self._at = path, 0
    try:
      self._data = path.read_bytes()
    except OSError as error:
      problem = f"cannot be read ({reason(error)}); expected COLMAP's binary file"
      raise InputError(path, "", problem) from None

  def take(self, layout: str, what: str) -> tuple:
    """Reads the values of a little-endian `struct` layout; `what` names them in messages."""
    size = struct.calcsize("<" + layout)
    self.skip(size, what)
    return struct.unpack_from("<" + layout, self._data, self._at - size)

  def skip(self, size: int, what: str) -> None:
    """Moves on by `size` bytes."""
    if self._at + size > len(self._data):
      problem = f"cut short: {what} at byte {self._at} takes {size} bytes, {len(self._data)} in all"
      raise InputError(self._path, what, f"{problem}; expected a whole file")
    self._at += size

  def text(self, what: str) -> str:
    """Reads text up to a zero byte."""
    end = self._data.find(b"\0", self._at)
    if end < 0:
      raise InputError(self._path, what, "cut short: a name without end; expected a whole file")
    raw, self._at = self._data[self._at : end], end + 1
    return raw.decode("utf-8", "replace")


def _binary_cameras(path: pathlib.Path) -> dict[int, _Camera]:
  data, found = _Bytes(path), {}
  (count,) = data.take("Q", "count")
  for i in range(count):
    field = f"camera {i}"
    key, number, width, height = data.take("iiQQ", field)
    model, parameters = MODELS[number] if 0 <= number < len(MODELS) else (f"number {number}", 0)
    values = list(data.take(f"{parameters}d", field))
    found[key] = _camera(path, field, model, (width, height), values)
  return found


def _binary_images(path: pathlib.Path) -> list[_Image]:
  data, found = _Bytes(path), []
  (count,) = data.take("Q", "count")
  for i in range(count):
    field = f"image {i}"
    _, *values, camera = data.take("i7di", field)
    name = data.text(field)
    (points,) = data.take("Q", field)
    data.skip(points * _POINT_BYTES, field)
    found.append(_image(path, name, values, camera))
  return found
