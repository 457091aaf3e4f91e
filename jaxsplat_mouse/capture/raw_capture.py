"""What every format reader returns: the cameras of a recording, and the files of each moment."""

from __future__ import annotations

import dataclasses
import pathlib

import numpy as np

from jaxsplat_mouse.capture.rig import Rig


@dataclasses.dataclass(frozen=True, kw_only=True)
class Stream:
  """The pictures of one camera: a video, or image files in the order of its frames.

  Attributes:
    video: the video file; None for image files.
    images: the image files; empty for a video.
    parts: files that continue `video`, in order, each with the number of its first frame.
  """

  video: pathlib.Path | None = None
  images: tuple[pathlib.Path, ...] = ()
  parts: tuple[tuple[int, pathlib.Path], ...] = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Animal:
  """One of several animals of a recording.

  Attributes:
    name: its label id or the name of its folder; the end of its scenes' names.
    label: its id in the masks of `Capture`; 0 where it has masks of its own.
    masks: V streams of its own silhouettes; None where it has a label id.
  """

  name: str
  label: int = 0
  masks: tuple[Stream, ...] | None = None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Capture:
  """A raw capture of V cameras and F moments.

  Attributes:
    path: the file or folder that was read, for messages.
    rig: the cameras.
    pictures: V streams of photographs.
    masks: V streams of silhouettes whose frames correspond to those of `pictures`; None where the
      photographs are RGBA or have a white background.
    frames: (F, V) int64, the frame of each camera's streams that shows each moment; -1 for none.
    moments: (F,) int64, the recording's own number of each moment (a sample or frame number), which
      the scene is named after.
    up: the world's up axis as `canonical.canonicalize` takes it: "+z" and the like, or "cameras".
    animals: several animals, each of which gets scenes of its own; empty for a single one. With
      label ids, `masks` are images of them.
  """

  path: pathlib.Path
  rig: Rig
  pictures: tuple[Stream, ...]
  masks: tuple[Stream, ...] | None
  frames: np.ndarray
  moments: np.ndarray
  up: str = "cameras"
  animals: tuple[Animal, ...] = ()
