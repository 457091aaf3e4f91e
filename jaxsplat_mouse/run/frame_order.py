"""Warm starts in a run: frame by frame within a recording, all recordings side by side.

The first frames of all recordings are fitted together from their hulls, then the second frames from
the fits of the first, and so on: a batch contains one frame of each recording.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

import numpy as np
from absl import logging

from jaxsplat_mouse.dataset.sources import Source
from jaxsplat_mouse.errors import InputError
from jaxsplat_mouse.fit.warm_start import carry_over
from jaxsplat_mouse.gaussians import model_name
from jaxsplat_mouse.run import batches, fit_store
from jaxsplat_mouse.run.batches import BatchPlan
from jaxsplat_mouse.run.scene_input import SceneInput
from jaxsplat_mouse.run.settings import Settings
from jaxsplat_mouse.run.workdir import Workdir


def predecessors(sources: Mapping[str, Source]) -> dict[str, str]:
  """Returns the previous scene of the same recording, by scene; first scenes have none.

  Args:
    sources: by scene, in the order of the frames.
  """
  before: dict[str, str] = {}
  last: dict[str, str] = {}
  for name, source in sources.items():
    if source.recording in last:
      before[name] = last[source.recording]
    last[source.recording] = name
  return before


def ordered_plans(
  workdir: Workdir,
  settings: Settings,
  sources: Mapping[str, Source],
  wanted: Sequence[str],
  size: int,
) -> list[BatchPlan]:
  """Divides scenes into batches; with warm starts, frames follow each other in their order.

  Args:
    workdir: has a folder for the checkpoints of each batch.
    settings: of the run.
    sources: all scenes of the run by name, in the order of the frames.
    wanted: the scenes to fit.
    size: largest number of scenes of a batch.
  """
  if not settings.fit.warm_start:
    return batches.new_plans(workdir, wanted, size)
  rounds: dict[int, list[str]] = {}
  place: dict[str, int] = {}
  for name, source in sources.items():
    place[source.recording] = place.get(source.recording, -1) + 1
    if name in wanted:
      rounds.setdefault(place[source.recording], []).append(name)
  return [p for k in sorted(rounds) for p in batches.new_plans(workdir, rounds[k], size)]


def start_from_previous(
  workdir: Workdir,
  settings: Settings,
  sources: Mapping[str, Source],
  prepared: Sequence[SceneInput],
) -> tuple[list[SceneInput], bool]:
  """Replaces the first Gaussians of a batch by the fits of the previous frames, if there are any.

  Args:
    workdir: contains the fits.
    settings: of the run.
    sources: all scenes of the run by name, in the order of the frames.
    prepared: the scenes of the batch, with Gaussians on their hulls.

  Returns:
    the scenes, and whether all of them start from a previous fit: only then is a short fit enough.
  """
  if not settings.fit.warm_start:
    return list(prepared), False
  before = predecessors(sources)
  started = [_warmed(workdir, settings, before.get(p.source.name), p) for p in prepared]
  warm = all(a.gaussians is not b.gaussians for a, b in zip(started, prepared, strict=True))
  return started, warm


def _warmed(workdir: Workdir, settings: Settings, name: str | None, one: SceneInput) -> SceneInput:
  """Returns a scene that starts from the fit of scene `name`, or unchanged without such a fit."""
  if name is None:
    return one
  try:
    saved = fit_store.load_fit(workdir, name)
    if model_name(saved.gaussians) != settings.fit.model:
      raise InputError(name, "", f"a fit of {model_name(saved.gaussians)}")
  except InputError as error:
    logging.warning("%s: starts from its hull: %s", one.source.name, error)
    return one
  ratio = one.similarity.scale / saved.similarity.scale
  shift = None
  if settings.data.normalize == "none":  # otherwise the animal's centre is the origin
    old, new = np.asarray(saved.gaussians.means), np.asarray(one.first_gaussians.means)
    shift = np.median(new, 0) - np.median(old, 0)
  gaussians = carry_over(saved.gaussians, one.first_gaussians, ratio, shift)
  return dataclasses.replace(one, gaussians=gaussians)
