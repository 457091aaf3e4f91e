"""DANNCE and Label3D recordings: a `.mat` file, and the videos beside it.

    FOLDER/*dannce.mat                 params, sync, camnames, labelData
    FOLDER/videos/CAMERA/0.mp4         the photographs, frame by frame; a recording in parts
                                       continues in files named after their first frame, as 3500.mp4
    FOLDER/masks/CAMERA/0.mp4          grey silhouettes of the same frames (optional)

Conventions and units are those of `label3d`. Frames are joined by `data_sampleID`, not by row: a
moment is a sample number, and cameras that lack it have frame -1. `data_frame` counts from 0. Up is
+z, or -z if the cameras are upright that way.
"""

from __future__ import annotations

import functools
import os
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxsplat_mouse.capture.formats import label3d
from jaxsplat_mouse.capture.raw_capture import Capture
from jaxsplat_mouse.capture.rig import OPENCV_FIRST_PIXEL, Labels, Rig
from jaxsplat_mouse.capture.triangulation import triangulate_raw
from jaxsplat_mouse.errors import InputError
from jaxsplat_mouse.io import checks, matlab, matlab_edit

_NAMES = ("params", "sync", "camnames", "labelData")


def read_capture(path: str | os.PathLike[str]) -> Capture:
  """Reads a recording from its folder, or from the `.mat` file in it.

  Raises:
    InputError: a file is missing or broken, a field is missing or invalid, no sample
      number is common to all cameras, or the labels contradict the cameras.
  """
  path = pathlib.Path(path)
  file = find_mat_file(path)
  data = matlab.read_matlab(file, _NAMES)
  rig = parse_rig(file, data)
  moments, frames = label3d.join_samples(file, _per_camera(file, data, "sync", len(rig)), rig.names)
  pictures, masks = label3d.find_videos(file.parent, rig.names)
  return Capture(
    path=path,
    rig=rig,
    pictures=pictures,
    masks=masks,
    frames=frames,
    moments=moments,
    up=label3d.recording_up(rig),
  )


def read_rig(path: str | os.PathLike[str]) -> Rig:
  """Reads only the cameras and labels, of a `.mat` file or of the one in a folder.

  Raises:
    InputError: as `read_capture`; neither `sync` nor videos are needed.
  """
  file = find_mat_file(pathlib.Path(path))
  return parse_rig(file, matlab.read_matlab(file, ("params", "camnames", "labelData")))


def write_rig(capture: Capture, refined: Rig, folder: pathlib.Path) -> None:
  """Writes a copy of the recording's `.mat` file with other cameras.

  The points of its labels, `data_3d`, are triangulated with them; all else stays.

  Args:
    capture: the recording as it was read.
    refined: its cameras as they are to be read from the copy.
    folder: where the copy is written.

  Raises:
    InputError: the file can no longer be read, or has changed.
  """
  file = find_mat_file(capture.path)
  data = matlab.read_matlab(file, ("params", "labelData"))
  cameras = _per_camera(file, data, "params", len(refined))
  changes: dict[matlab_edit.Place, np.ndarray] = {}
  for i, params in enumerate(cameras):
    found = label3d.changed_arrays(file, f"params{{{i + 1}}}", params, (capture.rig, refined), i)
    changes |= {("params", i, key): values for key, values in found.items()}
  if changes and len(data.get("labelData", ())):
    entries = _per_camera(file, data, "labelData", len(refined))
    for i, points in enumerate(_triangulated(file, entries, refined)):
      changes["labelData", i, "data_3d"] = points
  (folder / file.name).write_bytes(matlab_edit.replace_arrays(file, changes))


def _triangulated(file: pathlib.Path, entries: Sequence[Any], rig: Rig) -> list[np.ndarray]:
  """Triangulates the labels of each entry of `labelData`; what cannot be stays as it is.

  Args:
    file: the file, for messages.
    entries: of V cameras.
    rig: the cameras.

  Returns:
    V arrays `data_3d`.
  """
  fields = [f"labelData{{{i + 1}}}" for i in range(len(entries))]
  samples = [
    label3d.read_integers(file, field, entry, "data_sampleID")
    for field, entry in zip(fields, entries, strict=True)
  ]
  common = np.unique(np.concatenate(samples))
  rows = [np.searchsorted(common, own) for own in samples]
  points = [
    _landmarks(file, field, entry, "data_3d", 3, len(own))
    for field, entry, own in zip(fields, entries, samples, strict=True)
  ]
  pixels = np.full((len(entries), len(common), points[0].shape[1], 2), np.nan)
  for i, (field, entry) in enumerate(zip(fields, entries, strict=True)):
    pixels[i, rows[i]] = _landmarks(file, field, entry, "data_2d", 2, len(samples[i]))
  flat = pixels.reshape(len(entries), -1, 2) + OPENCV_FIRST_PIXEL
  found = triangulate_raw(rig, flat).reshape(*pixels.shape[1:3], 3)
  return [
    np.where(np.isfinite(found[row]) & np.isfinite(old), found[row], old).reshape(len(old), -1)
    for row, old in zip(rows, points, strict=True)
  ]


def find_mat_file(path: pathlib.Path) -> pathlib.Path:
  """Finds the `*dannce.mat` of a recording; a path that is a file is returned as it is.

  Raises:
    InputError: the folder has none, or more than one.
  """
  if not path.is_dir():
    return path
  found = sorted(path.glob("*dannce.mat"))
  if len(found) != 1:
    names = ", ".join(f.name for f in found) or "none"
    raise InputError(path, "", f"found {names}; expected one *dannce.mat, or name the file itself")
  return found[0]


def parse_rig(path: pathlib.Path, data: dict[str, Any]) -> Rig:
  """Parses the cameras and labels of a file's variables; see `read_capture`."""
  names = _names(path, data)
  lenses = [
    label3d.parse_camera(path, f"params{{{i + 1}}}", params)
    for i, params in enumerate(_per_camera(path, data, "params", len(names)))
  ]
  return label3d.build_rig(path, names, lenses, _labels(path, data, names))


def _names(path: pathlib.Path, data: dict[str, Any]) -> list[str]:
  value = checks.get_field(path, "", data, "camnames")
  values = [value] if isinstance(value, str) else value
  if not isinstance(values, list) or not values:
    raise InputError(path, "camnames", "no names; expected a cell with the cameras' folder names")
  return [checks.camera_name(path, f"camnames{{{i + 1}}}", v) for i, v in enumerate(values)]


def _per_camera(path: pathlib.Path, data: dict[str, Any], key: str, count: int) -> list[Any]:
  """Returns the entries of a cell or struct array that has one for each camera.

  Args:
    path: the file, for messages.
    data: its variables.
    key: name of the variable.
    count: number of cameras.
  """
  value = checks.get_field(path, "", data, key)
  entries = [value] if isinstance(value, dict) else value
  if not isinstance(entries, list) or len(entries) != count:
    found = f"{len(entries)} entries" if isinstance(entries, list) else "no cell"
    raise InputError(path, key, f"{found}; expected one for each of {count} cameras in camnames")
  return entries


def _labels(path: pathlib.Path, data: dict[str, Any], names: Sequence[str]) -> Labels | None:
  """Returns the labels of samples that every camera has; None for no labels."""
  if len(data.get("labelData", ())) == 0:
    return None
  entries = _per_camera(path, data, "labelData", len(names))
  rows, points, pixels = [], [], []
  for i, entry in enumerate(entries):
    field = f"labelData{{{i + 1}}} ({names[i]})"
    rows.append(label3d.read_integers(path, field, entry, "data_sampleID"))
    points.append(_landmarks(path, field, entry, "data_3d", 3, len(rows[i])))
    pixels.append(_landmarks(path, field, entry, "data_2d", 2, len(rows[i])))
    if points[i].shape[1] != pixels[i].shape[1] or pixels[i].shape[1] != pixels[0].shape[1]:
      raise InputError(path, field, "differing numbers of landmarks; expected one number")
  common = functools.reduce(np.intersect1d, rows)
  if len(common) == 0:
    return None
  order = [np.argsort(own)[np.searchsorted(np.sort(own), common)] for own in rows]
  world = points[0][order[0]].reshape(-1, 3)
  seen = np.stack([p[at].reshape(-1, 2) for p, at in zip(pixels, order, strict=True)])
  known = np.isfinite(world).all(-1)
  if not known.any():
    return None
  return Labels(points=world[known], pixels=seen[:, known] + OPENCV_FIRST_PIXEL)


def _landmarks(
  path: pathlib.Path, field: str, entry: Any, key: str, axes: int, count: int
) -> np.ndarray:
  """Returns landmarks (N, L, axes), NaN where they were not set.

  Args:
    path: the file, for messages.
    field: the entry, for messages.
    entry: one entry of `labelData`.
    key: `data_3d` or `data_2d`.
    axes: coordinates of a landmark.
    count: number of samples.
  """
  value = checks.get_field(path, field, entry, key)
  if not isinstance(value, np.ndarray) or value.dtype.kind not in "iuf" or value.ndim != 2:
    raise InputError(
      path, f"{field}.{key}", f"expected numbers, one row for each of {count} samples"
    )
  if len(value) != count or value.shape[1] % axes:
    expected = f"expected {count} rows of {axes} numbers a landmark"
    raise InputError(path, f"{field}.{key}", f"shape {value.shape}; {expected}")
  return value.astype(np.float64).reshape(count, -1, axes)
