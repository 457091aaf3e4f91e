"""The formats of raw captures: each has one entry in `_FORMATS` and one reader module.

A reader module lies in this folder and has the function `read_capture(path) -> Capture`, which
raises `InputError` for anything that is missing, broken or contradictory; most have `write_rig`,
which writes the calibration back with other cameras. To add a format, write the module and add its
entry; the command line, its help and the hints below need no change.
"""

from __future__ import annotations

import dataclasses
import importlib
import os
import pathlib

from jaxsplat_mouse.capture.raw_capture import Capture
from jaxsplat_mouse.capture.rig import Rig
from jaxsplat_mouse.errors import InputError


@dataclasses.dataclass(frozen=True)
class CaptureFormat:
  """Where the reader of a format is, and how to recognize a folder in that format.

  Attributes:
    module: the reader's module in this folder; imported on first use, since each reader needs
      packages that the others do not.
    patterns: glob patterns of files, one of which lies in every folder of this format.
    writes: whether the module has `write_rig(capture, refined, folder)` too.
  """

  module: str
  patterns: tuple[str, ...]
  writes: bool = True


# By the name that `--format` takes.
_FORMATS = {
  "dannce": CaptureFormat("dannce", ("*dannce.mat",)),
  "sdannce": CaptureFormat(
    "sdannce", ("hires_cam*_params.mat", "calibration/hires_cam*_params.mat")
  ),
  "mammal": CaptureFormat("mammal", ("new_cam.pkl",)),
  "pose_splatter": CaptureFormat("pose_splatter", ("camera_params.h5",)),
  "colmap": CaptureFormat(
    "colmap", ("sparse/**/images.bin", "sparse/**/images.txt", "images.bin", "images.txt")
  ),
  "transforms": CaptureFormat("transforms", ("transforms.json",)),
  "facelift": CaptureFormat("facelift_scene", ("opencv_cameras.json",), writes=False),
}
FORMATS = tuple(_FORMATS)
WRITABLE = tuple(name for name, format in _FORMATS.items() if format.writes)
_MAX_SEARCHED = 100  # folders inside the given one that a hint may come from


def read_capture(format: str, path: str | os.PathLike[str]) -> Capture:
  """Reads a raw capture; only the headers of images and videos are read, no pixels.

  Args:
    format: one of `FORMATS`.
    path: the recording's folder, or the calibration file where the format has one.

  Returns:
    The cameras, and the files that hold each moment.

  Raises:
    InputError: anything is missing, broken or contradictory; names the file and the field.
    ValueError: no such format.
  """
  if format not in _FORMATS:
    raise ValueError(f"format: expected one of {', '.join(FORMATS)}, got {format!r}")
  if not pathlib.Path(path).exists():
    raise InputError(path, "", f"no such file or folder; expected a capture in {format} format")
  reader = importlib.import_module(f"{__package__}.{_FORMATS[format].module}")
  try:
    return reader.read_capture(path)
  except InputError as error:
    hint = _hint(format, pathlib.Path(path))
    if not hint:
      raise
    raise InputError(error.path, error.field, f"{error.problem}; {hint}") from None


def write_rig(format: str, capture: Capture, refined: Rig, folder: pathlib.Path) -> None:
  """Writes a recording's calibration in its own format, with other cameras.

  Args:
    format: of the recording, one of `WRITABLE`.
    capture: the recording as it was read.
    refined: its cameras as they are to be read from what is written.
    folder: where the calibration is written.

  Raises:
    InputError: the calibration can no longer be read, or the format cannot hold the cameras.
    OSError: the disk is full or not writable.
  """
  writer = importlib.import_module(f"{__package__}.{_FORMATS[format].module}")
  writer.write_rig(capture, refined, folder)


def _hint(format: str, path: pathlib.Path) -> str:
  """Suggests another format or folder for a path that could not be read; "" for none."""
  found = _recognized_formats(path)
  if format in found or not path.is_dir():
    return ""
  if found:
    return f"it looks like a capture of --format={found[0]}"
  inner = sorted(child for child in path.iterdir() if child.is_dir())[:_MAX_SEARCHED]
  for folder in (path.resolve().parent, *inner):
    if format in _recognized_formats(folder):
      return f"did you mean --input={folder}?"
  return ""


def _recognized_formats(folder: pathlib.Path) -> list[str]:
  """The formats with a file in a folder."""
  try:
    return [
      name
      for name, format in _FORMATS.items()
      if any(any(folder.glob(pattern)) for pattern in format.patterns)
    ]
  except OSError:
    return []
