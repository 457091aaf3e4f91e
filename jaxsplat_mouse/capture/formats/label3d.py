"""Shared by the DANNCE formats: MATLAB's cameras, sample numbers and video folders.

Conventions. MATLAB writes for row vectors, [X 1] [r; t] K, so K and r are transposed here; K has a
skew that acts after the distortion k1 k2 p1 p2 k3. A file with K for column vectors usually has r
for column vectors too; where there are labels, they decide which way r is written. Lengths are
millimetres. Pixel (0, 0) is the centre of the first pixel, as DANNCE samples frames, so 0.5 is
added to cx, cy and labels.

Unsupported: mirrors (`m`).
"""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np
from absl import logging

from jaxsplat_mouse.capture import rig_checks
from jaxsplat_mouse.capture.pose_conventions import transpose_rotations
from jaxsplat_mouse.capture.raw_capture import Stream
from jaxsplat_mouse.capture.rig import OPENCV_FIRST_PIXEL, Labels, Rig
from jaxsplat_mouse.errors import InputError
from jaxsplat_mouse.io import checks

_SUFFIXES = (".mp4", ".avi")
_MAX_INTEGER = 2.0**53
_FIRST_PIXEL = np.array([[0, 0, 1.0], [0, 0, 1.0], [0, 0, 0]]) * OPENCV_FIRST_PIXEL
_LABELS_DECIDE = 3.0  # labels must be so many times nearer for r to be read transposed


@dataclasses.dataclass(frozen=True, kw_only=True)
class MatlabCamera:
  """One camera of a MATLAB calibration, for column vectors and pixel centres at +0.5.

  Attributes:
    matrix: (3, 3), K with its skew.
    pose: (4, 4) world-to-camera, millimetres.
    distortion: (5,) k1 k2 p1 p2 k3.
  """

  matrix: np.ndarray
  pose: np.ndarray
  distortion: np.ndarray


def build_rig(
  path: pathlib.Path, names: Sequence[str], cameras: Sequence[MatlabCamera], labels: Labels | None
) -> Rig:
  """Builds a rig in millimetres; labels decide whether the rotations are transposed.

  Args:
    path: the calibration file, for messages.
    names: V names of cameras.
    cameras: V cameras.
    labels: marked points; None for none.

  Raises:
    InputError: the cameras contradict one another or the labels.
  """
  poses = np.stack([camera.pose for camera in cameras])
  transposed = transpose_rotations(poses)
  rig = Rig(
    names=tuple(names),
    matrices=np.stack([camera.matrix for camera in cameras]),
    world_to_camera=poses,
    distortion=np.stack([camera.distortion for camera in cameras]),
    sizes=np.zeros((len(names), 2), np.int64),
    unit="mm",
    labels=labels,
  )
  if labels is not None:
    other = dataclasses.replace(rig, world_to_camera=transposed)
    error, other_error = (np.nanmax(rig_checks.label_errors(r)) for r in (rig, other))
    if other_error < error / _LABELS_DECIDE:
      logging.warning(
        "%s: r and K are for different kinds of vectors: labels are %.1f px off as r is written, "
        "%.3f px with r transposed; r is read transposed",
        path,
        error,
        other_error,
      )
      rig = other
  return rig_checks.check_rig(path, rig)


def parse_camera(path: pathlib.Path, field: str, params: Any) -> MatlabCamera:
  """Parses K, r (or R), t, RDistort and TDistort of one camera.

  Args:
    path: the file, for messages.
    field: the struct in the file, for messages.
    params: the struct.

  Raises:
    InputError: a field is missing or invalid.
  """
  raw = checks.numbers(path, f"{field}.K", checks.get_field(path, field, params, "K"), (3, 3))
  rows = checks.is_transposed(raw)
  matrix = checks.intrinsics(path, f"{field}.K", raw.T if rows else raw)
  key = _rotation_key(params)
  turn = checks.rotation(path, f"{field}.{key}", checks.get_field(path, field, params, key))
  shift = _flat(path, f"{field}.t", checks.get_field(path, field, params, "t"), (3,))
  radial = _flat(
    path, f"{field}.RDistort", checks.get_field(path, field, params, "RDistort"), (2, 3)
  )
  tangential = _flat(
    path, f"{field}.TDistort", checks.get_field(path, field, params, "TDistort"), (2,)
  )
  if "m" in params and np.any(_row(path, f"{field}.m", params["m"]) != 0):
    raise InputError(path, f"{field}.m", "a mirrored camera; expected none, they are unsupported")
  k1, k2, k3 = [*radial, 0.0][:3]
  return MatlabCamera(
    matrix=matrix + _FIRST_PIXEL,
    pose=checks.pose_matrix(turn.T if rows else turn, shift),
    distortion=np.array([k1, k2, *tangential, k3]),
  )


def changed_arrays(
  path: pathlib.Path, field: str, params: dict[str, Any], rigs: tuple[Rig, Rig], view: int
) -> dict[str, np.ndarray]:
  """Returns the fields of one camera's struct that change, as the struct writes them.

  Args:
    path: the file, for messages.
    field: the struct in the file, for messages.
    params: the struct.
    rigs: the cameras as they were read, and as they are to be read.
    view: number of the camera.

  Raises:
    InputError: the struct is not that of the camera as it was read.
  """
  (given, new) = (rig.world_to_camera[view] for rig in rigs)
  changed: dict[str, np.ndarray] = {}
  if not np.array_equal(rigs[0].matrices[view], rigs[1].matrices[view]):
    stored = rigs[1].matrices[view] - _FIRST_PIXEL
    changed["K"] = stored.T if checks.is_transposed(np.asarray(params["K"])) else stored
  if not np.array_equal(given, new):
    key = _rotation_key(params)
    # Labels may have decided that r is transposed, so the values say how it is written.
    if np.allclose(params[key], given[:3, :3].T, atol=1e-9):
      changed[key] = new[:3, :3].T
    elif np.allclose(params[key], given[:3, :3], atol=1e-9):
      changed[key] = new[:3, :3]
    else:
      raise InputError(
        path, f"{field}.{key}", "has changed; expected the calibration that was read"
      )
    changed["t"] = new[:3, 3]
  return changed


def _rotation_key(params: dict[str, Any]) -> str:
  return "R" if "r" not in params and "R" in params else "r"


def join_samples(
  path: pathlib.Path, sync: Sequence[Any], names: Sequence[str]
) -> tuple[np.ndarray, np.ndarray]:
  """Joins the frames of cameras by `data_sampleID`.

  Args:
    path: the file, for messages.
    sync: V structs with data_frame and data_sampleID.
    names: V names of cameras.

  Returns:
    Sample numbers (F,), rising, and frames (F, V), -1 where a camera lacks the sample.

  Raises:
    InputError: numbers are invalid, a sample occurs twice, or none is common to all cameras.
  """
  found = [
    _read_samples(path, f"sync{{{i + 1}}} ({name})", entry)
    for i, (name, entry) in enumerate(zip(names, sync, strict=True))
  ]
  moments = np.unique(np.concatenate([samples for samples, _ in found]))
  joined = np.full((len(moments), len(found)), -1, np.int64)
  for i, (samples, frames) in enumerate(found):
    joined[np.searchsorted(moments, samples), i] = frames
  if not (joined >= 0).all(1).any():
    spans = ", ".join(
      f"{n} {s.min()}-{s.max()}" if len(s) else f"{n} none"
      for n, (s, _) in zip(names, found, strict=True)
    )
    problem = f"no sample number is common to all cameras ({spans}); expected moments in common"
    raise InputError(path, "sync.data_sampleID", problem)
  return moments, joined


def _read_samples(path: pathlib.Path, field: str, entry: Any) -> tuple[np.ndarray, np.ndarray]:
  """Returns the sample numbers (N,) and frames (N,) of one camera."""
  samples = read_integers(path, field, entry, "data_sampleID")
  frames = read_integers(path, field, entry, "data_frame")
  if len(samples) != len(frames):
    problem = f"{len(samples)} sample numbers for {len(frames)} frames; expected as many of each"
    raise InputError(path, field, problem)
  unique, counts = np.unique(samples, return_counts=True)
  if len(unique) != len(samples):
    problem = f"sample {unique[counts > 1][0]} occurs twice; expected each once"
    raise InputError(path, f"{field}.data_sampleID", problem)
  return samples, frames


def find_videos(
  recording: pathlib.Path, names: Sequence[str]
) -> tuple[tuple[Stream, ...], tuple[Stream, ...] | None]:
  """Finds the photographs in `videos/` and the silhouettes in `masks/`, if there is that folder.

  Args:
    recording: the folder of both.
    names: V names of cameras.

  Returns:
    V streams of photographs, and V streams of silhouettes or None.

  Raises:
    InputError: there is no `videos` folder, or a camera's files have other names.
  """
  videos, masks = recording / "videos", recording / "masks"
  pictures = tuple(find_video(videos, camera) for camera in names)
  if not masks.is_dir():
    return pictures, None
  return pictures, tuple(find_video(masks, camera) for camera in names)


def find_video(folder: pathlib.Path, camera: str) -> Stream:
  """Finds the video of a camera: 0.mp4 in its folder, or in the only folder inside that.

  A recording in parts continues in files that are named after their first frame, as 3500.mp4.
  A missing video costs only its own camera: opening the stream raises the error.

  Raises:
    InputError: `folder` does not exist, or a camera's files have other names.
  """
  if not folder.is_dir():
    raise InputError(folder, "", f"no such folder; expected {camera}/0.mp4 and so on in it")
  place = folder / camera
  if not place.is_dir():
    return Stream(video=place / "0.mp4")
  files = _videos(place)
  inner = [child for child in place.iterdir() if child.is_dir()]
  if not files and len(inner) == 1:  # acquisition programs put a folder with a time stamp between
    files = _videos(inner[0])
  if not files and not inner:
    return Stream(video=place / "0.mp4")
  starts = [int(f.stem) if f.stem.isdecimal() else -1 for f in files]
  if files and starts[0] == 0 and -1 not in starts and len(set(starts)) == len(starts):
    return Stream(video=files[0], parts=tuple(zip(starts[1:], files[1:], strict=True)))
  names = ", ".join(f.name for f in files[:4]) + (", ..." if len(files) > 4 else "")
  expected = "expected 0.mp4, and further parts named after their first frame"
  raise InputError(place, camera, f"found {names or 'no video'}; {expected}")


def recording_up(rig: Rig) -> str:
  """Returns `+z`, or `-z` if the images of the cameras are upright that way."""
  return "+z" if -rig.world_to_camera[:, 1, 2].mean() >= 0 else "-z"


def read_integers(path: pathlib.Path, field: str, entry: Any, key: str) -> np.ndarray:
  """Returns a column of whole numbers (N,) int64; fractions are cut off, as DANNCE does.

  Args:
    path: the file, for messages.
    field: the struct in the file, for messages.
    entry: the struct.
    key: its field.

  Raises:
    InputError: the field is missing, or holds other numbers.
  """
  value = checks.get_field(path, field, entry, key)
  array = _row(path, f"{field}.{key}", value)
  if np.any(array < 0) or np.any(array > _MAX_INTEGER):
    raise InputError(path, f"{field}.{key}", "negative or absurdly large; expected whole numbers")
  return array.astype(np.int64)


def _videos(folder: pathlib.Path) -> list[pathlib.Path]:
  found = [f for f in folder.iterdir() if f.suffix.lower() in _SUFFIXES and f.is_file()]
  return sorted(found, key=lambda f: (len(f.stem), f.stem))


def _flat(path: pathlib.Path, field: str, value: Any, lengths: tuple[int, ...]) -> np.ndarray:
  """Returns a row or column of numbers that has one of these lengths."""
  array = _row(path, field, value)
  if len(array) not in lengths:
    expected = " or ".join(str(n) for n in lengths)
    raise InputError(path, field, f"{len(array)} numbers; expected {expected}")
  return array


def _row(path: pathlib.Path, field: str, value: Any) -> np.ndarray:
  """Returns the numbers of a row or column."""
  return checks.numbers(
    path, field, value.ravel() if isinstance(value, np.ndarray) else value, (None,)
  )
