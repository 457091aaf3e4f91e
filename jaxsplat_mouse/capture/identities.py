"""Whether the ids of several animals mean the same animals in all cameras of a moment.

A tracker numbers the animals of each camera by itself and may exchange two of them. The middles of
one animal's silhouettes then miss a common point. The exchange that brings them together is
accepted only where the common solids of both animals agree clearly better with it.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Mapping, Sequence

import numpy as np

from jaxsplat_mouse.capture import common_solid
from jaxsplat_mouse.capture.crops import Crop
from jaxsplat_mouse.capture.rig import Rig

AnimalCrops = Mapping[int, Crop]  # the crops of one animal in one moment, by camera
_MIN_VIEWS = 3
_AGREED = 0.7  # IoU of solid and silhouettes from which an exchange is believed
_GAIN = 0.15  # of that IoU; an exchange must improve it by more
_CLOSER = 0.5  # share of the middles' distances from a common point that an exchange may leave
_MOST_VIEWS = 12  # among which all exchanges are tried; in larger rigs, camera by camera


@dataclasses.dataclass(frozen=True, kw_only=True)
class IdentityExchange:
  """Two animals whose ids are exchanged in some cameras of a moment.

  Attributes:
    animals: their numbers.
    views: numbers of the cameras.
    before: mean IoU of the common solids and the silhouettes with the ids as given.
    after: the same with the ids exchanged.
  """

  animals: tuple[int, int]
  views: tuple[int, ...]
  before: float
  after: float


def find_exchanges(rig: Rig, moment: Sequence[AnimalCrops]) -> list[IdentityExchange]:
  """Finds cameras that exchange two animals.

  Args:
    rig: the cameras.
    moment: the crops of each animal in one moment.
  """
  found = []
  for p, q in itertools.combinations(range(len(moment)), 2):
    views = sorted(set(moment[p]) & set(moment[q]))
    if len(views) < _MIN_VIEWS:
      continue
    exchanged = _nearest_assignment(rig, moment[p], moment[q], views)
    if not exchanged:
      continue
    before = _agreement(rig, [moment[p], moment[q]])
    after = _agreement(rig, exchange_views(moment[p], moment[q], exchanged))
    if after >= _AGREED and after - before > _GAIN:
      found.append(
        IdentityExchange(animals=(p, q), views=tuple(exchanged), before=before, after=after)
      )
  return found


def exchange_animals(
  moment: Sequence[AnimalCrops], exchanges: Sequence[IdentityExchange]
) -> list[AnimalCrops]:
  """Returns the crops of each animal in one moment with the ids as `find_exchanges` found them."""
  mended = list(moment)
  for found in exchanges:
    p, q = found.animals
    mended[p], mended[q] = exchange_views(mended[p], mended[q], found.views)
  return mended


def describe_exchanges(
  rig: Rig, exchanges: Sequence[IdentityExchange], names: Sequence[str], number: int
) -> tuple[str, ...]:
  """Describes what was exchanged for one animal, in a line for each camera.

  Args:
    rig: the cameras.
    exchanges: of one moment.
    names: of the animals.
    number: of the animal.
  """
  lines = []
  for found in exchanges:
    if number in found.animals:
      p, q = (names[animal] for animal in found.animals)
      evidence = f"common solids {found.before:.2f}, exchanged {found.after:.2f}"
      lines += [f"{rig.names[view]}: {p} and {q} ({evidence})" for view in found.views]
  return tuple(lines)


def warn_of_exchanges(scenes: Sequence[tuple[int, Sequence[str]]]) -> list[str]:
  """Returns a warning where animals were exchanged.

  Args:
    scenes: number of the moment and what was exchanged, of each scene.
  """
  found = {number: lines[0] for number, lines in reversed(scenes) if lines}
  if not found:
    return []
  first = min(found)
  return [
    f"warning: masks exchange animals in {len(found)} moments, which were exchanged back; first in "
    f"moment {first}, {found[first]}"
  ]


def exchange_views(
  one: AnimalCrops, other: AnimalCrops, views: Sequence[int]
) -> tuple[dict[int, Crop], dict[int, Crop]]:
  """Returns the crops of two animals with those of some cameras exchanged."""
  moved = {view: other[view] for view in views}
  back = {view: one[view] for view in views}
  return {**one, **moved}, {**other, **back}


def _nearest_assignment(
  rig: Rig, one: AnimalCrops, other: AnimalCrops, views: Sequence[int]
) -> list[int]:
  """Returns the cameras, fewer than half, whose exchange brings the middles clearly together."""
  rays = [[_middle_ray(rig, crops[view]) for view in views] for crops in (one, other)]
  pairs = np.array(rays)  # (2, V, 2, 3): animal, camera, origin and direction

  def spread(flipped: np.ndarray) -> float:
    mixed = np.where(flipped[None, :, None, None], pairs[::-1], pairs)
    return _distance_from_point(mixed[0]) + _distance_from_point(mixed[1])

  best = np.zeros(len(views), bool)
  given = smallest = spread(best)
  for flipped in _candidates(len(views)):
    distance = spread(flipped)
    if distance < smallest:
      best, smallest = flipped, distance
  if smallest > _CLOSER * given:
    return []
  return [view for view, flip in zip(views, best, strict=True) if flip]


def _candidates(count: int) -> list[np.ndarray]:
  """Returns exchanges (V,) bool in fewer than half of the cameras; of one each in large rigs."""
  most = (count - 1) // 2 if count <= _MOST_VIEWS else 1
  chosen = [c for k in range(1, most + 1) for c in itertools.combinations(range(count), k)]
  return [np.isin(np.arange(count), c) for c in chosen]


def _middle_ray(rig: Rig, crop: Crop) -> np.ndarray:
  """Returns origin and unit direction (2, 3) of the ray through the middle of a silhouette."""
  weights = crop.rgba[..., 3].astype(np.float64)
  rows, columns = weights.sum(1), weights.sum(0)
  y = (rows @ (np.arange(len(rows)) + 0.5)) / rows.sum()
  x = (columns @ (np.arange(len(columns)) + 0.5)) / columns.sum()
  fx, fy, cx, cy = crop.intrinsics
  pose = rig.world_to_camera[crop.view]
  direction = pose[:3, :3].T @ np.array([(x - cx) / fx, (y - cy) / fy, 1.0])
  return np.stack([-pose[:3, :3].T @ pose[:3, 3], direction / np.linalg.norm(direction)])


def _distance_from_point(rays: np.ndarray) -> float:
  """Returns the sum of the distances of rays (V, 2, 3) from the point nearest to all of them."""
  origins, directions = rays[:, 0], rays[:, 1]
  across = np.eye(3) - directions[:, :, None] * directions[:, None, :]
  right = np.einsum("vij,vj->i", across, origins)
  point = np.linalg.lstsq(across.sum(0), right, rcond=None)[0]
  return float(np.linalg.norm(np.einsum("vij,vj->vi", across, point - origins), axis=1).sum())


def _agreement(rig: Rig, animals: Sequence[AnimalCrops]) -> float:
  """Mean IoU of the silhouettes of each animal and their common solid."""
  scores = []
  for crops in animals:
    ordered = [crops[view] for view in sorted(crops)]
    poses = rig.world_to_camera[[crop.view for crop in ordered]]
    scene = common_solid.silhouette_scene(ordered, poses, len(rig))
    scores.append(float(common_solid.measure_agreement(scene).iou.mean()))
  return float(np.mean(scores))
