"""Reads configurations of earlier versions.

`config.json` and `scene.json` are often older than the program that reads them. A key that an old
file lacks has the value that corresponds to the behaviour before the key existed. A key that was
removed must have a value that had no effect; otherwise the old fits cannot be continued. Every
change of the keys of `fit`, `hull` or `data` adds a line here and increases `SCHEMA`.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from typing import Any

# 1 or absent: until 0.1.0; 2 lacks `fit.whole_silhouettes`; in 3 `fit.warm_start` is a truth value;
# 4 has `fit.mask_tolerance` and lacks `fit.inexact_from`
SCHEMA = 5

# Keys that earlier schemas had: the value that has no effect, or that is a constant now.
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
  "fit.mask_tolerance": 0,
}
# Keys that were added: the value that corresponds to the behaviour before the key existed.
# `fit.inexact_from` has its default instead: it leaves exact scenes as they are, and the fits of
# others stay valid until they are asked for again.
ADDED: dict[str, Any] = {"fit.whole_silhouettes": False, "fit.inexact_from": 0.02}
# Keys whose values were others: the value of today for each of them.
CHANGED: dict[str, dict[Any, Any]] = {"fit.warm_start": {False: "off", True: "auto"}}
# Keys that have an effect only if one of these other keys differs from its value in `REMOVED`.
_INERT = {
  "fit.hull_views": ("fit.hull_outside", "fit.hull_inside"),
  "fit.hull_size": ("fit.hull_outside", "fit.hull_inside"),
  "fit.exposure_rate": ("fit.exposure",),
  "fit.exposure_weight": ("fit.exposure",),
}


def upgrade(flat: Mapping[str, Any]) -> dict[str, Any]:
  """Returns a configuration by dotted key with the keys of this version.

  Removed keys that had an effect stay, so that a comparison or a reader names them.
  """
  kept = {
    key: CHANGED[key].get(value, value) if key in CHANGED else value
    for key, value in flat.items()
    if not _has_no_effect(key, value, flat)
  }
  return {**ADDED, **kept}


def _has_no_effect(key: str, value: Any, flat: Mapping[str, Any]) -> bool:
  if key not in REMOVED:
    return False
  switches = _INERT.get(key, ())
  off = bool(switches) and all(flat.get(k, REMOVED[k]) == REMOVED[k] for k in switches)
  return off or value == REMOVED[key]


def key_view(section: str, values: Mapping[str, Any]) -> dict[str, Any]:
  """Returns the values of a section for a hash that new settings do not change.

  The result contains removed keys with their value in `REMOVED`, and added keys only if they differ
  from their value in `ADDED`.

  Args:
    section: `fit`, `hull` or `data`.
    values: by key, without the name of the section.
  """
  gone = {k.partition(".")[2]: v for k, v in REMOVED.items() if k.startswith(f"{section}.")}
  same = lambda key, value: ADDED.get(f"{section}.{key}", _ABSENT) == value
  return {**gone, **{key: value for key, value in values.items() if not same(key, value)}}


_ABSENT = object()


def hash_values(value: Any) -> str:
  """Returns a short hash of a JSON value."""
  return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()[:16]
