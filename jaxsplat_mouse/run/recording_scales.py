"""One scale per recording, measured once over all its scenes and then stored."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Callable, Collection

from jaxsplat_mouse.canonical import recording_scale
from jaxsplat_mouse.dataset.sources import Source
from jaxsplat_mouse.errors import InputError
from jaxsplat_mouse.io import atomic
from jaxsplat_mouse.run.settings import Settings
from jaxsplat_mouse.run.workdir import Workdir
from jaxsplat_mouse.runtime.threads import ordered_map

_FILE = "scales.json"


def fix_scales(
  workdir: Workdir,
  settings: Settings,
  found: Collection[Source],
  wanted: Collection[str],
  on_scene: Callable[[str], None],
  measure: Callable[[Source], float],
  threads: int = 1,
) -> dict[str, float]:
  """Returns the scale of each recording; measures those that are not stored yet.

  Args:
    workdir: contains them in `scales.json`.
    settings: of the run.
    found: all scenes.
    wanted: recordings that need a scale.
    on_scene: called with the name of every scene that is measured.
    measure: returns the radius of a scene's hull in input units; raises InputError without a hull.
    threads: scenes measured at a time.

  Returns:
    canonical units per input unit by recording; empty if every scene has a scale of its own.

  Raises:
    InputError: the file cannot be written; scenes of a later run could get another scale.
  """
  if settings.data.normalize != "recording":
    return {}
  path = workdir.path / _FILE
  scales = _read_scales(path)
  todo = [s for s in found if s.recording not in scales and s.recording in wanted]

  def measure_one(source: Source) -> float | None:
    on_scene(source.name)
    try:
      return measure(source)
    except InputError:  # its batch reports it
      return None

  radii: dict[str, list[float]] = {}
  for source, radius in ordered_map(measure_one, todo, threads):
    if radius is not None:
      radii.setdefault(source.recording, []).append(radius)
  if radii:
    scales |= {k: recording_scale(values, settings.data.radius) for k, values in radii.items()}
    _write_scales(path, scales)
  return scales


def _read_scales(path: pathlib.Path) -> dict[str, float]:
  """Returns the stored scales; none if the file is missing or broken."""
  try:
    return {str(k): float(v) for k, v in json.loads(path.read_text()).items()}
  except (OSError, ValueError, AttributeError, TypeError):
    return {}


def _write_scales(path: pathlib.Path, scales: dict[str, float]) -> None:
  try:
    atomic.write_bytes(path, json.dumps(scales, indent=2).encode())
  except OSError as error:
    raise InputError(path, "", f"cannot be written ({error.strerror})") from None
