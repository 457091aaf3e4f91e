"""Configs of a training: every variant is a recipe, and a wrong key is named."""

from __future__ import annotations

import pytest

from jaxsplat_mouse.errors import ConfigError
from jaxsplat_mouse.learn.gslrm.architecture import SIZES
from jaxsplat_mouse.run import config_files
from jaxsplat_mouse.run.training_settings import recipe_from_config


@pytest.mark.parametrize("size", SIZES)
def test_every_size_is_a_config(size):
  recipe = recipe_from_config(config_files.load_config(f"gslrm:{size}"))
  assert recipe.architecture == SIZES[size]


def test_an_unknown_size_is_named():
  with pytest.raises(ValueError, match="variant 'huge': expected one of tiny, small"):
    config_files.load_config("gslrm:huge")


@pytest.mark.parametrize(
  ("key", "value", "problem"),
  [
    ("optimizer.stepps", 3, "optimizer.stepps: unknown key; did you mean optimizer.steps?"),
    ("optimizer.steps", 0, "optimizer.steps: 0, expected at least 1"),
    ("architecture.width", 100, "architecture.width: 100, expected a multiple of 64"),
    ("data.inputs", 9, "data.inputs: 9, expected 1 to data.views, 8"),
    ("data.datasets", "a@0", "data.datasets: 'a@0', expected LIST"),
    ("seed", -1, "seed: -1, expected 0 to"),
    ("data", 3, "data: 3, expected a section of keys"),
  ],
)
def test_what_cannot_be_used_is_named(key, value, problem):
  values = config_files.load_config("gslrm:small").to_dict()
  *sections, last = key.split(".")
  inner = values
  for section in sections:
    inner = inner[section]
  inner[last] = value
  with pytest.raises(ConfigError) as caught:
    recipe_from_config(values)
  assert str(caught.value).startswith(problem)


def test_a_missing_key_is_named():
  values = config_files.load_config("gslrm:small").to_dict()
  del values["data"]["views"]
  with pytest.raises(ConfigError, match=r"data\.views: missing"):
    recipe_from_config(values)
