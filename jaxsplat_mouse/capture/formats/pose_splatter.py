"""Pose Splatter projects: an HDF5 file of cameras, videos and grey mask videos.

    FOLDER/config.json          Pose Splatter's configuration, which names the following files;
                                without it, they have these names:
    FOLDER/camera_params.h5     camera_parameters/{rotation (V,3,3), translation (V,3), intrinsic}
    FOLDER/vertical_lines.npz   up (3,), optional
    FOLDER/videos/{i}.mp4       the photographs
    FOLDER/masks/{i}.mp4        grey silhouettes, 128 and more is animal

`data_directory` and `project_directory` of the config are where their owner put the data and may be
absolute; the files below them may not lead out.

x_cam = R X + t, K for column vectors and for videos of full size: `image_downsample` concerns Pose
Splatter alone. The frames have no distortion. The calibrations come from OpenCV, so (0, 0) is the
centre of the first pixel and 0.5 is added. The file does not state the unit of its world.

Up. A `Capture` names an axis, so a world with an `up` is rotated (not scaled) by the smallest
rotation that turns `up` into +z. Tools that write the file do not agree on which end of that line
is up, so the cameras decide; they are assumed to be held upright.

Unsupported: `center_rotation.npz`, the animal's place; silhouettes give it.
"""

from __future__ import annotations

import dataclasses
import io
import os
import pathlib
import zipfile
from typing import Any

import numpy as np

from jaxsplat_mouse.canonical import rotation_to_z
from jaxsplat_mouse.capture import rig_checks, synchronization
from jaxsplat_mouse.capture.raw_capture import Capture, Stream
from jaxsplat_mouse.capture.rig import OPENCV_FIRST_PIXEL, Rig
from jaxsplat_mouse.errors import InputError, reason
from jaxsplat_mouse.io import checks, hdf5

CONFIG_FILE, CAMERAS_FILE, UP_FILE = "config.json", "camera_params.h5", "vertical_lines.npz"
_MAX_UP_BYTES = 4096  # of three numbers with their header


def read_capture(path: str | os.PathLike[str]) -> Capture:
  """Reads a project from its folder, or from its configuration file.

  Raises:
    InputError: a file is missing or broken, or a value is invalid.
  """
  path = pathlib.Path(path)
  config_file = path / CONFIG_FILE if path.is_dir() else path
  folder = config_file.parent
  config = checks.read_json(config_file) if config_file.is_file() else {}
  data = folder / _text(config_file, config, "data_directory", ".")
  project = folder / _text(config_file, config, "project_directory", ".")
  camera_file = _camera_file(config_file, config)
  up_name = _text(config_file, config, "vertical_lines_fn", UP_FILE)
  up_file = checks.path_inside(project, up_name, config_file, "vertical_lines_fn")
  rig, up = _rotate_up(read_rig(camera_file), up_file)
  count = len(rig)
  pictures = _videos(config_file, config, "video_fns", data, "videos", count)
  masks = _videos(config_file, config, "mask_video_fns", data, "masks", count)
  if pictures is None:
    raise InputError(data / "videos", "", "no such folder; expected one video for each camera")
  moments, frames = synchronization.match_frames(path, pictures, rig.names)
  return Capture(
    path=path,
    rig=rig,
    pictures=pictures,
    masks=masks,
    frames=frames,
    moments=moments,
    up=up,
  )


def read_rig(file: pathlib.Path) -> Rig:
  """Reads only the cameras, in the world of the file.

  Raises:
    InputError: as `read_capture`; videos are not needed.
  """
  with hdf5.open_hdf5(file) as opened:
    group = hdf5.get_child(file, "camera_parameters", opened, "camera_parameters")
    keys = ("rotation", "translation", "intrinsic")
    fields = {key: f"camera_parameters/{key}" for key in keys}
    rotation, translation, intrinsic = (
      hdf5.read_array(file, fields[key], hdf5.get_child(file, fields[key], group, key))
      for key in keys
    )
  rotation = checks.numbers(file, fields["rotation"], rotation, (None, 3, 3))
  count = len(rotation)
  if np.shape(translation) == (count, 3, 1):
    translation = translation[..., 0]
  translation = checks.numbers(file, fields["translation"], translation, (count, 3))
  intrinsic = checks.numbers(file, fields["intrinsic"], intrinsic, (count, 3, 3))
  poses, matrices = np.zeros((count, 4, 4)), np.zeros((count, 3, 3))
  for i in range(count):
    turn = checks.rotation(file, f"{fields['rotation']}[{i}]", rotation[i])
    poses[i] = checks.pose_matrix(turn, translation[i])
    matrices[i] = checks.intrinsics(file, f"{fields['intrinsic']}[{i}]", intrinsic[i])
  matrices[:, :2, 2] += OPENCV_FIRST_PIXEL
  rig = Rig(
    names=tuple(str(i) for i in range(count)),
    matrices=matrices,
    world_to_camera=poses,
    distortion=np.zeros((count, 5)),
    sizes=np.zeros((count, 2), np.int64),
  )
  return rig_checks.check_rig(file, rig)


def write_rig(capture: Capture, refined: Rig, folder: pathlib.Path) -> None:
  """Writes a copy of the project's camera file with other cameras, in the world of the file.

  Args:
    capture: the recording as it was read.
    refined: its cameras as they are to be read from the copy.
    folder: where the copy is written.

  Raises:
    InputError: the file can no longer be read.
  """
  config_file = capture.path / CONFIG_FILE if capture.path.is_dir() else capture.path
  config = checks.read_json(config_file) if config_file.is_file() else {}
  file = _camera_file(config_file, config)
  # The reader may have turned the world so that up is +z.
  turn = np.linalg.inv(capture.rig.world_to_camera[0]) @ read_rig(file).world_to_camera[0]
  poses, matrices = refined.world_to_camera @ turn, refined.matrices.copy()
  matrices[:, :2, 2] -= OPENCV_FIRST_PIXEL
  values = {
    "rotation": poses[:, :3, :3],
    "translation": poses[:, :3, 3],
    "intrinsic": matrices,
  }
  hdf5.copy_with_arrays(
    file, folder / file.name, {f"camera_parameters/{k}": v for k, v in values.items()}
  )


def _camera_file(config_file: pathlib.Path, config: dict[str, Any]) -> pathlib.Path:
  """Returns the path of the file of cameras."""
  project = config_file.parent / _text(config_file, config, "project_directory", ".")
  name = _text(config_file, config, "camera_fn", CAMERAS_FILE)
  return checks.path_inside(project, name, config_file, "camera_fn")


def _rotate_up(rig: Rig, up_file: pathlib.Path) -> tuple[Rig, str]:
  """Rotates the rig's world so that up is +z; returns the rig and its up.

  Without the file, the rig stays as it is and the cameras define up.
  """
  if not up_file.is_file():
    return rig, "cameras"
  axis = _read_up(up_file)
  own = -rig.world_to_camera[:, 1, :3].mean(0)
  axis = axis if axis @ own >= 0 else -axis
  turn = np.eye(4)
  turn[:3, :3] = rotation_to_z(axis)
  poses = rig.world_to_camera @ turn.T
  return dataclasses.replace(rig, world_to_camera=poses), "+z"


def _read_up(file: pathlib.Path) -> np.ndarray:
  """Reads the unit vector `up` of an npz file; unpacks nothing else."""
  try:
    with zipfile.ZipFile(file) as archive:
      if archive.getinfo("up.npy").file_size > _MAX_UP_BYTES:
        raise InputError(file, "up", "larger than three numbers; expected a vector")
      content = archive.read("up.npy")
    value = np.lib.format.read_array(io.BytesIO(content), allow_pickle=False)
  except InputError:
    raise
  except KeyError:
    raise InputError(file, "up", "missing; expected the world's up axis") from None
  except Exception as error:  # the zip and npy readers raise many types for a broken file
    problem = f"broken or cut short ({reason(error)}); expected the world's up axis"
    raise InputError(file, "up", problem) from None
  vector = checks.numbers(file, "up", np.ravel(value), (3,))
  length = float(np.linalg.norm(vector))
  if length < 1e-9:
    raise InputError(file, "up", "zero; expected the world's up axis")
  return vector / length


def _text(path: pathlib.Path, config: dict[str, Any], key: str, default: str) -> str:
  value = config.get(key, default)
  if not isinstance(value, str) or "\0" in value:
    raise InputError(path, key, "no text; expected a path")
  return value


def _videos(
  path: pathlib.Path, config: dict[str, Any], key: str, data: pathlib.Path, folder: str, count: int
) -> tuple[Stream, ...] | None:
  """Finds one video for each camera; returns None if neither list nor folder exists.

  Args:
    path: the configuration file, for messages.
    config: the configuration.
    key: its list of videos.
    data: the folder that the list is relative to.
    folder: where the videos are if there is no list.
    count: number of cameras.
  """
  if key not in config and not (data / folder).is_dir():
    return None
  names = config.get(key, [f"{folder}/{i}.mp4" for i in range(count)])
  if not isinstance(names, list) or len(names) != count:
    found = f"{len(names)} files" if isinstance(names, list) else "no list"
    raise InputError(path, key, f"{found}; expected one for each of {count} cameras")
  files = [checks.path_inside(data, name, path, f"{key}[{i}]") for i, name in enumerate(names)]
  for i, file in enumerate(files):
    if not file.is_file():
      raise InputError(file, f"{key}[{i}]", "no such video; expected one for each camera")
  return tuple(Stream(video=file) for file in files)
