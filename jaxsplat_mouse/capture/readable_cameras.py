"""Opens the cameras of a recording and leaves out those that cannot be read."""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Iterable, Sequence

import numpy as np

from jaxsplat_mouse.capture import lens
from jaxsplat_mouse.capture.frame_reader import FrameReader
from jaxsplat_mouse.capture.lens import Pinhole
from jaxsplat_mouse.capture.prepare_options import check_camera_names
from jaxsplat_mouse.capture.raw_capture import Capture
from jaxsplat_mouse.errors import InputError

_ENOUGH = 4  # cameras that a scene needs, in a rig that has as many; three otherwise


def min_cameras(capture: Capture) -> int:
  """Returns the number of cameras that a scene needs."""
  return max(3, min(_ENOUGH, len(capture.rig)))


def find_readable_cameras(
  capture: Capture, frame_reader: FrameReader, frames: np.ndarray, without: Sequence[str] = ()
) -> tuple[dict[int, Pinhole], list[str]]:
  """Opens every camera and builds the pinhole that replaces it.

  Args:
    capture: the recording.
    frame_reader: reads its pictures.
    frames: (F, V) frame of each camera in the chosen moments; -1 for none.
    without: names of cameras to leave out.

  Returns:
    The pinholes of the readable cameras by number of the camera, and why the others are left out.

  Raises:
    InputError: `without` names no camera of the rig, or a package is missing.
  """
  frame_reader.require_packages()
  check_camera_names("--without", without, capture.rig.names)
  pinholes, problems = {}, []
  for view, name in enumerate(capture.rig.names):
    try:
      if name in without:
        raise InputError(name, "", "named by --without")
      pinholes[view] = _open_camera(capture, frame_reader, frames[:, view], view)
    except (InputError, ValueError) as error:
      problems.append(str(error))
  return pinholes, problems


def require_enough_cameras(capture: Capture, count: int, problems: Sequence[str]) -> None:
  """Checks that enough cameras are readable.

  Args:
    capture: the recording.
    count: number of readable cameras.
    problems: why the others are left out.

  Raises:
    InputError: there are fewer than a scene needs.
  """
  if count < min_cameras(capture):
    reason = problems[0] if problems else "a calibration with more cameras"
    problem = f"{count} cameras can be used; expected {min_cameras(capture)} ({reason})"
    raise InputError(capture.path, "cameras", problem)


def require_animals(
  capture: Capture, frame_reader: FrameReader, views: Iterable[int], frames: np.ndarray
) -> None:
  """Checks that each of several animals has a silhouette somewhere.

  Args:
    capture: the recording.
    frame_reader: reads its masks.
    views: numbers of the readable cameras.
    frames: (F, V) frame of each camera in the chosen moments; -1 for none.

  Raises:
    InputError: there is an animal without any.
  """
  missing = set(range(len(capture.animals)))
  for moment, view in itertools.product(frames, list(views)):
    if not missing:
      return
    with contextlib.suppress(InputError):  # reported where the picture is needed
      missing -= frame_reader.animals_in(view, int(moment[view]))
  if missing:
    name = capture.animals[min(missing)].name
    raise InputError("--animals", name, "no camera shows this animal in any moment")


def _open_camera(
  capture: Capture, frame_reader: FrameReader, frames: np.ndarray, view: int
) -> Pinhole:
  """Opens one camera's files and builds its pinhole; raises InputError or ValueError."""
  frame_reader.open_camera(view)
  if not (frames >= 0).any():
    problem = "no frame in any of the chosen moments"
    raise InputError(capture.path, capture.rig.names[view], problem)
  size = frame_reader.image_size(view, int(frames[frames >= 0][0]))
  return lens.make_pinhole(capture.rig, view, size)
