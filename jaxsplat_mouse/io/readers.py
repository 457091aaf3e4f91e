"""All formats of raw captures under one call."""

from __future__ import annotations

import importlib
import os
import pathlib

from jaxsplat_mouse.errors import InputError
from jaxsplat_mouse.io.capture import Capture

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
  return module.read_capture(path)
