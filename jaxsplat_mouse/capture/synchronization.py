"""Moments of synchronized recordings: frame i of every camera shows the same instant."""

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
  """Numbers the moments of cameras that ran in step.

  A missing or broken stream counts as one without frames, so that it costs only its own camera.

  Args:
    path: the recording, for messages.
    pictures: V streams.
    names: V names of cameras.

  Returns:
    Moments (F,) int64, 0, 1, 2 ... up to the end of the longest stream, and frames (F, V) int64, -1
    after the end of a shorter stream.

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
    empty = InputError(path, "", "videos without frames; expected moments")
    raise problems[0] if problems else empty
  moments = np.arange(max(counts), dtype=np.int64)
  return moments, np.where(moments[:, None] < np.array(counts), moments[:, None], -1)
