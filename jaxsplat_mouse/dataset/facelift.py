"""FaceLift scenes: a folder with `opencv_cameras.json` and the images that it names.

Everything here that reads raises `InputError` with the file, the field and what was expected.
"""

from __future__ import annotations

import dataclasses
import os
import pathlib

import numpy as np
from absl import logging

from jaxsplat_mouse.cameras import nearest_point_to_axes
from jaxsplat_mouse.dataset import camera_file
from jaxsplat_mouse.dataset.camera_file import CAMERAS_FILE, CameraFile
from jaxsplat_mouse.errors import InputError
from jaxsplat_mouse.io import checks, images
from jaxsplat_mouse.scene import Scene

MIN_VIEWS = 3


@dataclasses.dataclass(frozen=True, kw_only=True)
class FaceLiftScene:
  """A scene and what else its files contain.

  Attributes:
    scene: the views, padded at the right and bottom to one shape; its `frames` are the parts
      without padding.
    cameras: the cameras of the file, with the images' own sizes.
    folder: the folder of the scene.
    warnings: what can be used but is suspicious; already logged.
  """

  scene: Scene
  cameras: CameraFile
  folder: pathlib.Path
  warnings: tuple[str, ...]

  @property
  def id(self) -> str:
    """The scene's id, by default the folder's name."""
    return self.cameras.id

  @property
  def names(self) -> tuple[str, ...]:
    """Image paths relative to the folder."""
    return self.cameras.names


def read_scene(folder: str | os.PathLike[str]) -> FaceLiftScene:
  """Reads a scene folder: PNG or JPEG, RGBA with straight alpha or RGB on a white background.

  `w` and `h` may be missing: the images have them. Colour under alpha 0 is dropped. Pixels that
  `observed_path` marks as not observed become `Scene.hidden`.

  Raises:
    InputError: anything missing, broken or contradictory in the camera file or an image.
  """
  folder = pathlib.Path(folder)
  if not folder.is_dir():
    raise InputError(folder, "", f"no such folder; expected a scene folder with {CAMERAS_FILE}")
  cameras_path = folder / CAMERAS_FILE
  cameras = camera_file.parse(cameras_path)
  _check_rig(cameras_path, cameras)
  noticed: dict[str, list[str]] = {}
  views = []
  for i, name in enumerate(cameras.names):
    path = checks.path_inside(folder, name, cameras_path, f"frames[{i}].file_path")
    views.append(_read_view(path, f"frames[{i}].file_path", name, noticed))
  sizes = np.array([view.shape[1::-1] for view in views])
  _check_sizes(cameras_path, cameras, sizes, noticed)
  warnings = [f"{folder}: {what}: {', '.join(names)}" for what, names in noticed.items()]
  for warning in warnings:
    logging.warning("%s", warning)
  cameras = dataclasses.replace(cameras, sizes=sizes)
  scene = _hide(_padded(cameras, views), _read_hidden(folder, cameras))
  return FaceLiftScene(scene=scene, cameras=cameras, folder=folder, warnings=tuple(warnings))


def _check_rig(path: pathlib.Path, cameras: CameraFile) -> None:
  """Refuses too few views, views given twice, and cameras with their backs to the scene."""
  views = len(cameras.names)
  if views < MIN_VIEWS:
    raise InputError(path, "frames", f"{views} views; expected at least {MIN_VIEWS}")
  rotations, translations = cameras.world_to_camera[:, :3, :3], cameras.world_to_camera[:, :3, 3]
  centers = -np.einsum("vij,vi->vj", rotations, translations)
  reach = max(float(np.abs(centers - centers.mean(0)).max()), 1e-9)
  for j in range(views):
    for i in range(j):
      if cameras.names[i] == cameras.names[j]:
        raise InputError(
          path,
          f"frames[{j}].file_path",
          f"{cameras.names[j]}, as in frames[{i}]; expected one image a camera",
        )
      turned = np.abs(rotations[i] - rotations[j]).max()
      if turned < 1e-5 and np.abs(centers[i] - centers[j]).max() < 1e-5 * reach:
        raise InputError(
          path, f"frames[{j}].w2c", f"the same camera as frames[{i}]; expected different viewpoints"
        )
  # The point nearest to all optical axes must lie in front of at least one camera.
  target = nearest_point_to_axes(cameras.world_to_camera)
  if target is not None and ((target - centers) * rotations[:, 2]).sum(-1).max() < 0:
    raise InputError(
      path,
      "frames",
      "every camera looks away from the scene; expected OpenCV "
      "axes, z forward (OpenGL poses have y and z flipped; c2w is not w2c)",
    )


def _check_sizes(
  path: pathlib.Path, cameras: CameraFile, sizes: np.ndarray, noticed: dict[str, list[str]]
) -> None:
  for i, (size, written) in enumerate(zip(sizes, cameras.sizes, strict=True)):
    for key, real, claimed in zip("wh", size, written, strict=True):
      if claimed not in (0, real):
        raise InputError(
          path,
          f"frames[{i}].{key}",
          f"{claimed}, but {cameras.names[i]} is {size[0]} x {size[1]} "
          "pixels; expected the image's size, with fx, fy, cx, cy in its pixels",
        )
    center = cameras.intrinsics[i, 2:]
    if np.abs(center / size - 0.5).max() > 0.4:
      what = "cx, cy at or beyond the border (an image resized without its intrinsics?)"
      noticed.setdefault(what, []).append(cameras.names[i])


def _read_view(
  path: pathlib.Path, field: str, name: str, noticed: dict[str, list[str]]
) -> np.ndarray:
  """One image as uint8 RGBA (h, w, 4) with straight alpha and no colour under alpha 0."""
  image = images.read_image(path, field)
  if image.shape[2] == 3 or image[..., 3].min() == 255:
    what = "no alpha channel" if image.shape[2] == 3 else "alpha is 255 everywhere"
    if images.white_border_share(image[..., :3]) < 0.5:
      raise InputError(
        path,
        field,
        f"{what} and no white background; expected RGBA with the "
        "animal's silhouette as alpha, or RGB on white",
      )
    noticed.setdefault(f"{what}, silhouette taken from the white background", []).append(name)
    image = images.rgba_from_white(image[..., :3])
  solid = image[..., 3] > 127
  if not solid.any():
    raise InputError(path, field, "empty silhouette; expected an animal with alpha above one half")
  if solid[0].any() or solid[-1].any() or solid[:, 0].any() or solid[:, -1].any():
    noticed.setdefault("silhouette touches the image edge", []).append(name)
  return np.where(image[..., 3:] == 0, np.uint8(0), image)


def _read_hidden(folder: pathlib.Path, cameras: CameraFile) -> np.ndarray | None:
  """Returns the hidden pixels (V, H, W) bool of a scene, padded like its images; None for none."""
  if not any(cameras.observed_names):
    return None
  width, height = (int(side) for side in cameras.sizes.max(0))
  hidden = np.zeros((len(cameras.names), height, width), bool)
  for i, (name, (w, h)) in enumerate(zip(cameras.observed_names, cameras.sizes, strict=True)):
    if not name:
      continue
    field = f"frames[{i}].{camera_file.OBSERVED_KEY}"
    path = checks.path_inside(folder, name, folder / CAMERAS_FILE, field)
    observed = images.read_image(path, field, grey_too=True)
    if observed.shape != (h, w):
      problem = f"shape {observed.shape}; expected grey, {w} x {h} pixels as {cameras.names[i]}"
      raise InputError(path, field, problem)
    hidden[i, :h, :w] = observed < 128
  return hidden


def _hide(scene: Scene, hidden: np.ndarray | None) -> Scene:
  """Returns the scene with hidden pixels (V, H, W), which are empty."""
  if hidden is None:
    return scene
  images = np.where(hidden[..., None], np.float32(0), scene.images)
  alphas = np.where(hidden, np.float32(0), scene.alphas)
  return dataclasses.replace(scene, images=images, alphas=alphas, hidden=hidden)


def _padded(cameras: CameraFile, views: list[np.ndarray]) -> Scene:
  width, height = (int(side) for side in cameras.sizes.max(0))
  rgba = np.zeros((len(views), height, width, 4), np.float32)
  for target, view in zip(rgba, views, strict=True):
    target[: view.shape[0], : view.shape[1]] = view / np.float32(255)
  frames = np.concatenate([np.zeros_like(cameras.sizes), cameras.sizes], -1).astype(np.float32)
  return Scene(
    cameras=cameras.cameras(slice(None), width, height),
    images=rgba[..., :3].copy(),
    alphas=rgba[..., 3].copy(),
    frames=frames,
    view_mask=np.ones(len(views), bool),
  )
