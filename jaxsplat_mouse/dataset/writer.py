"""Writes the scenes of a FaceLift dataset, which appear whole or not at all.

    ROOT/scene_0000/opencv_cameras.json, images/cam_000.png ...    32 RGBA views, straight alpha
    ROOT/train.txt, val.txt                  `lists`: one scene folder a line
    ROOT/manifest.jsonl                      `scene_records`: one record for each attempt
    ROOT/mouse_gslrm_synthetic.yaml          `training_yaml`: a training configuration

Only the lists and the training configuration hold absolute paths; after a move,
`python -m jaxsplat_mouse.validate ROOT --relocate` rewrites them.
"""

from __future__ import annotations

import hashlib
import os
import pathlib
import re
from typing import Any

import numpy as np

from jaxsplat_mouse.cameras import Cameras
from jaxsplat_mouse.dataset import camera_file
from jaxsplat_mouse.dataset.scene_records import SceneRecord
from jaxsplat_mouse.io import atomic, images

_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.+=-]{0,149}")


def to_rgba8(rgb: np.ndarray, alpha: np.ndarray) -> np.ndarray:
  """Converts renders over black to 8-bit RGBA with straight alpha.

  The colour is divided by the alpha in floating point, before either is rounded, so edges keep
  their colour; both are rounded to the nearest level.

  Args:
    rgb: (..., H, W, 3) colour multiplied by alpha.
    alpha: (..., H, W) in [0, 1].

  Returns:
    uint8 (..., H, W, 4), colour 0 where alpha is 0.

  Raises:
    ValueError: shapes that do not match, or values that are not finite.
  """
  rgb, alpha = np.asarray(rgb, np.float32), np.asarray(alpha, np.float32)
  if rgb.shape != (*alpha.shape, 3):
    raise ValueError(
      f"rgb {rgb.shape} and alpha {alpha.shape}: expected (..., H, W, 3), (..., H, W)"
    )
  out = np.zeros((*alpha.shape, 4), np.uint8)
  for target, colour, cover in zip(
    out.reshape(-1, *out.shape[-3:]),
    rgb.reshape(-1, *rgb.shape[-3:]),
    alpha.reshape(-1, *alpha.shape[-2:]),
    strict=True,
  ):
    _to_rgba8_view(target, colour, cover)
  return out


def _to_rgba8_view(out: np.ndarray, rgb: np.ndarray, alpha: np.ndarray) -> None:
  # A sum is not finite if any term is not, and costs a fraction of a test of each.
  if not np.isfinite(rgb.sum() + alpha.sum()):
    raise ValueError("renders with values that are not finite cannot be stored as 8-bit images")
  covered = alpha > 0
  rows, columns = np.flatnonzero(covered.any(1)), np.flatnonzero(covered.any(0))
  if len(rows) == 0:
    return
  box = np.s_[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]  # the animal fills little of it
  out[box] = straight_levels(rgb[box], alpha[box])


def straight_levels(rgb: Any, alpha: Any, xp: Any = np) -> Any:
  """Returns the levels of `to_rgba8` before they are cut to integers.

  Args:
    rgb: (..., 3) colour multiplied by alpha.
    alpha: (...) in [0, 1].
    xp: `numpy`, or `jax.numpy` where the renders are on a device.

  Returns:
    float32 (..., 4).
  """
  level = xp.clip(alpha, 0.0, 1.0) * np.float32(255) + np.float32(0.5)
  visible = level >= 1.0
  straight = rgb / xp.where(visible, alpha, 1.0)[..., None]
  colour = xp.clip(straight, 0.0, 1.0) * np.float32(255) + np.float32(0.5)
  return xp.concatenate([xp.where(visible[..., None], colour, 0.0), level[..., None]], -1)


def write_scene(
  root: str | os.PathLike[str],
  name: str,
  rgba: np.ndarray,
  cameras: Cameras,
  *,
  scene_id: str | None = None,
  extra: dict[str, Any] | None = None,
  png_level: int = 1,
  overwrite: bool = False,
) -> dict[str, str]:
  """Writes the scene `root/name`, which appears whole, flushed to the disk, or not at all.

  Args:
    root: the dataset, created where it is missing.
    name: the scene's folder: letters, digits and _ . + = -, at most 150.
    rgba: uint8 (V, S, S, 4), straight alpha; colour under alpha 0 is dropped.
    cameras: (V,) cameras of S x S images.
    scene_id: the `id` in the camera file, by default the name.
    extra: more top-level keys for the camera file.
    png_level: zlib level, see `images.encode_png`.
    overwrite: replace an existing scene.

  Returns:
    SHA-256 of every file by path relative to the scene's folder.

  Raises:
    ValueError: a name or arrays that make no FaceLift scene.
    FileExistsError: the scene exists and `overwrite` is false.
    OSError: the disk is full or not writable; nothing of the scene is left behind.
  """
  _check_scene(name, rgba, cameras)
  root = pathlib.Path(root)
  root.mkdir(parents=True, exist_ok=True)
  names = [f"images/cam_{i:03d}.png" for i in range(len(rgba))]
  hashes = {}

  def write(folder: pathlib.Path, relative: str, data: bytes) -> None:
    (folder / relative).write_bytes(data)
    hashes[relative] = hashlib.sha256(data).hexdigest()

  with atomic.new_folder(root / name, overwrite=overwrite) as folder:
    (folder / "images").mkdir()
    for relative, view in zip(names, rgba, strict=True):
      visible = np.where(view[..., 3:] == 0, np.uint8(0), view)
      write(folder, relative, images.encode_png(visible, png_level))
    text = camera_file.cameras_json(cameras, names, scene_id=scene_id or name, extra=extra)
    write(folder, camera_file.CAMERAS_FILE, text.encode())
  return hashes


def _check_scene(name: str, rgba: np.ndarray, cameras: Cameras) -> None:
  if not _NAME.fullmatch(name):
    raise ValueError(f"scene name {name!r}: expected letters, digits and _ . + = -, at most 150")
  views, size = len(cameras), cameras.width
  if rgba.dtype != np.uint8 or rgba.shape != (views, size, size, 4) or cameras.height != size:
    raise ValueError(
      f"scene {name}: images {rgba.dtype} {rgba.shape}, cameras {views} of "
      f"{cameras.width} x {cameras.height}; expected uint8 (V, S, S, 4) and V cameras of S x S"
    )


def scene_hashes(folder: str | os.PathLike[str]) -> dict[str, str]:
  """Returns the SHA-256 of every file below a folder by relative path; {} without a folder."""
  folder = pathlib.Path(folder)
  files = sorted(path for path in folder.rglob("*") if path.is_file())
  return {
    path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
    for path in files
  }


def is_complete(root: str | os.PathLike[str], record: SceneRecord | None) -> bool:
  """Returns whether the dataset contains the scene of a record, byte for byte."""
  if record is None or record.status == "failed" or not record.hashes:
    return False
  return scene_hashes(pathlib.Path(root, record.scene)) == record.hashes
