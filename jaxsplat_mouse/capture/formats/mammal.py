"""MAMMAL mouse recordings: undistorted videos, masks, keypoints and one pickle of cameras.

    FOLDER/new_cam.pkl                                a list of dicts with K R T, mapx mapy
    FOLDER/videos_undist/{i}.mp4                      the photographs, undistorted
    FOLDER/simpleclick_undist/{i}.mp4                 grey silhouettes, lossy (optional)
    FOLDER/keypoints2d_undist/result_view_{i}.pkl     (T, 22, 3) x y confidence (optional)

x_cam = R X + T in millimetres, K for column vectors. The frames were undistorted, so the rig has no
distortion. Frames and keypoints come from OpenCV: (0, 0) is the centre of the first pixel, so 0.5
is added. `mapx` has the shape of the frames. The cameras ran in step: moment i is frame i.

The file has no points in space. Keypoints that at least three cameras are sure of are triangulated
and serve as labels: a network's marks are off by pixels, a wrong convention by hundreds of pixels.
"""

from __future__ import annotations

import os
import pathlib
import pickle
from typing import Any

import numpy as np

from jaxsplat_mouse.capture import rig_checks, synchronization
from jaxsplat_mouse.capture.raw_capture import Capture, Stream
from jaxsplat_mouse.capture.rig import OPENCV_FIRST_PIXEL, Labels, Rig
from jaxsplat_mouse.capture.triangulation import triangulate
from jaxsplat_mouse.errors import InputError
from jaxsplat_mouse.io import checks, images, restricted_pickle

CAMERAS_FILE = "new_cam.pkl"
_SURE = 0.5  # confidence, 0 to 1, from which a keypoint counts
_MIN_VIEWS = 3
_LABELLED_MOMENTS = 60  # spread over the recording


def read_capture(path: str | os.PathLike[str]) -> Capture:
  """Reads a recording from its folder.

  Raises:
    InputError: a file is missing or broken, the pickle contains anything but numbers, or the
      keypoints contradict the cameras.
  """
  path = pathlib.Path(path)
  rig = read_rig(path)
  pictures = tuple(_video(path / "videos_undist", camera) for camera in rig.names)
  masks = None
  if (path / "simpleclick_undist").is_dir():
    masks = tuple(_video(path / "simpleclick_undist", camera) for camera in rig.names)
  moments, frames = synchronization.match_frames(path, pictures, rig.names)
  return Capture(
    path=path,
    rig=rig,
    pictures=pictures,
    masks=masks,
    frames=frames,
    moments=moments,
    up="cameras",
  )


def read_rig(path: str | os.PathLike[str]) -> Rig:
  """Reads only the cameras and keypoints.

  Raises:
    InputError: as `read_capture`; videos are not needed.
  """
  path = pathlib.Path(path)
  file = path / CAMERAS_FILE
  entries = restricted_pickle.load_pickle(file)
  if isinstance(entries, dict):
    entries = list(entries.values())
  if not isinstance(entries, (list, tuple)) or not entries:
    raise InputError(file, "", "no list of cameras; expected dicts with K, R and T")
  cameras = [_camera(file, f"[{i}]", entry) for i, entry in enumerate(entries)]
  matrices, poses = np.stack([k for k, _, _ in cameras]), np.stack([p for _, p, _ in cameras])
  rig = Rig(
    names=tuple(str(i) for i in range(len(cameras))),
    matrices=matrices,
    world_to_camera=poses,
    distortion=np.zeros((len(cameras), 5)),
    sizes=np.array([size for _, _, size in cameras]),
    unit="mm",
    labels=_keypoints(path / "keypoints2d_undist", matrices, poses),
  )
  return rig_checks.check_rig(file, rig)


def write_rig(capture: Capture, refined: Rig, folder: pathlib.Path) -> None:
  """Writes a copy of the recording's pickle with other cameras.

  Args:
    capture: the recording as it was read.
    refined: its cameras as they are to be read from the copy.
    folder: where the copy is written.

  Raises:
    InputError: the pickle can no longer be read.
  """
  entries = restricted_pickle.load_pickle(capture.path / CAMERAS_FILE)
  cameras = list(entries.values()) if isinstance(entries, dict) else entries
  for view, camera in enumerate(cameras):
    pose, matrix = refined.world_to_camera[view], refined.matrices[view].copy()
    if not np.array_equal(capture.rig.matrices[view], matrix):
      matrix[:2, 2] -= OPENCV_FIRST_PIXEL
      camera["K"] = matrix
    if not np.array_equal(capture.rig.world_to_camera[view], pose):
      camera |= {"R": pose[:3, :3], "T": pose[:3, 3].reshape(np.shape(camera["T"]))}
  (folder / CAMERAS_FILE).write_bytes(pickle.dumps(entries, protocol=4))


def _camera(
  file: pathlib.Path, field: str, entry: Any
) -> tuple[np.ndarray, np.ndarray, tuple[int, int]]:
  """Parses K (3, 3), world-to-camera (4, 4) and image size of one camera."""
  matrix = checks.intrinsics(file, f"{field}.K", checks.get_field(file, field, entry, "K"))
  matrix[:2, 2] += OPENCV_FIRST_PIXEL
  turn = checks.rotation(file, f"{field}.R", checks.get_field(file, field, entry, "R"))
  shift = checks.get_field(file, field, entry, "T")
  if isinstance(shift, np.ndarray) and shift.size == 3:
    shift = shift.reshape(3)
  size = (0, 0)
  if isinstance(entry.get("mapx"), np.ndarray) and entry["mapx"].ndim == 2:
    size = images.check_image_size(file, f"{field}.mapx", entry["mapx"].shape[::-1])
  return matrix, checks.pose_matrix(turn, checks.numbers(file, f"{field}.T", shift, (3,))), size


def _video(folder: pathlib.Path, camera: str) -> Stream:
  """Returns a camera's video; a missing one costs only its camera, when the stream is opened."""
  return Stream(video=folder / f"{camera}.mp4")


def _keypoints(folder: pathlib.Path, matrices: np.ndarray, poses: np.ndarray) -> Labels | None:
  """Reads keypoints and triangulates them; None if enough cameras see none of them.

  Args:
    folder: the keypoint files.
    matrices: (V, 3, 3) intrinsics.
    poses: (V, 4, 4) world to camera.
  """
  if not folder.is_dir():
    return None
  views = [
    _read_keypoints(folder / f"result_view_{i}.pkl", _LABELLED_MOMENTS)
    for i in range(len(matrices))
  ]
  if len({view.shape for view in views}) != 1:
    shapes = ", ".join(str(view.shape) for view in views)
    raise InputError(folder, "", f"keypoints of the shapes {shapes}; expected one shape")
  marks = np.stack(views).reshape(len(views), -1, 3)
  sure = (marks[..., 2] >= _SURE).sum(0) >= min(_MIN_VIEWS, len(views))
  marks = marks[:, sure]
  if marks.shape[1] == 0:
    return None
  pixels = np.where(marks[..., 2:] >= _SURE, marks[..., :2] + OPENCV_FIRST_PIXEL, np.nan)
  return Labels(points=triangulate(matrices @ poses[:, :3], pixels), pixels=pixels)


def _read_keypoints(file: pathlib.Path, count: int) -> np.ndarray:
  """Reads keypoints (count, L, 3) of moments spread over the recording."""
  value = restricted_pickle.load_pickle(file)
  if isinstance(value, list):
    value = np.stack([checks.numbers(file, f"[{i}]", v, (None, 3)) for i, v in enumerate(value)])
  if not isinstance(value, np.ndarray) or value.ndim != 3 or len(value) == 0:
    raise InputError(file, "", "no array; expected x, y, confidence as (T, landmarks, 3)")
  chosen = np.unique(np.linspace(0, len(value) - 1, count).astype(np.int64))
  return checks.numbers(file, "", value[chosen], (None, None, 3))
