"""A config of `configs/gslrm.py` as the recipe of a training, checked once."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from ml_collections import ConfigDict

from jaxsplat_mouse.errors import ConfigError
from jaxsplat_mouse.learn.gslrm.architecture import Architecture
from jaxsplat_mouse.learn.training.training_recipe import (
  DataRecipe,
  OptimizerRecipe,
  SavingRecipe,
  TrainingRecipe,
)
from jaxsplat_mouse.run.config_keys import closest, to_plain

_SECTIONS: dict[str, type] = {
  "architecture": Architecture,
  "data": DataRecipe,
  "optimizer": OptimizerRecipe,
  "saving": SavingRecipe,
}
# Keys that may change from start to start of one workdir: they do not change what is learnt.
FREE_TRAINING_KEYS = ("saving.", "data.held_out")


def recipe_from_config(config: ConfigDict | Mapping[str, Any]) -> TrainingRecipe:
  """Builds the recipe of a training.

  Raises:
    ConfigError: a key is unknown or missing, or a value cannot be used.
  """
  values = to_plain(config)
  _check_keys("", values, [field.name for field in dataclasses.fields(TrainingRecipe)])
  built: dict[str, Any] = {key: values[key] for key in values if key not in _SECTIONS}
  try:
    for name, section in _SECTIONS.items():
      if not isinstance(values[name], Mapping):
        raise ConfigError(f"{name}: {values[name]!r}, expected a section of keys")
      _check_keys(f"{name}.", values[name], [field.name for field in dataclasses.fields(section)])
      built[name] = section(**values[name])
    return TrainingRecipe(**built)
  except ConfigError:
    raise
  except (ValueError, TypeError) as error:
    raise ConfigError(str(error).splitlines()[0]) from None


def _check_keys(prefix: str, values: Mapping[str, Any], valid: list[str]) -> None:
  for name in values:
    if name not in valid:
      hint = closest(prefix + name, [prefix + v for v in valid])
      raise ConfigError(f"{prefix}{name}: unknown key{hint}; expected those of configs/gslrm.py")
  for name in valid:
    if name not in values:
      raise ConfigError(f"{prefix}{name}: missing; expected the keys of configs/gslrm.py")
