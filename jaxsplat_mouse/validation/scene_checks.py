"""Checks one scene folder: camera file, images, and through them the geometry."""

from __future__ import annotations

import json
import os
import pathlib
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
from PIL import Image

from jaxsplat_mouse.validation import geometry_checks
from jaxsplat_mouse.validation.geometry_checks import Frame
from jaxsplat_mouse.validation.rules import Rules

CAMERAS = "opencv_cameras.json"
MAX_SIDE = 16384


def check_scene(folder: pathlib.Path, rules: Rules) -> tuple[int, list[str]]:
  """Returns the number of frames of a scene folder, and its faults."""
  path = folder / CAMERAS
  try:
    data = json.loads(path.read_text(encoding="utf-8"))
    frames = data["frames"]
    if not isinstance(frames, list) or not frames:
      raise TypeError("frames is no list of cameras")
  except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
    return 0, [f"{path}: {describe_error(error)}; expected a JSON object with frames"]
  faults = [f"{folder / name}: {problem}" for name, problem in leftovers(folder)]
  if len(frames) != rules.views:
    faults.append(f"{path}: frames: {len(frames)}; expected {rules.views}")
  names = [frame.get("file_path") if isinstance(frame, dict) else None for frame in frames]
  views = []
  for i, frame in enumerate(frames):
    field = f"{path}: frames[{i}]"
    if isinstance(names[i], str) and names[i] in names[:i]:
      first = names.index(names[i])
      faults.append(f"{field}.file_path: {names[i]}, as in frames[{first}]; expected its own image")
    try:
      found, view = _check_frame(folder, field, frame, i, rules)
    except _UnreadableError as error:
      found, view = [str(error)], None
    faults += found
    views += [view] if view is not None else []
  if len(views) == len(frames) and not faults:
    faults += [f"{folder}: {problem}" for problem in geometry_checks.check_solid(views, rules)]
  return len(frames), faults


class _UnreadableError(Exception):
  """A fault that leaves nothing of the frame to check."""


def _check_frame(
  folder: pathlib.Path, field: str, frame: Any, index: int, rules: Rules
) -> tuple[list[str], Frame]:
  w2c, intrinsics, size, name = _parse_frame(field, frame)
  rgba = _read_rgba(folder, f"{field}.file_path", name)
  height, width = rgba.shape[:2]
  faults = [f"{folder / name}: {problem}" for problem in _check_image(rgba, rules)]
  if size != (width, height):
    given = f"{size[0]:g} x {size[1]:g}"
    faults.append(f"{field}.w, h: {given}; expected the image's {width} x {height}")
  faults += [f"{field}.w2c: {problem}" for problem in geometry_checks.check_rigid(w2c)]
  if rules.orbit:
    faults += [
      f"{field}.{problem}" for problem in geometry_checks.check_intrinsics(intrinsics, rules)
    ]
    faults += [
      f"{field}.w2c: {problem}" for problem in geometry_checks.check_pose(w2c, index, rules)
    ]
  elif min(intrinsics[:2]) <= 0:
    faults.append(f"{field}.fx, fy: {intrinsics[:2].tolist()}; expected > 0")
  hidden = None
  if "observed_path" in frame:
    hidden = _read_hidden(folder, f"{field}.observed_path", frame["observed_path"], (height, width))
  return faults, Frame(w2c=w2c, intrinsics=intrinsics, mask=rgba[..., 3] > 127, hidden=hidden)


def _parse_frame(field: str, frame: Any) -> tuple[np.ndarray, np.ndarray, tuple[float, float], str]:
  if not isinstance(frame, dict):
    raise _UnreadableError(f"{field}: {type(frame).__name__}; expected an object")
  for key in ("w", "h", "fx", "fy", "cx", "cy", "w2c", "file_path"):
    if key not in frame:
      raise _UnreadableError(f"{field}.{key}: missing")
  numbers = []
  for key in ("fx", "fy", "cx", "cy", "w", "h"):
    value = frame[key]
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not abs(value) < 1e30:
      raise _UnreadableError(f"{field}.{key}: {value!r:.40}; expected a finite number")
    numbers.append(float(value))
  try:
    w2c = np.array(frame["w2c"], np.float64)
  except (TypeError, ValueError, OverflowError):
    w2c = np.zeros(0)
  if w2c.shape != (4, 4) or not np.isfinite(w2c).all():
    raise _UnreadableError(f"{field}.w2c: expected 4x4 finite numbers")
  name = frame["file_path"]
  if not isinstance(name, str) or not name.strip() or not name.isprintable():
    raise _UnreadableError(f"{field}.file_path: {name!r:.40}; expected a relative path")
  return w2c, np.array(numbers[:4]), (numbers[4], numbers[5]), name


def _read_rgba(folder: pathlib.Path, field: str, name: str) -> np.ndarray:
  return _read_png(folder, field, name, "RGBA")


def _read_hidden(
  folder: pathlib.Path, field: str, name: object, shape: tuple[int, int]
) -> np.ndarray:
  """Returns the pixels (h, w) bool that a grey image of this shape marks as not observed."""
  if not isinstance(name, str):
    raise _UnreadableError(f"{field}: {name!r:.40}; expected a relative path")
  observed = _read_png(folder, field, name, "L")
  if observed.shape != shape:
    size = f"{observed.shape[1]} x {observed.shape[0]}"
    raise _UnreadableError(f"{field}: {size}; expected the image's {shape[1]} x {shape[0]}")
  return observed < 128


def _read_png(folder: pathlib.Path, field: str, name: str, mode: str) -> np.ndarray:
  try:
    real = (folder / name).resolve()
    inside = folder.resolve() in real.parents and not pathlib.PurePath(name).is_absolute()
    if not inside:
      raise _UnreadableError(f"{field}: {name} leads out of the scene; expected a path inside")
    if not real.is_file():
      raise _UnreadableError(f"{field}: {folder / name} is missing")
    with warnings.catch_warnings():
      warnings.simplefilter("ignore", Image.DecompressionBombWarning)
      image = Image.open(real, formats=("PNG",))
    with image:
      if image.mode != mode or max(image.size) > MAX_SIDE:
        size = f"{image.width} x {image.height}"
        raise _UnreadableError(f"{folder / name}: {image.mode} of {size}; expected {mode}")
      return np.asarray(image)
  except _UnreadableError:
    raise
  except Exception as error:  # whatever a decoder raises, the image is broken
    problem = f"broken ({describe_error(error)}); expected a whole PNG"
    raise _UnreadableError(f"{folder / name}: {problem}") from None


def _check_image(rgba: np.ndarray, rules: Rules) -> Iterator[str]:
  """Yields the faults of one RGBA image (h, w, 4)."""
  height, width = rgba.shape[:2]
  alpha = rgba[..., 3]
  if rules.orbit and (width, height) != (rules.size, rules.size):
    yield f"{width} x {height}; expected {rules.size} x {rules.size}"
  if not rules.any_hidden_colour:
    # Four bytes that are not all 0 although the fourth is: a colour.
    hidden = int(((np.ascontiguousarray(rgba).view(np.uint32)[..., 0] != 0) & (alpha == 0)).sum())
    if hidden:
      yield f"alpha: colour under alpha 0 in {hidden} pixels; expected RGB 0 there"
  if _looks_premultiplied(rgba):
    yield "alpha: the colour looks multiplied by alpha; expected straight alpha"
  mask = alpha > 127
  if not mask.any():
    yield "alpha: empty silhouette; expected an object"
  elif mask.all():
    yield "alpha: solid everywhere; expected an object before an empty background"
  elif not rules.may_touch_edge and (
    mask[0].any() or mask[-1].any() or mask[:, 0].any() or mask[:, -1].any()
  ):
    yield "alpha: the object touches the image edge; expected it inside (or --may_touch_edge)"


def _looks_premultiplied(rgba: np.ndarray) -> bool:
  """Returns whether colours fade to black with alpha, as in premultiplied images.

  Straight colours exceed alpha somewhere along an edge, unless the animal is black. So where they
  never do, the edge is also compared with the solid colour next to it: is it that colour, or that
  colour times alpha?
  """
  alpha = rgba[..., 3].astype(np.float32)
  y, x = np.nonzero((alpha > 8) & (alpha < 247))
  brightest = rgba[y, x, :3].max(-1)
  if len(y) <= 50 or (brightest > alpha[y, x] + 2).mean() >= 0.02:
    return False
  dy, dx = (offset.ravel() for offset in np.mgrid[-2:3, -2:3])
  rows = np.clip(y[:, None] + dy, 0, alpha.shape[0] - 1)
  columns = np.clip(x[:, None] + dx, 0, alpha.shape[1] - 1)
  solid = (alpha[rows, columns] >= 247)[..., None]
  beside = (rgba[rows, columns, :3] * solid).sum(1) / np.maximum(solid.sum(1), 1)
  known = solid.any((1, 2))
  if not known.any():
    return True
  colour, share = rgba[y, x, :3].astype(np.float32), alpha[y, x, None] / 255
  straight = np.abs(colour - beside)[known].mean()
  premultiplied = np.abs(colour - beside * share)[known].mean()
  return bool(premultiplied < straight)


def leftovers(folder: pathlib.Path) -> Iterator[tuple[str, str]]:
  """Yields the names of temporaries in a folder, and what is wrong with them."""
  for name in sorted(os.listdir(folder)):
    if name.startswith(".tmp-"):
      yield name, "left by a killed writer; expected no temporaries"


def describe_error(error: Exception) -> str:
  """Returns why something failed, in one line."""
  if isinstance(error, KeyError):
    return f"no key {error}"
  return (getattr(error, "strerror", None) or str(error) or type(error).__name__).splitlines()[0]
