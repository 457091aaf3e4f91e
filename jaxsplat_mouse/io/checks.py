"""Checks of single values that readers of calibrations share.

Every function takes the file (`path`) and the field that the value comes from and raises
`InputError` with both. Rotations may differ from orthonormal ones by `ROTATION_TOLERANCE`, since
some files have four decimals; they are kept as they are. Checks of all cameras together are in
`capture.rig_checks`.
"""

from __future__ import annotations

import json
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxsplat_mouse.errors import InputError, reason, short

ROTATION_TOLERANCE = 1e-3  # largest entry of |R R' - 1|
_MAX_NUMBER = 1e30  # larger numbers do not fit float32
_MAX_JSON_BYTES = 256 << 20


def one_line(value: Any) -> str:
  """Returns a value, arrays included, as one line of at most 60 characters for a message."""
  return " ".join(short(value).split())


def numbers(
  path: pathlib.Path, field: str, value: Any, shape: tuple[int | None, ...]
) -> np.ndarray:
  """Returns a value as a float64 array of finite numbers.

  Args:
    path: the file, for messages.
    field: the field, for messages.
    value: an array, a number or nested lists.
    shape: the expected shape; None stands for any length.

  Raises:
    InputError: the value is something else.
  """
  expected = f"expected {' x '.join('N' if n is None else str(n) for n in shape) or 'one'} numbers"
  try:
    array = np.asarray(value)
  except ValueError:  # lists of unequal lengths
    raise InputError(path, field, f"{one_line(value)}; {expected}") from None
  if array.dtype.kind not in "iuf":
    raise InputError(path, field, f"{one_line(value)}; {expected}")
  fits = array.ndim == len(shape) and all(
    n in (None, m) for n, m in zip(shape, array.shape, strict=True)
  )
  if not fits:
    raise InputError(path, field, f"shape {array.shape}; {expected}")
  array = array.astype(np.float64)
  if not np.all(np.abs(array) < _MAX_NUMBER):  # NaN fails this too
    raise InputError(path, field, f"not finite or absurdly large; {expected}")
  return array


def get_field(path: pathlib.Path, field: str, mapping: Any, key: str) -> Any:
  """Returns `mapping[key]`.

  Args:
    path: the file, for messages.
    field: where the mapping is in the file, for messages; "" at the top.
    mapping: a dict.
    key: the wanted key.

  Raises:
    InputError: `mapping` is not a dict or lacks the key; the message lists its keys.
  """
  if not isinstance(mapping, dict):
    raise InputError(path, field, f"{one_line(mapping)}; expected fields, {key} among them")
  if key not in mapping:
    found = ", ".join(sorted(str(k) for k in mapping)[:12]) or "nothing"
    where = f"{field}.{key}" if field else key
    raise InputError(path, where, f"missing; found {found}"[:300])
  return mapping[key]


def read_json(path: pathlib.Path) -> dict[str, Any]:
  """Reads a JSON file that contains an object.

  Raises:
    InputError: there is no such file, or it is too large, not JSON or not an object.
  """
  try:
    if path.stat().st_size > _MAX_JSON_BYTES:
      raise InputError(path, "", f"larger than {_MAX_JSON_BYTES >> 20} MiB; expected cameras")
    data = json.loads(path.read_text(encoding="utf-8"))
  except InputError:
    raise
  except FileNotFoundError:
    raise InputError(path, "", "no such file; expected JSON with the cameras") from None
  except (OSError, ValueError, RecursionError) as error:
    raise InputError(path, "", f"not readable as JSON ({reason(error)})") from None
  if not isinstance(data, dict):
    raise InputError(path, "", f"{type(data).__name__}; expected an object")
  return data


def rotation(path: pathlib.Path, field: str, value: Any) -> np.ndarray:
  """Returns a rotation (3, 3): determinant +1, orthonormal to `ROTATION_TOLERANCE`.

  Args:
    path: the file, for messages.
    field: the field, for messages.
    value: its value.

  Raises:
    InputError: it is not a rotation; the message distinguishes mirrored and scaled matrices.
  """
  matrix = numbers(path, field, value, (3, 3))
  determinant = float(np.linalg.det(matrix))
  gram = matrix @ matrix.T
  off = float(np.abs(gram - np.eye(3)).max())
  if off > ROTATION_TOLERANCE:
    scale = float(np.trace(gram) / 3) ** 0.5
    scaled = scale > 0 and np.abs(gram / scale**2 - np.eye(3)).max() <= ROTATION_TOLERANCE
    hint = f" (a scale of {scale:.6g} is folded into it)" if scaled else ""
    problem = f"not a rotation: R R^T differs from 1 by {off:.2g}, determinant {determinant:.3f}"
    raise InputError(path, field, f"{problem}; expected orthonormal rows{hint}")
  if determinant < 0:
    problem = f"mirrored, determinant {determinant:.3f}; expected a rotation, determinant +1"
    hint = "one axis is flipped, as in [right, up, forward], or the world is left-handed"
    raise InputError(path, field, f"{problem} ({hint})")
  return matrix


def intrinsics(path: pathlib.Path, field: str, value: Any) -> np.ndarray:
  """Returns K (3, 3) = [[fx, s, cx], [0, fy, cy], [0, 0, 1]] with focal lengths > 0, pixels.

  Args:
    path: the file, for messages.
    field: the field, for messages.
    value: its value.

  Raises:
    InputError: it has another form.
  """
  matrix = numbers(path, field, value, (3, 3))
  below = np.abs([matrix[1, 0], matrix[2, 0], matrix[2, 1], matrix[2, 2] - 1.0])
  if below.max() > 1e-6:
    upside = np.abs([matrix[0, 1], matrix[0, 2], matrix[1, 2], matrix[2, 2] - 1.0]).max() <= 1e-6
    hint = " (it is transposed)" if upside else ""
    expected = "expected [[fx, s, cx], [0, fy, cy], [0, 0, 1]]"
    raise InputError(path, field, f"{one_line(matrix.tolist())}; {expected}{hint}")
  for name, focal in (("fx", matrix[0, 0]), ("fy", matrix[1, 1])):
    if focal <= 0:
      raise InputError(path, field, f"{name} = {focal:g}; expected a focal length > 0 in pixels")
  if abs(matrix[0, 1]) > 0.1 * matrix[0, 0]:
    raise InputError(path, field, f"skew {matrix[0, 1]:g}; expected less than a tenth of fx")
  return matrix


def is_transposed(matrix: np.ndarray) -> bool:
  """Returns whether K is written for row vectors: its principal point is in the last row."""
  return bool(np.abs(matrix[2, :2]).max() > np.abs(matrix[:2, 2]).max())


def pose_matrix(rotation: np.ndarray, translation: np.ndarray) -> np.ndarray:
  """Builds world-to-camera (4, 4) from R (3, 3) and t (3,)."""
  matrix = np.eye(4)
  matrix[:3, :3], matrix[:3, 3] = rotation, translation
  return matrix


def camera_name(path: pathlib.Path, field: str, value: Any) -> str:
  """Returns a camera's name, which is the name of its folder too.

  Args:
    path: the file, for messages.
    field: the field, for messages.
    value: its value.

  Raises:
    InputError: it is not text, or leads out of its folder.
  """
  if not isinstance(value, str) or not value.strip() or not value.isprintable():
    raise InputError(path, field, f"{one_line(value)}; expected a camera's name")
  if value in (".", "..") or any(c in value for c in "/\\:"):
    problem = "expected a name of one folder, without / \\ : and not . or .."
    raise InputError(path, field, f"{one_line(value)}; {problem}")
  return value


def camera_names(files: Sequence[str]) -> tuple[str, ...]:
  """Names cameras after their image files: by the stems, or by whole paths if stems repeat.

  Args:
    files: paths with forward slashes.

  Returns:
    One name for each file, without slashes.
  """
  stems = tuple(pathlib.PurePosixPath(file).stem for file in files)
  if len(set(stems)) == len(stems):
    return stems
  return tuple(str(pathlib.PurePosixPath(f).with_suffix("")).replace("/", "_") for f in files)


def path_inside(folder: pathlib.Path, file: Any, path: pathlib.Path, field: str) -> pathlib.Path:
  """Returns the path of a file that a calibration names relative to a folder.

  Args:
    folder: the folder.
    file: the relative path.
    path: the calibration file, for messages.
    field: the field, for messages.

  Raises:
    InputError: `file` is not text, absolute, or not below `folder` once links are followed.
  """
  expected = f"expected a path inside {folder}"
  if not isinstance(file, str) or not file.strip() or not file.isprintable():
    raise InputError(path, field, f"{one_line(file)}; {expected}")
  if pathlib.PurePosixPath(file).is_absolute() or pathlib.PureWindowsPath(file).drive:
    raise InputError(path, field, f"{one_line(file)} is absolute; {expected}")
  try:
    root, real = folder.resolve(), (folder / file).resolve()
    real.exists()
  except (OSError, RuntimeError, ValueError) as error:  # a loop of links; too long a name
    raise InputError(
      path, field, f"{one_line(file)} cannot be followed ({reason(error)}); {expected}"
    ) from None
  if root not in real.parents:
    raise InputError(path, field, f"{one_line(file)} leads out of the folder; {expected}")
  return folder / file


def check_same_size(
  path: pathlib.Path, field: str, real: tuple[int, int], stated: tuple[int, int]
) -> None:
  """Refuses an image whose size is not the one that the calibration states.

  Args:
    path: the file, for messages.
    field: the field, for messages.
    real: width and height of the image, pixels.
    stated: width and height in the calibration; 0 for a side that it does not state.

  Raises:
    InputError: they differ, so the intrinsics are in other pixels.
  """
  if any(b not in (0, a) for a, b in zip(real, stated, strict=True)):
    problem = f"the image is {real[0]} x {real[1]} pixels, the calibration is for {stated[0]} x "
    raise InputError(path, field, f"{problem}{stated[1]}; expected one size")
