"""Fits on disk: `fits/SCENE/gaussians.ply`, and `scene.json` with source, transform and hashes."""

from __future__ import annotations

import dataclasses
import json
import pathlib
from typing import Any

from jaxsplat_mouse.dataset.sources import Source
from jaxsplat_mouse.errors import InputError
from jaxsplat_mouse.gaussians import Gaussians, model_name
from jaxsplat_mouse.io import atomic, ply
from jaxsplat_mouse.run.config_schema import hash_values, key_view
from jaxsplat_mouse.run.settings import Settings
from jaxsplat_mouse.run.workdir import Workdir
from jaxsplat_mouse.scene import Similarity

_INFO = ("seed", "loss", "seconds", "warnings", "agreement")
GAUSSIANS_FILE, SCENE_FILE = "gaussians.ply", "scene.json"


@dataclasses.dataclass(frozen=True, kw_only=True)
class SavedFit:
  """A fit as `fits/SCENE` contains it.

  Attributes:
    name: name of the scene.
    source: where the scene comes from.
    digest: hash of the input files.
    fit_key: hash of the settings that the fit depends on.
    similarity: input frame -> canonical frame.
    gaussians: (N,) in the canonical frame.
    filter_width: filter of `rendering.render` that the fit used, world units; None for its default.
    info: other values of `scene.json`.
  """

  name: str
  source: Source
  digest: str
  fit_key: str
  similarity: Similarity
  gaussians: Gaussians
  filter_width: float | None = None
  info: dict[str, Any]


def save_fit(workdir: Workdir, saved: SavedFit) -> None:
  """Writes `fits/SCENE`, which appears whole or not at all.

  Raises:
    OSError: the disk is full or not writable.
  """
  workdir.fits.mkdir(parents=True, exist_ok=True)
  text = {
    "scene": saved.name,
    "source": saved.source.to_json(),
    "digest": saved.digest,
    "fit_key": saved.fit_key,
    "model": model_name(saved.gaussians),
    "num_gaussians": len(saved.gaussians.means),
    "filter_width": saved.filter_width,
    "input_to_canonical": saved.similarity.to_json(),
    "canonical_to_input": saved.similarity.inverse().to_json(),
    **saved.info,
  }
  with atomic.new_folder(workdir.fits / saved.name, overwrite=True) as folder:
    ply.write_gaussians(folder / GAUSSIANS_FILE, saved.gaussians)
    (folder / SCENE_FILE).write_text(json.dumps(text, indent=2) + "\n")


def read_transform(path: pathlib.Path) -> tuple[dict[str, Any], Similarity]:
  """Reads a `scene.json`; returns its values and its transform input -> canonical frame.

  Raises:
    InputError: the file is missing or broken.
  """
  try:
    value = json.loads(path.read_text())
    return value, Similarity.from_json(value["input_to_canonical"])
  except FileNotFoundError:
    raise InputError(path, "", "no such file; expected the scene.json of a fit") from None
  except (OSError, ValueError, KeyError, TypeError) as error:
    problem = f"not readable ({error}); expected what a run wrote"
    raise InputError(path, "", problem) from None


def read_filter_width(folder: pathlib.Path) -> float | None:
  """Reads the filter width from `scene.json` in the folder of a fit; None without such a file.

  Raises:
    InputError: the file is broken.
  """
  path = folder / SCENE_FILE
  return _filter_width(path, read_transform(path)[0]) if path.is_file() else None


def _filter_width(path: pathlib.Path, value: dict[str, Any]) -> float | None:
  found = value.get("filter_width")
  if found is None:
    return None
  if not isinstance(found, int | float) or not 0 < found < float("inf"):
    raise InputError(path, "filter_width", f"{found!r}, expected a positive number")
  return float(found)


def load_fit(workdir: Workdir, name: str) -> SavedFit:
  """Reads `fits/SCENE`.

  Raises:
    InputError: a file is missing or broken.
  """
  folder = workdir.fits / name
  value, similarity = read_transform(folder / SCENE_FILE)
  try:
    source = Source.from_json(value["source"])
    digest, fit_key = value["digest"], value["fit_key"]
  except (KeyError, TypeError) as error:
    raise InputError(folder / SCENE_FILE, "source", f"not readable ({error})") from None
  return SavedFit(
    name=name,
    source=source,
    digest=digest,
    fit_key=fit_key,
    similarity=similarity,
    gaussians=ply.read_gaussians(folder / GAUSSIANS_FILE),
    filter_width=_filter_width(folder / SCENE_FILE, value),
    info={k: value[k] for k in _INFO if k in value},
  )


def fit_key(settings: Settings, scale: float | None) -> str:
  """Returns a hash of the settings that a fit depends on; new settings do not change old hashes.

  Args:
    settings: of the run.
    scale: canonical units per input unit of the recording; None if every scene has its own.
  """
  # A fit is as good from another fit as from its hull, so the start does not count.
  fit = key_view("fit", {**dataclasses.asdict(settings.fit), "warm_start": False})
  hull = key_view("hull", dataclasses.asdict(settings.hull))
  names = ("normalize", "radius", "up")
  data = key_view("data", {k: getattr(settings.data, k) for k in names})
  return hash_values([fit, hull, data, settings.seed, scale])


def render_key(settings: Settings) -> str:
  """Returns a hash of the settings that a scene of the dataset depends on, given its fit."""
  render = key_view("render", dataclasses.asdict(settings.render))
  return hash_values([render, settings.dataset.png_level])
