"""Measures what `prepare` made of a recording with faults: its cameras and its outlines."""

from __future__ import annotations

import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import cv2
import numpy as np

from benchmarks import recording_files
from jaxsplat_mouse.capture import calibration_refinement, lens
from jaxsplat_mouse.capture.lens import CropRegion
from jaxsplat_mouse.capture.rig import Rig, project_points
from jaxsplat_mouse.dataset import camera_file
from jaxsplat_mouse.io import images
from jaxsplat_mouse.scene import Similarity


def measure(
  folder: pathlib.Path,
  scenes: Mapping[int, str],
  given: Rig,
  true: Rig,
  exact: Callable[[int, int], np.ndarray],
) -> dict[str, Any]:
  """Compares what `prepare` wrote with the truth.

  Args:
    folder: of the scenes.
    scenes: scene folders by number of the frame; at least one.
    given: the cameras as the recording describes them.
    true: the cameras that took it.
    exact: returns the exact alpha (H, W) uint8 of a camera's picture, given view and frame.

  Returns:
    `similarity`, true world -> prepared world; `pixels`, what remains between the cameras;
    `outline`, mean distance between prepared and true outlines, pixels; `wide`, by how many of them
    the prepared ones lie outside.
  """
  poses = calibration_refinement.read_poses(folder, given)
  frames = {n: camera_file.read_cameras(s) for n, s in scenes.items()}
  used = _used_rig(given, given.world_to_camera if poses is None else poses, frames)
  shared, pixels = common_similarity(used, true)
  off = [
    _outline_error(pathlib.Path(scenes[number], name), entry, given, exact, number)
    for number, parsed in frames.items()
    for name, entry in zip(parsed.names, parsed.frame_extra, strict=True)
  ]
  outline, wide = np.mean(off, 0).tolist()
  return {"similarity": shared.to_json(), "pixels": pixels, "outline": outline, "wide": wide}


def _view(given: Rig, entry: Mapping[str, Any]) -> int:
  return given.names.index(entry["camera"])


def _outline_error(
  image: pathlib.Path,
  entry: Mapping[str, Any],
  given: Rig,
  exact: Callable[[int, int], np.ndarray],
  number: int,
) -> tuple[float, float]:
  """Area between prepared and true alpha, and their difference in area, each per outline's length.

  Args:
    image: the prepared picture.
    entry: of the camera file, with `camera` and `cut`.
    given: the cameras as the recording describes them.
    exact: see `measure`.
    number: of the frame.
  """
  view, region = _view(given, entry), CropRegion(**entry["cut"])
  width, height = given.sizes[view].tolist()
  pinhole = lens.make_pinhole(given, view, (width, height))
  points = lens.lookup_points(given, view, pinhole, region)
  raw = exact(view, number).astype(np.float32)
  true = np.clip(lens.resample(raw, points, (region.height, region.width)), 0, 255)
  off = (images.read_image(image)[..., 3] - true) / 255
  contours, _ = cv2.findContours(
    (true > 127).astype(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE
  )
  length = sum(cv2.arcLength(contour, True) for contour in contours)
  return float(np.abs(off).sum() / length), float(off.sum() / length)


def _used_rig(given: Rig, poses: np.ndarray, frames: Mapping[int, camera_file.CameraFile]) -> Rig:
  """Returns the rig with poses (V, 4, 4) and the focal lengths that scenes were written with."""
  factors = np.ones(len(given))
  for parsed in frames.values():
    for entry, intrinsics in zip(parsed.frame_extra, parsed.intrinsics, strict=True):
      view = _view(given, entry)
      width, height = given.sizes[view].tolist()
      usual = lens.make_pinhole(given, view, (width, height)).intrinsics[0]
      factors[view] = intrinsics[0] / entry["cut"]["scale"] / usual
  return recording_files.given_rig(given, poses, factors)


def common_similarity(given: Rig, true: Rig) -> tuple[Similarity, float]:
  """What all given cameras share: the map true world -> given world, and what remains, pixels.

  The remainder is the root mean square distance between where the given and the true cameras see
  points of a box around the animal.
  """
  from scipy.optimize import least_squares
  from scipy.spatial.transform import Rotation

  line = recording_files.MM * np.linspace(-0.6, 0.6, 4)
  points = np.stack(np.meshgrid(line, line, line), -1).reshape(-1, 3)
  wanted = project_points(true, points)

  def similarity(v: np.ndarray) -> Similarity:
    rotation = Rotation.from_rotvec(v[:3]).as_matrix()
    shift = recording_files.MM * v[3:6]
    return Similarity(scale=float(np.exp(v[6])), rotation=rotation, translation=shift)

  def off(v: np.ndarray) -> np.ndarray:
    found = project_points(given, similarity(v).points(points)) - wanted
    return np.asarray(np.where(np.isfinite(found), found, 1e3).reshape(-1))

  best = least_squares(off, np.zeros(7))
  return similarity(best.x), float(np.sqrt(2 * np.square(best.fun).mean()))
