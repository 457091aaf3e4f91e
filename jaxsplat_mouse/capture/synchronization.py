"""Moments of recordings whose cameras ran in step: frame i of every camera is the same instant."""

from __future__ import annotations

import pathlib
from collections.abc import Sequence

import numpy as np

from jaxsplat_mouse.capture import video
from jaxsplat_mouse.capture.raw_capture import Stream
from jaxsplat_mouse.errors import InputError


def match_frames(
  path: pathlib.Path, pictures: Sequence[Stream], names: Sequence[str]
) -> tuple[np.ndarray, np.ndarray]:
  """Moments (F,) 0, 1, 2 ... of the longest stream, and frames (F, V), -1 behind a shorter's end.

  A stream that is missing or broken counts as one without frames: it costs its camera alone.

  Raises:
    InputError: no stream has frames.
  """
  counts, problems = [], []
  for stream, camera in zip(pictures, names, strict=True):
    try:
      counts.append(video.count_frames(stream, camera))
    except InputError as error:
      counts.append(0)
      problems.append(error)
  if not any(counts):
    raise (
      problems[0] if problems else InputError(path, "", "videos without frames; expected moments")
    )
  moments = np.arange(max(counts), dtype=np.int64)
  return moments, np.where(moments[:, None] < np.array(counts), moments[:, None], -1)
