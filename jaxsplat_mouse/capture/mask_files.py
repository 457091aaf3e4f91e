"""Finds masks that lie in a folder of their own, and what tells several animals apart in them.

Several animals have one mask each, by animal or by camera first, or share images of label ids:

    MASKS/ANIMAL/CAMERA.mp4, MASKS/ANIMAL/CAMERA/*.png
    MASKS/CAMERA/ANIMAL.mp4, MASKS/CAMERA/ANIMAL/*.png     as video segmentation writes them
    MASKS/CAMERA/*.png                                     pixels are ids, 0 is background
"""

from __future__ import annotations

import dataclasses
import pathlib
import re
from collections.abc import Sequence

from jaxsplat_mouse.capture.raw_capture import Animal, Capture, Stream
from jaxsplat_mouse.capture.video import VIDEO_SUFFIXES
from jaxsplat_mouse.errors import InputError

_IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg")


def with_masks(
  capture: Capture, folder: pathlib.Path | None, animals: Sequence[str] = ()
) -> Capture:
  """Returns a capture with other masks, or with several animals.

  Args:
    capture: the recording.
    folder: masks that replace the capture's own; None to keep those.
    animals: label ids of the animals, or names of their folders; empty for all folders of animals,
      or for a single animal where there are none.

  Raises:
    InputError: there is no such folder, a camera has no masks, or an animal is none of them.
  """
  found = _find_animals(folder, capture.rig.names, animals) if folder is not None else ()
  if found:
    return dataclasses.replace(capture, masks=found[0].masks, animals=found)
  if folder is not None:
    capture = dataclasses.replace(capture, masks=find_masks(folder, capture.rig.names))
  if not animals:
    return capture
  if capture.masks is None:
    raise InputError(capture.path, "--animals", "the recording has no masks; give --masks=DIR")
  for animal in animals:
    if not animal.isdecimal() or int(animal) < 1:
      problem = "neither a label id, 1 and more, nor a folder of masks in --masks"
      raise InputError("--animals", animal, problem)
  labels = tuple(Animal(name=str(int(a)), label=int(a)) for a in dict.fromkeys(animals))
  return dataclasses.replace(capture, animals=labels)


def _find_animals(
  folder: pathlib.Path, names: Sequence[str], wanted: Sequence[str]
) -> tuple[Animal, ...]:
  """Returns the animals that have masks of their own in a folder; empty for none."""
  subfolders = lambda path: sorted(p.name for p in path.iterdir() if p.is_dir())
  if not folder.is_dir():
    return ()
  outer = [name for name in subfolders(folder) if name not in names]
  if outer and not any(_has_masks(folder, name) for name in names):
    found = {name: tuple(_find_stream(folder / name, c) for c in names) for name in outer}
  else:
    by_camera = [_animals_of(folder / name) for name in names]
    inner = sorted(set().union(*by_camera)) if all(by_camera) else []
    found = {name: tuple(_find_stream(folder / c, name) for c in names) for name in inner}
  for name in wanted if found else ():
    if name not in found:
      raise InputError("--animals", name, f"no such masks; expected some of {', '.join(found)}")
  # Those that get no scenes come last: where they are in front, they hide the others.
  order = sorted(found, key=lambda name: (bool(wanted) and name not in wanted, natural_key(name)))
  return tuple(Animal(name=name, masks=found[name]) for name in order)


def _has_masks(folder: pathlib.Path, camera: str) -> bool:
  return (folder / camera).is_dir() or any(
    (folder / f"{camera}{suffix}").is_file() for suffix in VIDEO_SUFFIXES
  )


def _animals_of(camera: pathlib.Path) -> set[str]:
  """Names of the animals in the folder of a camera: its subfolders, or several videos.

  Images or a single video in the folder itself are the masks of a single animal.
  """
  inner = list(camera.iterdir()) if camera.is_dir() else []
  videos = {p.stem for p in inner if p.suffix.lower() in VIDEO_SUFFIXES}
  if len(videos) == 1 or any(p.suffix.lower() in _IMAGE_SUFFIXES for p in inner):
    return set()
  return videos or {p.name for p in inner if p.is_dir()}


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
  return natural_key(path.name)


def natural_key(name: str) -> list[tuple[int, str]]:
  """Returns a key that sorts names by the numbers in them."""
  parts = re.split(r"(\d+)", name)
  return [(int(p), "") if p.isdigit() else (-1, p) for p in parts]
