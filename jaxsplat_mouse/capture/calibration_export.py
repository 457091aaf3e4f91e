"""Writes refined cameras for other programs: in the recording's own format, as Anipose, as COLMAP.

    OUTPUT/refined_calibration/FORMAT/...

Nothing of the recording is touched. `own` gives copies of the recording's calibration files in
which only the cameras differ; the others hold the cameras alone, without those that have no
readable picture.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib
import shutil

import numpy as np

from jaxsplat_mouse.capture.crops import Cropper
from jaxsplat_mouse.capture.formats import colmap, registry
from jaxsplat_mouse.capture.prepare_options import PrepareOptions
from jaxsplat_mouse.capture.raw_capture import Capture
from jaxsplat_mouse.capture.rig import OPENCV_FIRST_PIXEL, Rig
from jaxsplat_mouse.errors import InputError
from jaxsplat_mouse.io import atomic

EXPORT_FOLDER = "refined_calibration"
OWN, ANIPOSE, COLMAP = "own", "anipose", "colmap"
EXPORTS = (OWN, ANIPOSE, COLMAP)
ANIPOSE_FILE = "calibration.toml"


def check_exports(options: PrepareOptions, rig: Rig) -> None:
  """Checks that what a person asks for can hold the cameras, before any work is done.

  Args:
    options: the preparation.
    rig: the recording's cameras.

  Raises:
    InputError: a name is unknown, or a format cannot be written or cannot hold the cameras.
  """
  skewed = [f"{n} {k[0, 1]:.2g}" for n, k in zip(rig.names, rig.matrices, strict=True) if k[0, 1]]
  for name in options.write_calibration:
    if name not in EXPORTS:
      problem = f"no such calibration; expected some of {', '.join(EXPORTS)}"
    elif name == OWN and options.format not in registry.WRITABLE:
      problem = f"--format={options.format} is not written, its scenes hold the refined cameras; "
      problem += f"expected {ANIPOSE}, {COLMAP}, or a recording of {', '.join(registry.WRITABLE)}"
    elif name != OWN and skewed:
      problem = (
        f"has no place for the skew of these cameras (px: {', '.join(skewed)}); expected own"
      )
    else:
      continue
    raise InputError("--write_calibration", name, problem)


def export_calibration(options: PrepareOptions, capture: Capture, cropper: Cropper) -> list[str]:
  """Writes the refined cameras as the options ask, each format whole or not at all.

  Args:
    options: the preparation.
    capture: the recording as it was read.
    cropper: the readable cameras, with the poses in use.

  Returns:
    A line for each format, in plain English.

  Raises:
    InputError: the recording's calibration can no longer be read, or the disk is full.
  """
  if not options.write_calibration:
    return []
  refined = cropper.capture.rig
  if _same_cameras(capture.rig, refined):
    discard_export(options.output)
    return ["calibration: nothing to write, the cameras are those of the recording"]
  sizes = np.zeros((len(refined), 2), np.int64)
  for view in cropper.pinholes:
    sizes[view] = cropper.frame_reader.image_size(view)
  refined = dataclasses.replace(refined, sizes=sizes)
  lines = []
  for name in options.write_calibration:
    format = options.format if name == OWN else name
    folder = options.output / EXPORT_FOLDER / format
    try:
      _write_export(name, format, capture, refined, folder)
    except OSError as error:
      raise InputError(folder, "", f"cannot be written ({error.strerror or error})") from None
    lines.append(f"refined  {folder}")
  return lines


def _same_cameras(one: Rig, other: Rig) -> bool:
  same_poses = np.array_equal(one.world_to_camera, other.world_to_camera)
  return same_poses and np.array_equal(one.matrices, other.matrices)


def _write_export(
  name: str, format: str, capture: Capture, refined: Rig, folder: pathlib.Path
) -> None:
  """Writes one of `EXPORTS` into a folder that is new or replaced."""
  if capture.path.resolve().is_relative_to(folder.resolve()):
    raise InputError(folder, "--output", "holds the recording; expected another folder")
  folder.parent.mkdir(exist_ok=True)
  sized = select_cameras(refined, refined.sizes.all(1))
  with atomic.new_folder(folder, overwrite=True) as temporary:
    if name == OWN:
      registry.write_rig(format, capture, refined, temporary)
    elif name == COLMAP:
      colmap.write_text_model(sized, [f"{camera}.png" for camera in sized.names], temporary)
    else:
      write_anipose(sized, temporary / ANIPOSE_FILE)


def discard_export(output: pathlib.Path) -> None:
  """Removes what an earlier run exported."""
  shutil.rmtree(output / EXPORT_FOLDER, ignore_errors=True)


def select_cameras(rig: Rig, chosen: np.ndarray) -> Rig:
  """Returns some cameras of a rig, without labels; `chosen` is (V,) bool."""
  return dataclasses.replace(
    rig,
    names=tuple(name for name, taken in zip(rig.names, chosen, strict=True) if taken),
    matrices=rig.matrices[chosen],
    world_to_camera=rig.world_to_camera[chosen],
    distortion=rig.distortion[chosen],
    sizes=rig.sizes[chosen],
    labels=None,
  )


def write_anipose(rig: Rig, file: pathlib.Path) -> None:
  """Writes cameras as Anipose's `calibration.toml`, whose pixels and lenses are OpenCV's.

  Args:
    rig: V cameras of known sizes.
    file: the file.

  Raises:
    ValueError: a camera has a skew, which OpenCV's model does not have.
  """
  import cv2

  lines = []
  for i, name in enumerate(rig.names):
    matrix = rig.matrices[i].copy()
    if matrix[0, 1] != 0:
      raise ValueError(f"{name} has a skew of {matrix[0, 1]:.3g} px; Anipose's cameras have none")
    matrix[:2, 2] -= OPENCV_FIRST_PIXEL
    turn = cv2.Rodrigues(np.ascontiguousarray(rig.world_to_camera[i, :3, :3]))[0].ravel()
    lines += [
      f"[cam_{i}]",
      f"name = {json.dumps(name)}",
      f"size = {rig.sizes[i].tolist()}",
      f"matrix = {matrix.tolist()}",
      f"distortions = {rig.distortion[i].tolist()}",
      f"rotation = {turn.tolist()}",
      f"translation = {rig.world_to_camera[i, :3, 3].tolist()}",
      "",
    ]
  lines += ["[metadata]", f'unit = "{rig.unit}"']
  file.write_text("\n".join(lines) + "\n", encoding="utf-8")
