"""Finds masks that lie in a folder of their own, apart from the recording."""

from __future__ import annotations

import pathlib
import re
from collections.abc import Sequence

from jaxsplat_mouse.capture.raw_capture import Stream
from jaxsplat_mouse.capture.video import VIDEO_SUFFIXES
from jaxsplat_mouse.errors import InputError

_IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg")


def find_masks(folder: pathlib.Path, names: Sequence[str]) -> tuple[Stream, ...]:
  """Returns the mask stream of each camera: NAME.mp4, the one video in NAME/, or images in NAME/.

  Images are taken in the order of the numbers in their names.

  Raises:
    InputError: there is no such folder, or a camera has no masks or several videos.
  """
  if not folder.is_dir():
    raise InputError(folder, "--masks", "no such folder; expected masks by camera")
  return tuple(_find_stream(folder, name) for name in names)


def _find_stream(folder: pathlib.Path, name: str) -> Stream:
  videos = [p for s in VIDEO_SUFFIXES if (p := folder / f"{name}{s}").is_file()]
  inner = sorted((folder / name).iterdir()) if (folder / name).is_dir() else []
  videos += [p for p in inner if p.suffix.lower() in VIDEO_SUFFIXES]
  pictures = [p for p in inner if p.suffix.lower() in _IMAGE_SUFFIXES]
  if len(videos) == 1 and not pictures:
    return Stream(video=videos[0])
  if not videos and pictures:
    return Stream(images=tuple(sorted(pictures, key=natural_sort_key)))
  found = f"{len(videos)} videos and {len(pictures)} images"
  expected = f"expected {name}.mp4, or one video or images in {name}/"
  raise InputError(folder, name, f"{found}; {expected}")


def natural_sort_key(path: pathlib.Path) -> list[tuple[int, str]]:
  """Returns a key that sorts `frame_2` before `frame_10`."""
  parts = re.split(r"(\d+)", path.name)
  return [(int(p), "") if p.isdigit() else (-1, p) for p in parts]
