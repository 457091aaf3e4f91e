"""Built-in mice that walk, as trials of `quality.py` and in time."""

from __future__ import annotations

import argparse
import dataclasses
import functools
import math
import os
import pathlib
from collections.abc import Sequence

import numpy as np

from benchmarks import mice, quality
from benchmarks.recording_workers import cpu_workers
from jaxsplat_mouse.procedural_mouse.mouse import Mouse, make_mouse, walking
from jaxsplat_mouse.procedural_mouse.mouse_scenes import input_cameras

_STRIDES = 3.0  # a second
_TURN, _TURNS = math.radians(40), 0.25  # the body turns so far to either side, so often a second


@dataclasses.dataclass(frozen=True, kw_only=True)
class Frame:
  """A moment of an animal's walk.

  Attributes:
    seed: of the animal.
    phase: in strides, see `procedural_mouse.walking`.
    turn: of the body about the vertical axis, radians.
  """

  seed: int
  phase: float
  turn: float = 0.0

  @property
  def mouse(self) -> Mouse:
    """The animal in its pose."""
    mouse = walking(make_mouse(self.seed, "walk"), self.phase)
    return dataclasses.replace(mouse, yaw=mouse.yaw + self.turn)


def frame_at(seed: int, seconds: float) -> Frame:
  """Returns a moment of a walk in time: three strides a second, and the body turns to and fro."""
  turn = _TURN * math.sin(2 * math.pi * (_TURNS * seconds + seed / 7))
  return Frame(seed=seed, phase=_STRIDES * seconds, turn=turn)


def trials(
  frames: Sequence[Frame], size: int, views: int, cache: pathlib.Path | None = None
) -> list[quality.Trial]:
  """Renders six photographs of each frame, and the truth at cameras of FaceLift's orbit.

  Args:
    frames: the moments.
    size: side of all images, pixels.
    views: number of novel views of each frame.
    cache: a folder that stores the renders.
  """
  make = functools.partial(_render, size=size, views=views, cache=cache)
  rig = input_cameras(image_size=size)
  groups = [(np.arange(views), mice.novel_cameras(size, views))]
  with cpu_workers(os.cpu_count() or 1, 0) as pool:
    images = list(pool.map(make, frames))
  found = []
  for frame, (own, truth) in zip(frames, images, strict=True):
    name = f"{frame.seed}@{frame.phase:g}" + (f"+{frame.turn:g}" if frame.turn else "")
    scene, exact = mice.to_scene(own, rig), list(mice.to_unit_floats(truth))
    found.append(quality.canonical_trial(name, scene, groups, exact))
  return found


def _render(
  frame: Frame, size: int, views: int, cache: pathlib.Path | None
) -> tuple[np.ndarray, np.ndarray]:
  """Returns photographs and truth, uint8."""
  pose = f"{frame.seed}_{frame.phase:g}" + (f"_{frame.turn:g}" if frame.turn else "")
  path = cache / f"walk_{pose}_{size}_{views}.npz" if cache else None
  rigs = input_cameras(image_size=size), mice.novel_cameras(size, views)
  return mice.render_cached(frame.mouse, rigs, 0.0, path)


def make_parser(description: str, config: str) -> argparse.ArgumentParser:
  """Returns a parser with the flags that all benchmarks on walking mice have.

  Args:
    description: of the benchmark.
    config: recipes by default.
  """
  parser = argparse.ArgumentParser(description=description)
  parser.add_argument("--config", default=config, help="recipes of configs/")
  parser.add_argument("--mice", type=int, default=4, help="how many animals")
  parser.add_argument("--size", default="full", choices=list(quality.SIZES))
  parser.add_argument("--cache", type=pathlib.Path, help="a folder that stores the photographs")
  return parser
