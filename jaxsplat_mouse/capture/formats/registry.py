"""All formats of raw captures under one call."""

from __future__ import annotations

import importlib
import os
import pathlib

from jaxsplat_mouse.capture.capture import Capture
from jaxsplat_mouse.errors import InputError

# Modules of this package, imported when asked for: each takes packages that the others do not.
_MODULES = {
  "dannce": "dannce",
  "sdannce": "sdannce",
  "mammal": "mammal",
  "pose_splatter": "pose_splatter",
  "colmap": "colmap",
  "transforms": "transforms",
  "facelift": "facelift_capture",
}
FORMATS = tuple(_MODULES)
# Files by which a folder is known for a capture of a format.
_MARKS = {
  "dannce": ("*dannce.mat",),
  "sdannce": ("hires_cam*_params.mat", "calibration/hires_cam*_params.mat"),
  "mammal": ("new_cam.pkl",),
  "pose_splatter": ("camera_params.h5",),
  "colmap": ("sparse/**/images.bin", "sparse/**/images.txt", "images.bin", "images.txt"),
  "transforms": ("transforms.json",),
  "facelift": ("opencv_cameras.json",),
}
_MAX_LOOKED_AT = 100  # folders beside the given one, in which a capture is looked for


def read_capture(format: str, path: str | os.PathLike[str]) -> Capture:
  """Reads a raw capture; nothing is decoded, only files' heads are looked at.

  Args:
    format: one of `FORMATS`.
    path: the recording's folder, or the calibration file where the format has one.

  Raises:
    InputError: anything missing, broken or contradictory, with the file and the field.
    ValueError: no such format.
  """
  if format not in _MODULES:
    raise ValueError(f"format: expected one of {', '.join(FORMATS)}, got {format!r}")
  if not pathlib.Path(path).exists():
    raise InputError(path, "", f"no such file or folder; expected a capture in {format} format")
  module = importlib.import_module(f"jaxsplat_mouse.io.{_MODULES[format]}")
  try:
    return module.read_capture(path)
  except InputError as error:
    hint = _hint(format, pathlib.Path(path))
    if not hint:
      raise
    raise InputError(error.path, error.field, f"{error.problem}; {hint}") from None


def _hint(format: str, path: pathlib.Path) -> str:
  """What was probably meant by a folder that holds no capture of a format; "" if it holds one."""
  found = _formats_of(path)
  if format in found or not path.is_dir():
    return ""
  if found:
    return f"it looks like a capture of --format={found[0]}"
  inner = sorted(child for child in path.iterdir() if child.is_dir())[:_MAX_LOOKED_AT]
  near = [place for place in (path.resolve().parent, *inner) if format in _formats_of(place)]
  return f"did you mean --input={near[0]}?" if near else ""


def _formats_of(folder: pathlib.Path) -> list[str]:
  """The formats whose files lie in a folder."""
  try:
    return [f for f, marks in _MARKS.items() if any(any(folder.glob(m)) for m in marks)]
  except OSError:
    return []
