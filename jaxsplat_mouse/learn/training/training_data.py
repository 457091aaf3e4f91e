"""Datasets by name: what `data.datasets` says, and the scenes that it means."""

from __future__ import annotations

import dataclasses
import pathlib
import re
from collections.abc import Callable, Sequence

from jaxsplat_mouse.learn.training import built_in_scenes
from jaxsplat_mouse.learn.training.scenes import TrainingScenes, read_scenes

_BUILT_IN = re.compile(rf"({'|'.join(built_in_scenes.KINDS)}):(\d{{1,6}})")


@dataclasses.dataclass(frozen=True, kw_only=True)
class DatasetShare:
  """One dataset of a mixture.

  Attributes:
    name: a list of scene folders, or `mice:N` or `solids:N`.
    weight: with which it is drawn, against those of the others.
  """

  name: str
  weight: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Mixture:
  """Datasets in memory, or on a device, and the weights with which they are drawn."""

  scenes: Sequence[TrainingScenes]
  weights: Sequence[float]


def parse_datasets(key: str, text: str) -> tuple[DatasetShare, ...]:
  """Reads `LIST@WEIGHT,LIST@WEIGHT`; a dataset without a weight has 1.

  Args:
    key: the setting, for messages.
    text: its value.

  Raises:
    ValueError: it has another form.

  >>> parse_datasets("data.datasets", "objects/train.txt@0.7,mice:100@0.3")[1]
  DatasetShare(name='mice:100', weight=0.3)
  """
  shares = []
  for part in text.split(","):
    match = re.fullmatch(r"\s*(.+?)(?:@(\d*\.?\d+))?\s*", part)
    weight = float(match[2] or 1.0) if match else 0.0
    if match is None or weight <= 0:
      raise ValueError(f"{key}: {part!r}, expected LIST or LIST@WEIGHT, the weight above 0")
    shares.append(DatasetShare(name=match[1], weight=weight))
  return tuple(shares)


def load_datasets(
  shares: Sequence[DatasetShare],
  image_size: int,
  *,
  held_out: bool = False,
  say: Callable[[str], None] = lambda line: None,
) -> Mixture:
  """Reads or makes the scenes of a mixture.

  Args:
    shares: datasets.
    image_size: side, pixels, to which images are brought.
    held_out: built-in scenes that no training has seen.
    say: is told what is done, and which scenes cannot be read.

  Raises:
    InputError: a list cannot be read, or none of its scenes.
  """
  loaded = []
  for share in shares:
    match = _BUILT_IN.fullmatch(share.name)
    if match:
      say(f"{share.name}: tracing scenes of {image_size} pixels")
      first = built_in_scenes.FIRST_HELD_OUT if held_out else 0
      seeds = range(first, first + max(int(match[2]), 1))
      loaded.append(built_in_scenes.make_scenes(match[1], seeds, image_size))
      continue
    scenes, problems = read_scenes(pathlib.Path(share.name), image_size)
    for problem in problems:
      say(f"left out: {problem.problem}")
    say(f"{share.name}: {len(scenes)} scenes")
    loaded.append(scenes)
  return Mixture(scenes=tuple(loaded), weights=tuple(share.weight for share in shares))
