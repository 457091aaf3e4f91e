"""Settings: every key of the configs is valid; errors name every other key."""

from __future__ import annotations

import pathlib
import runpy

import pytest
from ml_collections import ConfigDict

from configs import default
from jaxsplat_mouse.errors import ConfigError
from jaxsplat_mouse.run.config_files import TRAINING_NAMES
from jaxsplat_mouse.run.config_keys import closest, differences, flatten
from jaxsplat_mouse.run.settings import Settings

FOLDER = pathlib.Path(__file__).resolve().parents[2] / "configs"
CONFIGS = sorted(
  path for path in FOLDER.glob("*.py") if path.stem not in ("__init__", *TRAINING_NAMES)
)


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
@pytest.mark.parametrize("variant", ["", "preview", "photographs"])
def test_every_config_is_usable(path: pathlib.Path, variant: str) -> None:
  module = runpy.run_path(str(path))
  settings = Settings.from_config(module["get_config"](variant))
  if path.stem != "default":
    assert settings.fit.model == path.stem
  if not variant:
    assert 500 <= settings.fit.iterations <= 2000
  assert "python -m jaxsplat_mouse.main --config=" in module["__doc__"]


def test_the_keys_of_the_interface_are_there() -> None:
  flat = flatten(default.get_config())
  expected = {
    "data.input": "",
    "data.normalize": "scene",
    "fit.num_gaussians": 20_000,
    "render.num_views": 32,
    "render.elevation": 20.0,
    "render.distance": 2.7,
    "render.image_size": 512,
    "batch.scenes": "auto",
    "seed": 0,
  }
  assert {key: flat[key] for key in expected} == expected
  names = ("position", "feature", "opacity", "scaling", "rotation")
  assert {f"fit.lr_{name}" for name in names} <= set(flat)


def test_an_unknown_variant_is_reported() -> None:
  with pytest.raises(ValueError, match="'prevew': expected preview"):
    default.get_config("prevew")


def changed(key: str, value: object) -> ConfigDict:
  config = default.get_config()
  with config.unlocked(), config.ignore_type():
    section, _, name = key.rpartition(".")
    (config[section] if section else config)[name] = value
  return config


@pytest.mark.parametrize(
  ("key", "value", "message"),
  [
    ("fit.iteratons", 3, r"fit\.iteratons: unknown key; did you mean fit\.iterations\?"),
    ("rendr", ConfigDict(), r"rendr: unknown key; did you mean render\?"),
    ("fit.warm_start", "on", r"fit\.warm_start: 'on', expected 'auto' or 'off'"),
    ("fit.model", "4dgs", r"fit\.model: '4dgs', expected"),
    ("batch.scenes", "many", r"batch\.scenes: 'many', expected 'auto' or a number"),
    ("batch.scenes", "0", r"batch\.scenes: 0, expected a number from 1"),
    ("data.normalize", "frame", r"data\.normalize: 'frame', expected 'scene'"),
    ("render.image_size", 4, r"render\.image_size: 4, expected a number from 8 to 8192"),
    ("render.elevation", float("nan"), r"render\.elevation: nan, expected a number"),
    ("seed", -1, r"seed: -1, expected a number"),
    ("render", 3, r"render: 3, expected a section"),
  ],
)
def test_errors_name_the_key(key: str, value: object, message: str) -> None:
  with pytest.raises(ConfigError, match=message):
    Settings.from_config(changed(key, value))


def test_a_missing_key_is_reported() -> None:
  config = default.get_config()
  with config.unlocked():
    del config.render["fov"]
  with pytest.raises(ConfigError, match=r"render\.fov: missing"):
    Settings.from_config(config)


def test_batch_scenes_from_flags_is_text() -> None:
  assert Settings.from_config(changed("batch.scenes", "16")).batch.scenes == 16
  assert Settings.from_config(default.get_config()).batch.scenes is None


def test_closest_finds_the_right_name_in_the_wrong_section() -> None:
  assert closest("iterations", ["fit.iterations", "seed"]) == "; did you mean fit.iterations?"
  assert closest("colour", ["fit.iterations", "seed"]) == ""


def test_differences_of_flat_configs() -> None:
  assert differences({"a": 1, "b": [1, 2]}, {"a": 1, "b": [1, 3], "c": 0}) == {
    "b": ([1, 2], [1, 3]),
    "c": (None, 0),
  }
