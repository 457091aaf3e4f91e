"""s-DANNCE and Rat7M recordings: a calibration file for each camera, and the videos.

    FOLDER/calibration/hires_cam{n}_params.mat     K r t RDistort TDistort; or in FOLDER itself
    FOLDER/videos/Camera{n}/0.mp4                  the photographs
    FOLDER/masks/Camera{n}/0.mp4                   grey silhouettes of the same frames (optional)
    FOLDER/sync/Camera{n}_sync.mat                 data_frame, data_sampleID (optional)

Conventions and units are those of `label3d`. Without `sync` the cameras ran in step, as s-DANNCE
assumes: moment i is frame i of all videos, and frames that a short video lacks are -1.
"""

from __future__ import annotations

import os
import pathlib
import re
from collections.abc import Sequence

import numpy as np

from jaxsplat_mouse.capture import synchronization
from jaxsplat_mouse.capture.formats import label3d
from jaxsplat_mouse.capture.raw_capture import Capture
from jaxsplat_mouse.capture.rig import Rig
from jaxsplat_mouse.errors import InputError
from jaxsplat_mouse.io import matlab, matlab_edit

_FIELDS = ("K", "r", "R", "t", "RDistort", "TDistort", "m")
_PATTERN = re.compile(r"hires_cam(\d{1,4})_params\.mat")


def read_capture(path: str | os.PathLike[str]) -> Capture:
  """Reads a recording from its folder.

  Raises:
    InputError: a file is missing or broken, a field is missing or invalid, or no sample
      number is common to all cameras.
  """
  path = pathlib.Path(path)
  rig = read_rig(path)
  pictures, masks = label3d.find_videos(path, rig.names)
  if (path / "sync").is_dir():
    moments, frames = _read_sync(path / "sync", rig.names)
  else:
    moments, frames = synchronization.match_frames(path, pictures, rig.names)
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
  """Reads only the cameras, in the order of their numbers.

  Raises:
    InputError: as `read_capture`; neither `sync` nor videos are needed.
  """
  folder, files = _find_files(pathlib.Path(path))
  lenses = [
    label3d.parse_camera(files[n], "", matlab.read_matlab(files[n], _FIELDS)) for n in sorted(files)
  ]
  return label3d.build_rig(folder, [f"Camera{n}" for n in sorted(files)], lenses, None)


def write_rig(capture: Capture, refined: Rig, folder: pathlib.Path) -> None:
  """Writes copies of the recording's calibration files with other cameras.

  Args:
    capture: the recording as it was read.
    refined: its cameras as they are to be read from the copies.
    folder: where the copies are written.

  Raises:
    InputError: a file can no longer be read, or has changed.
  """
  _, files = _find_files(capture.path)
  for view, number in enumerate(sorted(files)):
    file = files[number]
    params = matlab.read_matlab(file, _FIELDS)
    changes = label3d.changed_arrays(file, "", params, (capture.rig, refined), view)
    content = matlab_edit.replace_arrays(file, {(key,): v for key, v in changes.items()})
    (folder / file.name).write_bytes(content)


def _find_files(path: pathlib.Path) -> tuple[pathlib.Path, dict[int, pathlib.Path]]:
  """Returns the folder of the calibration, and its files by number of the camera."""
  folder = path / "calibration" if (path / "calibration").is_dir() else path
  files = {}
  for file in sorted(folder.glob("*.mat")):
    if match := _PATTERN.fullmatch(file.name):
      files[int(match[1])] = file
  if not files:
    raise InputError(folder, "", "no camera; expected hires_cam1_params.mat and so on")
  missing = [n for n in range(min(files), max(files)) if n not in files]
  if missing:
    problem = f"missing, but there is one for camera {max(files)}; expected them without gaps"
    raise InputError(folder, f"hires_cam{missing[0]}_params.mat", problem)
  return folder, files


def _read_sync(folder: pathlib.Path, names: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
  keys = ("data_frame", "data_sampleID")
  sync = [matlab.read_matlab(folder / f"{camera}_sync.mat", keys) for camera in names]
  return label3d.join_samples(folder, sync, names)
