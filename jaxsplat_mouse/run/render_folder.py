"""Renders the Gaussians of a PLY at the cameras of a file into a scene folder."""

from __future__ import annotations

import dataclasses
import os
import pathlib

import numpy as np

from jaxsplat_mouse.cameras import Cameras
from jaxsplat_mouse.dataset import camera_file
from jaxsplat_mouse.errors import InputError
from jaxsplat_mouse.io import atomic, images, ply
from jaxsplat_mouse.run.fit_store import SCENE_FILE, read_filter_width, read_transform
from jaxsplat_mouse.run.renders import render_groups
from jaxsplat_mouse.scene import Similarity


def render_to_folder(
  gaussians: str | os.PathLike[str],
  cameras: str | os.PathLike[str],
  output: str | os.PathLike[str],
  frame: str = "canonical",
) -> int:
  """Renders a PLY at the cameras of a file into a scene folder that appears whole or not at all.

  Args:
    gaussians: the PLY, with `scene.json` beside it where `frame` is `input`.
    cameras: the camera file; image sizes may differ.
    output: the folder; one that holds a scene and nothing else is replaced.
    frame: `canonical` or `input`, the world of the cameras.

  Returns:
    the number of views.

  Raises:
    InputError: a file that cannot be read, or a folder that cannot be written.
  """
  splats, wanted = ply.read_gaussians(gaussians), camera_file.read_cameras(cameras)
  similarity = Similarity()
  if frame == "input":
    similarity = read_transform(pathlib.Path(gaussians).parent / SCENE_FILE)[1]
  moved = similarity.world_to_camera(wanted.world_to_camera)
  groups = dataclasses.replace(wanted, world_to_camera=moved).groups()
  rendered = render_groups(splats, groups, read_filter_width(pathlib.Path(gaussians).parent))
  output = pathlib.Path(output).absolute()
  _check_output(output)
  names = [f"images/cam_{i:03d}.png" for i in range(len(rendered))]
  try:
    output.parent.mkdir(parents=True, exist_ok=True)
    with atomic.new_folder(output, overwrite=True) as folder:
      (folder / "images").mkdir()
      for name, image in zip(names, rendered, strict=True):
        (folder / name).write_bytes(images.encode_png(image))
      given = [_camera(wanted, i) for i in range(len(names))]
      camera_file.write_scene_cameras(folder, given, names, scene_id=wanted.id)
  except OSError as error:
    raise InputError(output, "", f"cannot be written ({error.strerror or error})") from None
  return len(rendered)


def _camera(wanted: camera_file.CameraFile, view: int) -> Cameras:
  """Returns one camera of the file, float64."""
  width, height = wanted.sizes[view]
  return Cameras(
    world_to_camera=np.asarray(wanted.world_to_camera[view]),
    intrinsics=np.asarray(wanted.intrinsics[view]),
    width=int(width),
    height=int(height),
  )


def _check_output(folder: pathlib.Path) -> None:
  """Checks that nothing but a scene folder would be replaced."""
  if not folder.exists():
    return
  held = {p.name for p in folder.iterdir()} if folder.is_dir() else {folder.name}
  if not held <= {"images", camera_file.CAMERAS_FILE}:
    other = sorted(held - {"images", camera_file.CAMERAS_FILE})[0]
    raise InputError(folder, "", f"holds {other}; expected a new folder, or a scene to replace")
