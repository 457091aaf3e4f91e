"""Moments of recordings whose cameras ran in step: frame i of every camera is the same instant."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence

import numpy as np

from jaxsplat_mouse.errors import InputError
from jaxsplat_mouse.io import video
from jaxsplat_mouse.io.capture import Stream


def count_moments(
  path: pathlib.Path, pictures: Sequence[Stream], names: Sequence[str]
) -> tuple[np.ndarray, np.ndarray]:
  """Moments (F,) 0, 1, 2 ... of the longest stream, and frames (F, V), -1 behind a shorter's end.

  Raises:
    InputError: a stream is missing or has no frames.
  """
  counts = [video.count_frames(s, camera) for s, camera in zip(pictures, names, strict=True)]
  for camera, count in zip(names, counts, strict=True):
    if count == 0:
      raise InputError(path, camera, "a video without frames; expected moments in common")
  moments = np.arange(max(counts), dtype=np.int64)
  return moments, np.where(moments[:, None] < np.array(counts), moments[:, None], -1)
