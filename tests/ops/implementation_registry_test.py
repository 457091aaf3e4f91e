"""The choice among an operation's implementations, where some cannot be imported."""

from __future__ import annotations

import pytest

from jaxsplat_mouse.ops import implementation_registry
from jaxsplat_mouse.ops.implementation_registry import ImplementationRegistry


@pytest.fixture
def registry(monkeypatch):
  """On a GPU whose JAX has no Pallas."""
  monkeypatch.setattr(implementation_registry, "default_implementation", lambda: "pallas")
  modules = {"xla": "jaxsplat_mouse.ops.photometric.xla", "pallas": "jaxsplat_mouse.ops.absent"}
  return ImplementationRegistry("operation", modules)


def test_a_default_that_cannot_be_imported_gives_way_to_xla(registry):
  implementation_registry._can_import.cache_clear()
  with pytest.warns(UserWarning, match="operation.*using the XLA path"):
    assert registry.choose() == "xla"
  assert registry.load("xla").compare_image


def test_an_explicit_choice_is_never_replaced(registry):
  assert registry.choose("pallas") == "pallas"
  with pytest.raises(ValueError, match="'pallas' cannot be imported"):
    registry.load("pallas")


def test_unknown_names_are_refused(registry):
  with pytest.raises(ValueError, match="'cuda' is not in"):
    registry.choose("cuda")
