"""Reads silhouettes of a recording, of moments spread over it, and traces their outlines."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from jaxsplat_mouse.capture.crops import CroppedSilhouette, Cropper
from jaxsplat_mouse.capture.silhouette_coherence import Outlines, stack_outlines, trace_outline
from jaxsplat_mouse.errors import InputError

MIN_VIEWS = 3
_CROP_SIDE = 512  # pixels of a silhouette's crop
_SIDE = 256  # pixels of the grid that holds the largest silhouette


def read_moments(
  cropper: Cropper,
  frames: np.ndarray,
  views: Sequence[int],
  most: int,
  started: Callable[[int, int], None],
) -> tuple[list[int], list[list[CroppedSilhouette | None]]]:
  """Reads moments spread over the recording.

  Args:
    cropper: reads the silhouettes.
    frames: (F, V) frame of each camera in each moment; -1 for none.
    views: numbers of the cameras.
    most: moments that are read.
    started: called with the number of moments read, and of those to read.

  Returns:
    Indices of the moments that three cameras have, and a row of silhouettes for each.
  """
  usable = np.flatnonzero((frames[:, list(views)] >= 0).sum(1) >= MIN_VIEWS)
  candidates = usable[evenly(len(usable), most)]
  chosen: list[int] = []
  rows: list[list[CroppedSilhouette | None]] = []
  for count, index in enumerate(candidates):
    started(count, len(candidates))
    found, _ = cropper.map_cameras(
      frames[index], lambda view, frame: cropper.crop_silhouette(view, frame, _CROP_SIDE)
    )
    if len(found) >= MIN_VIEWS:
      chosen.append(int(index))
      rows.append([found.get(view) for view in views])
  return chosen, rows


def evenly(count: int, most: int) -> np.ndarray:
  """At most `most` of the numbers below `count`, evenly spread."""
  return np.unique(np.linspace(0, max(count - 1, 0), min(count, most)).round().astype(int))


def read_silhouette(
  cropper: Cropper, view: int, frame: int, offset: int
) -> CroppedSilhouette | None:
  """Reads the silhouette `offset` frames after a frame; None where there is none."""
  if frame < 0 or frame + offset < 0:
    return None
  try:
    return cropper.crop_silhouette(view, frame + offset, _CROP_SIDE)
  except InputError:
    return None


def grid_scale(rows: Sequence[Sequence[CroppedSilhouette | None]], side: int = _SIDE) -> float:
  """Grid pixels per pixel at native resolution with which crops fill at most `side` pixels."""
  longest = max(max(one.alpha.shape) / one.scale for row in rows for one in row if one is not None)
  return min(1.0, side / longest)


def trace_silhouettes(rows: Sequence[Sequence[CroppedSilhouette | None]], scale: float) -> Outlines:
  """Traces the silhouettes of M moments at one scale; None stands for a missing one."""
  return stack_outlines([[trace_silhouette(one, scale) for one in row] for row in rows])


def trace_silhouette(one: CroppedSilhouette | None, scale: float, side: int = _SIDE) -> Outlines:
  """Traces one silhouette, without the axes M and V.

  Args:
    one: the silhouette; None for a missing one.
    scale: grid pixels per pixel at native resolution.
    side: pixels of the grid.
  """
  if one is None:
    return trace_outline(np.zeros((8, 8), np.uint8), np.ones(4), np.zeros(4), side=side)
  return trace_outline(one.alpha, one.intrinsics, one.seen, side=side, scale=scale / one.scale)
