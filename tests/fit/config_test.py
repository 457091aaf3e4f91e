"""Recipes: the model decides its own weights, and no model runs with those of another."""

from __future__ import annotations

import dataclasses

import pytest

from configs import default
from jaxsplat_mouse.fit import recipes
from jaxsplat_mouse.fit.config import MODEL_SETTINGS, FitConfig
from jaxsplat_mouse.run.settings import Settings


@pytest.mark.parametrize("model", sorted(MODEL_SETTINGS))
@pytest.mark.parametrize("variant", ["", *recipes.VARIANTS])
def test_the_config_files_hold_the_recipes_of_the_package(model: str, variant: str) -> None:
  assert Settings.from_config(default.make_config(model, variant)).fit == recipes.fit_recipe(
    model, variant
  )
  assert FitConfig.for_model(model) == FitConfig(model=model)


def test_ellipsoids_have_their_own_weights() -> None:
  config = FitConfig(model="3dgs")
  for name, value in MODEL_SETTINGS["3dgs"].items():
    assert getattr(config, name) == value
  assert FitConfig(model="3dgs", opacity_weight=0.2).opacity_weight == 0.2


def test_a_model_with_the_weights_of_another_is_refused() -> None:
  with pytest.raises(ValueError, match=r"fit\.model: '3dgs' with the weights and rates of '2dgs'"):
    dataclasses.replace(FitConfig(), model="3dgs")
  with pytest.raises(ValueError, match=r"expected --config=2dgs"):
    dataclasses.replace(recipes.fit_recipe("3dgs", "preview"), model="2dgs")


def test_unknown_models_and_variants_are_refused() -> None:
  with pytest.raises(ValueError, match=r"fit\.model: '4dgs'"):
    FitConfig.for_model("4dgs")
  with pytest.raises(ValueError, match="'prevew': expected preview or photographs"):
    recipes.fit_recipe("2dgs", "prevew")
