"""The configuration as frozen dataclasses, checked once. No other module reads a ConfigDict.

No field has a default here: `configs/default.py`, `FitConfig` and `HullConfig` contain the
defaults. `config_schema` explains what to do when a key is added or removed.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping
from typing import Any

from ml_collections import ConfigDict

from jaxsplat_mouse.dataset.gate import Rule, parse_rules
from jaxsplat_mouse.errors import ConfigError
from jaxsplat_mouse.fit.config import FitConfig
from jaxsplat_mouse.run.config_keys import closest, to_plain
from jaxsplat_mouse.visual_hull.hull import HullConfig

# Keys that may change from run to run of one workdir: its fits stay valid.
FREE_KEYS = (
  "data.shard",
  "fit.warm_start",
  "execution.",
  "batch.",
  "checkpoint.",
  "report.",
  "dataset.",
)
# Keys that change the images but not the fits: scenes are rendered again from their fits.
RENDER_KEYS = ("render.", "dataset.png_level")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Shard:
  """The scenes of one of several runs that share a workdir: every `count`-th from `index` on."""

  index: int
  count: int

  def __str__(self) -> str:
    """Returns `0-of-8`, which is a valid name of a folder."""
    return f"{self.index}-of-{self.count}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExecutionSettings:
  """Where batches run: `local` or `ray`, the cluster's address and its number of workers."""

  engine: str
  address: str
  workers: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class DataSettings:
  """Where scenes come from; see `configs/default.py` for each field here and below."""

  input: str
  shard: Shard | None
  normalize: str
  radius: float
  up: str
  mice: int
  mouse_image_size: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class RenderSettings:
  """The orbit that is rendered."""

  num_views: int
  elevation: float
  distance: float
  fov: float
  image_size: int


@dataclasses.dataclass(frozen=True, kw_only=True)
class DatasetSettings:
  """How the dataset is written."""

  val_fraction: float
  png_level: int
  license: str
  gate: tuple[Rule, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class BatchSettings:
  """How many scenes are fitted together: a number, or None for what the device holds."""

  scenes: int | None


@dataclasses.dataclass(frozen=True, kw_only=True)
class CheckpointSettings:
  """When a fit can stop, and how often its state is saved.

  Attributes:
    steps: steps between two moments at which it can stop; 0 for about three seconds' worth.
    seconds: least time between two snapshots.
  """

  steps: int
  seconds: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReportSettings:
  """Which pictures and scores the report contains."""

  contact_sheets: bool
  quality: bool
  turntable: bool
  tensorboard: bool


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
  """All settings of a run."""

  seed: int
  data: DataSettings
  hull: HullConfig
  fit: FitConfig
  render: RenderSettings
  dataset: DatasetSettings
  batch: BatchSettings
  execution: ExecutionSettings
  checkpoint: CheckpointSettings
  report: ReportSettings

  @classmethod
  def from_config(cls, config: ConfigDict) -> Settings:
    """Builds the settings from a config of `configs/`.

    Raises:
      ConfigError: a key is unknown or missing, or a value cannot be used.
    """
    values = to_plain(config)
    sections = {f.name: _SECTIONS.get(f.name) for f in dataclasses.fields(cls)}
    _check_names("", values, sections)
    built: dict[str, Any] = {"seed": values["seed"]}
    for name, section in sections.items():
      if section is None:
        continue
      if not isinstance(values[name], Mapping):
        raise ConfigError(f"{name}: {values[name]!r}, expected a section of keys")
      given = dict(values[name])
      if name == "hull":  # no key of its own: there are as many points as Gaussians
        given["num_points"] = dict(values["fit"]).get("num_gaussians")
      _check_names(f"{name}.", given, [f.name for f in dataclasses.fields(section)])
      if name == "batch":
        given["scenes"] = _batch_scenes(given["scenes"])
      try:
        if name == "data":
          given["shard"] = parse_shard(given["shard"])
        if name == "dataset":
          given["gate"] = parse_rules(given["gate"])
        built[name] = section(**given)
      except (ValueError, TypeError) as error:
        raise ConfigError(str(error).splitlines()[0]) from None
    settings = cls(**built)
    _check_values(settings)
    return settings


_SECTIONS: dict[str, type] = {
  "data": DataSettings,
  "hull": HullConfig,
  "fit": FitConfig,
  "render": RenderSettings,
  "dataset": DatasetSettings,
  "batch": BatchSettings,
  "execution": ExecutionSettings,
  "checkpoint": CheckpointSettings,
  "report": ReportSettings,
}


def _check_names(prefix: str, values: Mapping[str, Any], valid: Iterable[str]) -> None:
  valid = list(valid)
  for name in values:
    if name not in valid:
      hint = closest(prefix + name, [prefix + v for v in valid])
      raise ConfigError(f"{prefix}{name}: unknown key{hint}")
  for name in valid:
    if name not in values:
      raise ConfigError(f"{prefix}{name}: missing; expected as in configs/default.py")


def _batch_scenes(value: Any) -> int | None:
  """Returns None for `auto`; a flag passes a number as text."""
  if value == "auto":
    return None
  try:
    return int(value)
  except (TypeError, ValueError):
    raise ConfigError(f"batch.scenes: {value!r}, expected 'auto' or a number") from None


def parse_shard(text: str) -> Shard | None:
  """Reads `I/N`, for example `0/8` for the first of eight shards; empty text means all scenes.

  Raises:
    ValueError: the text has another form.
  """
  if not text:
    return None
  match = re.fullmatch(r"(\d{1,6})/(\d{1,6})", str(text))
  if not match or int(match[1]) >= int(match[2]):
    raise ValueError(f"data.shard: {text!r}, expected I/N with I from 0 to N - 1, as 0/8")
  return Shard(index=int(match[1]), count=int(match[2]))


def _check_values(settings: Settings) -> None:
  """Checks values that would fail only later; errors name the key."""
  ranges: list[tuple[str, Any, float, float]] = [
    ("seed", settings.seed, 0, 2**32 - 1),
    ("data.radius", settings.data.radius, 1e-3, 1e3),
    ("data.mice", settings.data.mice, 1, 1_000_000),
    ("data.mouse_image_size", settings.data.mouse_image_size, 16, 8192),
    ("render.num_views", settings.render.num_views, 1, 999),
    ("render.elevation", settings.render.elevation, -89, 89),
    ("render.distance", settings.render.distance, 0.01, 1e4),
    ("render.fov", settings.render.fov, 1, 170),
    ("render.image_size", settings.render.image_size, 8, 8192),
    ("dataset.val_fraction", settings.dataset.val_fraction, 0, 0.9),
    ("dataset.png_level", settings.dataset.png_level, 0, 9),
    ("execution.workers", settings.execution.workers, 0, 100_000),
    ("checkpoint.steps", settings.checkpoint.steps, 0, 1_000_000),
    ("checkpoint.seconds", settings.checkpoint.seconds, 0, 1e9),
  ]
  if settings.batch.scenes is not None:
    ranges.append(("batch.scenes", settings.batch.scenes, 1, 100_000))
  for key, value, low, high in ranges:
    if not isinstance(value, (int, float)) or not low <= value <= high:
      raise ConfigError(f"{key}: {value!r}, expected a number from {low:g} to {high:g}")
  if settings.data.normalize not in ("scene", "recording", "none"):
    raise ConfigError(
      f"data.normalize: {settings.data.normalize!r}, expected 'scene', 'recording' or 'none'"
    )
  if settings.execution.engine not in ("local", "ray"):
    raise ConfigError(f"execution.engine: {settings.execution.engine!r}, expected 'local' or 'ray'")
