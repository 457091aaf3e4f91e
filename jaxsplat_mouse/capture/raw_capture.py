"""What every reader of a raw capture returns: a rig, and where the pictures of every moment are."""

from __future__ import annotations

import dataclasses
import pathlib

import numpy as np

from jaxsplat_mouse.capture.rig import Rig


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stream:
  """One camera's pictures: a video, or image files in the order of its frames.

  Attributes:
    video: the video file; None where there are images.
    images: the image files; empty where there is a video.
    parts: files that go on where `video` ends, in order, each with the number of its first frame.
  """

  video: pathlib.Path | None = None
  images: tuple[pathlib.Path, ...] = ()
  parts: tuple[tuple[int, pathlib.Path], ...] = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Capture:
  """A raw capture of V cameras and F moments.

  Attributes:
    path: the file or folder that was read, for messages.
    rig: the cameras.
    pictures: V streams of photographs.
    masks: V streams of silhouettes, frame for frame beside `pictures`; None where the photographs
      are RGBA or their background is white.
    frames: (F, V) int64, the frame in each camera's streams that shows the moment; -1 where a
      camera has none.
    moments: (F,) int64, the recording's own number of each moment (a sample or frame number), which
      names its scene.
    up: the world's up axis as `canonical.canonicalize` takes it: "+z" and the like, or "cameras".
  """

  path: pathlib.Path
  rig: Rig
  pictures: tuple[Stream, ...]
  masks: tuple[Stream, ...] | None
  frames: np.ndarray
  moments: np.ndarray
  up: str = "cameras"
