"""Configurations of earlier versions: what their keys mean to this one.

`config.json` and `scene.json` outlive the version that wrote them. A key that an old file lacks has
the value that it had before it existed; a key that is gone must have a value with which it had no
effect, or the old fits cannot be continued. Every change of the keys of `fit`, `hull` or `data`
adds a line here and raises `SCHEMA`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

SCHEMA = 2  # 1 or absent: until 0.1.0

# Keys that schema 1 had: the value with which each has no effect, or that is a constant now.
REMOVED: dict[str, Any] = {
  "fit.initialization": "hull",
  "fit.hull_outside": 0.0,
  "fit.hull_inside": 0.0,
  "fit.hull_views": 16,
  "fit.hull_size": 128,
  "fit.novel_size": 256,
  "fit.spare": 0.0,
  "fit.relocate_until": 0.85,
  "fit.min_opacity": 0.005,
  "fit.max_anisotropy": 10.0,
  "fit.min_scale": 0.7,
  "fit.exposure": False,
  "fit.exposure_rate": 0.002,
  "fit.exposure_weight": 0.5,
  "fit.focal_rate": 0.0,
  "fit.warm_share": 1.0 / 3.0,
  "fit.cull": False,
  "fit.alpha_max": 0.99,
}
# Keys that came later: the value that they had before they existed.
ADDED: dict[str, Any] = {}
# Keys that matter only while another key has its neutral value's opposite.
_INERT = {
  "fit.hull_views": ("fit.hull_outside", "fit.hull_inside"),
  "fit.hull_size": ("fit.hull_outside", "fit.hull_inside"),
  "fit.exposure_rate": ("fit.exposure",),
  "fit.exposure_weight": ("fit.exposure",),
}


def upgrade(flat: Mapping[str, Any]) -> dict[str, Any]:
  """Returns a configuration by dotted key as this version writes it.

  Removed keys that had an effect stay, so that a comparison or a reader reports them by name.
  """
  kept = {key: value for key, value in flat.items() if not _has_no_effect(key, value, flat)}
  return {**ADDED, **kept}


def _has_no_effect(key: str, value: Any, flat: Mapping[str, Any]) -> bool:
  if key not in REMOVED:
    return False
  switches = _INERT.get(key, ())
  off = bool(switches) and all(flat.get(k, REMOVED[k]) == REMOVED[k] for k in switches)
  return off or value == REMOVED[key]


def key_view(section: str, values: Mapping[str, Any]) -> dict[str, Any]:
  """Returns a section's values for a hash that new settings leave as it was.

  Removed keys are there with their neutral value, keys that came later only where they differ from
  what they were before they existed.

  Args:
    section: `fit`, `hull` or `data`.
    values: by key, without the section's name.
  """
  gone = {k.partition(".")[2]: v for k, v in REMOVED.items() if k.startswith(f"{section}.")}
  same = lambda key, value: ADDED.get(f"{section}.{key}", _ABSENT) == value
  return {**gone, **{key: value for key, value in values.items() if not same(key, value)}}


_ABSENT = object()


def hash_values(value: Any) -> str:
  """A short hash of a JSON value."""
  return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]
