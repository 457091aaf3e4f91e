"""The lists of a dataset, `train.txt` and `val.txt`: one scene folder a line.

Written lists hold absolute paths. FaceLift takes a relative line from its working directory and
silently replaces a scene that it cannot open by another one, so a relative line would train on the
wrong data without a message.
"""

from __future__ import annotations

import hashlib
import os
import pathlib
from collections.abc import Iterable, Mapping, Sequence

from jaxsplat_mouse.dataset import camera_file
from jaxsplat_mouse.errors import InputError, reason
from jaxsplat_mouse.io import atomic


def read_list(path: str | os.PathLike[str]) -> list[pathlib.Path]:
  """Returns the scene folders of a list file, one a line.

  A relative line is taken from the list's own folder and, where it is no folder there, from the
  working directory, from which FaceLift's loader takes it.

  Raises:
    InputError: no such file, an empty list, a blank line, or a line that is no folder.
  """
  path = pathlib.Path(path)
  try:
    lines = path.read_text().splitlines()
  except (OSError, UnicodeDecodeError) as error:
    raise InputError(path, "", f"cannot be read ({reason(error)}); expected a list file") from None
  folders = []
  for number, line in enumerate(lines, 1):
    field = f"line {number}"
    if not line.strip():
      raise InputError(path, field, "blank; expected a scene folder")
    candidates = [path.parent / line.strip(), pathlib.Path(line.strip())]
    found = next((c for c in candidates if c.is_dir()), None)
    if found is None:
      raise InputError(path, field, f"no such folder: {line.strip()}")
    folders.append(found)
  if not folders:
    raise InputError(path, "", "empty; expected one scene folder a line")
  return folders


def split_scenes(
  recordings: Mapping[str, str] | Iterable[str], *, val_fraction: float = 0.1, seed: int = 0
) -> tuple[list[str], list[str]]:
  """Splits scenes into training and validation, whole recordings to one side.

  Neighbouring frames of a recording are nearly the same image, so they must not be on both
  sides. Recordings are drawn in the order of a hash of their name and the seed: the same names give
  the same split anywhere. With two recordings or more both sides get one, unless `val_fraction` is
  0; a single recording is all training.

  Args:
    recordings: scene to recording; or scenes alone, each then a recording of its own.
    val_fraction: share of the scenes to hold out, met as nearly as whole recordings allow.
    seed: draws another split.

  Returns:
    Scene names for training and validation, sorted.
  """
  if not isinstance(recordings, Mapping):
    recordings = {name: name for name in recordings}
  groups: dict[str, list[str]] = {}
  for scene, recording in recordings.items():
    groups.setdefault(recording, []).append(scene)
  order = sorted(groups, key=lambda key: hashlib.sha256(f"{seed}:{key}".encode()).digest())
  val: list[str] = []
  while len(groups) > 1 and val_fraction > 0:
    room = 2 * (val_fraction * len(recordings) - len(val))  # over by no more than short without
    drawn = next((key for key in order if key in groups and len(groups[key]) <= room), None)
    if drawn is None and val:
      break
    val += groups.pop(drawn if drawn is not None else min(order, key=lambda key: len(groups[key])))
  return sorted(set(recordings) - set(val)), sorted(val)


def write_lists(
  root: str | os.PathLike[str], train: Sequence[str], val: Sequence[str], *, relative: bool = False
) -> None:
  """Writes `train.txt` and `val.txt` of the dataset `root` in one step each.

  Args:
    root: the dataset.
    train: names of scene folders in `root`, in the order of the list.
    val: the same for validation.
    relative: write names instead of absolute paths, for loaders that run inside `root` only.

  Raises:
    InputError: a scene is listed twice or missing, or no list can hold the dataset's path.
  """
  root = pathlib.Path(root).absolute()
  check_list_path(root)
  seen: set[str] = set()
  for file, names in (("train.txt", train), ("val.txt", val)):
    for name in names:
      if name in seen:
        raise InputError(root / file, name, "listed twice; expected each scene once in one list")
      if not (root / name / camera_file.CAMERAS_FILE).is_file():
        raise InputError(root / file, name, "no such scene; expected a folder of the dataset")
      seen.add(name)
  for file, names in (("train.txt", train), ("val.txt", val)):
    lines = [name if relative else str(root / name) for name in names]
    atomic.write_bytes(root / file, "".join(line + "\n" for line in lines).encode())


def write_mixed_list(
  path: str | os.PathLike[str], weights: Mapping[str, float] | Mapping[pathlib.Path, float]
) -> None:
  """Writes one list in which each given list has its weight's share of the lines.

  Every scene has at least one line; those of lists that are too short for their weight are
  repeated, as evenly as whole numbers allow. Lines are absolute, so that the working directory
  does not matter.

  Args:
    path: the list to write.
    weights: list file to weight > 0.

  Raises:
    InputError: a list or a scene folder is missing, or a list is empty.
  """
  total = sum(weights.values())
  scenes = {source: read_list(source) for source in weights}
  length = max(len(scenes[source]) * total / weight for source, weight in weights.items())
  lines = []
  for source, weight in weights.items():
    folders = [str(folder.absolute()) for folder in scenes[source]]
    repeats, more = divmod(round(length * weight / total), len(folders))
    # which scenes get one line more follows their hashes, not their order in the list
    drawn = sorted(folders, key=lambda folder: hashlib.sha256(folder.encode()).digest())[:more]
    lines += folders * repeats + drawn
  atomic.write_bytes(path, "".join(line + "\n" for line in lines).encode())


def check_list_path(path: pathlib.Path) -> None:
  """Checks that a line of a list can hold a path.

  Raises:
    InputError: it holds a line break, or white space at its end, which loaders strip.
  """
  text = str(path)
  if text != text.strip() or len(text.splitlines()) != 1:
    raise InputError(repr(text), "", "expected a path without line breaks or spaces at its ends")
