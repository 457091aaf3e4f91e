"""Keys of a configuration: flattening, comparing and guessing what a misspelt one means.

Loads neither JAX nor NumPy, so that commands can report a wrong key at once.
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterable, Mapping
from typing import Any

from ml_collections import ConfigDict


def to_plain(config: ConfigDict | Mapping[str, Any]) -> dict[str, Any]:
  """Returns a configuration as nested dicts."""
  return config.to_dict() if isinstance(config, ConfigDict) else dict(config)


def flatten(config: ConfigDict | Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
  """Returns the values by dotted key, as JSON stores them."""
  flat: dict[str, Any] = {}
  for key, value in to_plain(config).items():
    if isinstance(value, Mapping):
      flat |= flatten(value, f"{prefix}{key}.")
    else:
      flat[prefix + key] = json.loads(json.dumps(value))
  return flat


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
  """Returns (old, new) of each key that differs between flat configs; None where it is absent."""
  keys = sorted({*old, *new})
  return {k: (old.get(k), new.get(k)) for k in keys if old.get(k) != new.get(k)}


def closest(key: str, valid: Iterable[str]) -> str:
  """Returns `; did you mean KEY?` with the most similar valid key, or "" where none is similar."""
  valid = list(valid)
  found = difflib.get_close_matches(key, valid, 1, 0.6)
  if not found:  # right name, wrong section
    last = key.rpartition(".")[2]
    names = {v.rpartition(".")[2]: v for v in valid}
    found = [names[n] for n in difflib.get_close_matches(last, names, 1, 0.75)]
  return f"; did you mean {found[0]}?" if found else ""
