"""Built-in mice that walk: frames as trials of `quality.py`, for claims on frames and surfaces."""

from __future__ import annotations

import dataclasses
import functools
import os
import pathlib
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context

import numpy as np

from benchmarks import mice, quality
from jaxsplat_mouse.procedural_mouse.mouse import Mouse, make_mouse, render_truth, walking
from jaxsplat_mouse.procedural_mouse.mouse_scenes import input_cameras


@dataclasses.dataclass(frozen=True, kw_only=True)
class Frame:
  """A moment of an animal's walk.

  Attributes:
    seed: of the animal.
    phase: in strides, see `procedural_mouse.walking`.
  """

  seed: int
  phase: float

  @property
  def mouse(self) -> Mouse:
    """The animal in its pose."""
    return walking(make_mouse(self.seed, "walk"), self.phase)


def trials(
  frames: Sequence[Frame], size: int, views: int, cache: pathlib.Path | None = None
) -> list[quality.Trial]:
  """Six photographs of each frame, and truth at `views` of FaceLift's cameras.

  Args:
    frames: what to show.
    size: of all images, pixels.
    views: novel ones of each frame.
    cache: a folder that keeps what was rendered.
  """
  make = functools.partial(_rgba, size=size, views=views, cache=cache)
  rig = input_cameras(image_size=size)
  novel = mice.novel_cameras(size, views)
  # Tracing is NumPy's: processes, which must not inherit this one's device.
  with ProcessPoolExecutor(os.cpu_count(), get_context("spawn")) as pool:
    images = list(pool.map(make, frames))
  found = []
  for frame, (own, truth) in zip(frames, images, strict=True):
    scene = mice.to_scene(own.astype(np.float32) / np.float32(255), rig)
    name = f"{frame.seed}@{frame.phase:g}"
    groups = [(np.arange(views), novel)]
    found.append(quality.canonical_trial(name, scene, groups, list(truth / np.float32(255))))
  return found


def _rgba(
  frame: Frame, size: int, views: int, cache: pathlib.Path | None
) -> tuple[np.ndarray, np.ndarray]:
  """Photographs and truth, uint8."""
  path = cache / f"walk_{frame.seed}_{frame.phase:g}_{size}_{views}.npz" if cache else None
  if path and path.is_file():
    held = np.load(path)
    return held["own"], held["truth"]
  rigs = input_cameras(image_size=size), mice.novel_cameras(size, views)
  own, truth = (
    np.round(255 * render_truth(frame.mouse, rig).rgba).astype(np.uint8) for rig in rigs
  )
  if path:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.savez_compressed(path, own=own, truth=truth)
  return own, truth
