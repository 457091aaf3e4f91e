"""Warm starts in a run: which scene starts from which fit, and in which order scenes are fitted.

A recording is cut where two moments in a row are not near one another, and then into short
segments. The middle moment of a segment starts from its hull and takes all steps; from there the
others start each from its neighbour's fit, to either side, and take a part of the steps. So a
result depends on the recording alone: not on the size of batches, not on what an earlier run did.
Batches take moments of all segments together, which keeps the device full.
"""

from __future__ import annotations

import dataclasses
import heapq
import itertools
import math
from collections.abc import Callable, Collection, Mapping, Sequence

import numpy as np
from absl import logging

from jaxsplat_mouse.dataset.sources import Source
from jaxsplat_mouse.errors import InputError
from jaxsplat_mouse.fit.warm_start import carry_over
from jaxsplat_mouse.gaussians import model_name
from jaxsplat_mouse.run import batches, fit_store, nearness
from jaxsplat_mouse.run.batches import BatchPlan
from jaxsplat_mouse.run.scene_input import SceneInput
from jaxsplat_mouse.run.settings import Settings
from jaxsplat_mouse.run.workdir import Workdir
from jaxsplat_mouse.runtime.host import host_cores
from jaxsplat_mouse.runtime.threads import ordered_map

NEAR = 0.85  # overlap of two moments from which on one starts from the other's fit
LONGEST = 17  # moments of a segment: its middle, and eight to either side
FEWEST = 32  # moments with a near neighbour below which a run starts every scene from its hull
_SEGMENTS = 4  # at least, however short a recording is
_LOADED_AT_ONCE = 8
_FEW = 3  # batches that are less than half full, and are filled all the same

Starts = dict[str, str]  # scene -> the scene whose fit it starts from


def find_starts(
  settings: Settings, sources: Mapping[str, Source], on_scene: Callable[[str], None]
) -> Starts:
  """Looks at the silhouettes of dense recordings, and chooses what starts from what.

  Args:
    settings: of the run.
    sources: all scenes of the run by name, in the order of the moments.
    on_scene: called with the name of every scene that is looked at.

  Returns:
    the scenes that start from another scene's fit; the others start from their hulls.
  """
  if settings.fit.warm_start == "off":
    return {}
  recordings: dict[str, list[str]] = {}
  for name, source in sources.items():
    recordings.setdefault(source.recording, []).append(name)
  names = [name for group in recordings.values() if len(group) > 1 for name in group]
  if len(names) < FEWEST:
    return {}

  def look(name: str) -> nearness.Silhouettes | None:
    on_scene(name)
    folder = sources[name].folder
    return nearness.read_silhouettes(folder) if folder else None

  near, before = set(), None
  for name, seen in ordered_map(look, names, host_cores()):
    if before and sources[before[0]].recording == sources[name].recording:
      near |= {name} if nearness.overlap(before[1], seen) >= NEAR else set()
    before = name, seen
  return choose_starts(names, near)


def choose_starts(names: Sequence[str], near: set[str]) -> Starts:
  """Cuts recordings into segments and lets every moment start from its neighbour.

  Args:
    names: the moments in their order.
    near: those that are near the moment before them.
  """
  runs: list[list[str]] = []
  for name in names:
    if name in near:
      runs[-1].append(name)
    else:
      runs.append([name])
  dense = sum(len(run) for run in runs if len(run) > 1)
  if dense < FEWEST:
    return {}
  longest = min(LONGEST, dense // _SEGMENTS)
  starts: Starts = {}
  for run in runs:
    for part in np.array_split(np.arange(len(run)), math.ceil(len(run) / longest)):
      segment = [run[i] for i in part]
      middle = len(segment) // 2
      for i, name in enumerate(segment):
        if i != middle:
          starts[name] = segment[i - 1 if i > middle else i + 1]
  return starts


def shard_sources(settings: Settings, found: Sequence[Source]) -> list[Source]:
  """Returns the scenes of this run's shard: every N-th or, for warm starts, every N-th block.

  Args:
    settings: of the run, with a shard.
    found: all scenes, in the order of the moments.
  """
  shard = settings.data.shard
  if shard is None:
    return list(found)
  block = 1
  if settings.fit.warm_start != "off":
    block = min(LONGEST, max(1, len(found) // (_SEGMENTS * shard.count)))
  return [one for i, one in enumerate(found) if i // block % shard.count == shard.index]


def ordered_plans(
  workdir: Workdir,
  starts: Starts,
  names: Sequence[str],
  wanted: Collection[str],
  size: int,
  workers: int = 1,
  devices: int = 1,
) -> list[BatchPlan]:
  """Divides scenes into batches, each after those that its scenes start from.

  With warm starts, the scenes of all batches are chosen first, and then those that are not wanted
  left out: a run that was stopped goes on with the same batches.

  Args:
    workdir: has a folder for the checkpoints of each batch.
    starts: as `find_starts` returns them.
    names: all scenes of the run, in the order of the moments.
    wanted: the scenes to fit.
    size: largest number of scenes of a batch.
    workers: batches that are fitted at the same time.
    devices: that share a batch.
  """
  if not starts:
    return batches.new_plans(workdir, [name for name in names if name in wanted], size)
  first = [name for name in names if name not in starts]
  parts = _even_parts(first, size)
  queue = _Followers(starts, [name for name in names if name in starts])
  room = min(size, math.ceil(queue.width / workers))
  room = math.ceil(len(starts) / math.ceil(len(starts) / room))
  groups = list(iter(lambda: queue.take(min(size, _multiple(room, devices))), []))
  plans: list[BatchPlan] = []
  for group in [*parts, *groups]:
    fill = _multiple(_fill(group, groups) if group[0] in starts else len(parts[0]), devices)
    for plan in batches.new_plans(workdir, [name for name in group if name in wanted], size):
      own = {name: starts[name] for name in plan.names if name in starts}
      plans.append(dataclasses.replace(plan, starts=own, fill=fill))
  return plans


def _multiple(count: int, of: int) -> int:
  """Returns the next multiple of a number."""
  return math.ceil(count / of) * of


def _even_parts(names: Sequence[str], size: int) -> list[list[str]]:
  """Returns as few parts of at most `size` as there can be, as equal as they can be."""
  if not names:
    return []
  parts = np.array_split(np.arange(len(names)), math.ceil(len(names) / size))
  return [[names[int(i)] for i in part] for part in parts]


def _fill(group: Sequence[str], groups: Sequence[Sequence[str]]) -> int:
  """Returns the size that a batch is filled up to.

  A new size compiles the programs of the fit again, which takes as long as a few batches.
  """
  room = max(map(len, groups))
  if sum(2 * len(other) <= room for other in groups) <= _FEW:
    return room
  while room >= 2 * len(group):
    room = math.ceil(room / 2)
  return room


class _Followers:
  """Scenes that wait for others' fits; those with the longest way behind them go first.

  Attributes:
    width: how many can begin at once, when all first moments are fitted.
  """

  def __init__(self, starts: Starts, names: Sequence[str]):
    self._after: dict[str, list[str]] = {name: [] for name in names}
    place = {name: i for i, name in enumerate(names)}
    first: list[str] = []
    for name in names:
      self._after.get(starts[name], first).append(name)
    self._behind: dict[str, int] = {}
    self._ready = [(-self._count(name), place[name], name) for name in first]
    self._place = place
    heapq.heapify(self._ready)
    self.width = len(self._ready)

  def _count(self, name: str) -> int:
    """Returns how many scenes follow, one after the other."""
    way = [name]
    while way:
      open_ones = [n for n in self._after[way[-1]] if n not in self._behind]
      if open_ones:
        way += open_ones
      else:
        done = way.pop()
        self._behind[done] = 1 + max((self._behind[n] for n in self._after[done]), default=-1)
    return self._behind[name]

  def take(self, count: int) -> list[str]:
    """Returns the next batch; what follows its scenes can begin after it."""
    taken = [heapq.heappop(self._ready)[2] for _ in range(min(count, len(self._ready)))]
    for name in itertools.chain.from_iterable(self._after[n] for n in taken):
      heapq.heappush(self._ready, (-self._behind[name], self._place[name], name))
    return sorted(taken, key=self._place.__getitem__)


def start_from_fits(
  workdir: Workdir, settings: Settings, starts: Starts, prepared: Sequence[SceneInput]
) -> tuple[list[SceneInput], list[SceneInput]]:
  """Replaces the first Gaussians of the scenes of a batch by other scenes' fits.

  Args:
    workdir: contains the fits.
    settings: of the run.
    starts: of the batch.
    prepared: its scenes, with Gaussians on their hulls.

  Returns:
    the scenes that start from a fit, and the others unchanged: those without such a fit.
  """
  move = lambda one: _warmed(workdir, settings, starts.get(one.source.name), one)
  started = [
    (one, found) for one, found in ordered_map(move, prepared, min(_LOADED_AT_ONCE, host_cores()))
  ]
  return [found for _, found in started if found], [one for one, found in started if not found]


def _warmed(
  workdir: Workdir, settings: Settings, name: str | None, one: SceneInput
) -> SceneInput | None:
  """Returns a scene that starts from the fit of scene `name`; None without such a fit."""
  if name is None:
    return None
  try:
    saved = fit_store.load_fit(workdir, name)
    if model_name(saved.gaussians) != settings.fit.model:
      raise InputError(name, "", f"a fit of {model_name(saved.gaussians)}")
  except InputError as error:
    logging.warning("%s: starts from its hull: %s", one.source.name, error)
    return None
  ratio = one.similarity.scale / saved.similarity.scale
  shift = None
  if settings.data.normalize == "none":  # otherwise the animal's centre is the origin
    old, new = np.asarray(saved.gaussians.means), np.asarray(one.first_gaussians.means)
    shift = np.median(new, 0) - np.median(old, 0)
  gaussians = carry_over(saved.gaussians, one.first_gaussians, ratio, shift)
  return dataclasses.replace(one, gaussians=gaussians)
