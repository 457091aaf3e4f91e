"""A run as its report shows it: name, folders, configuration and history."""

from __future__ import annotations

import dataclasses
import pathlib
import shlex
from collections.abc import Mapping, Sequence
from typing import Any

from jaxsplat_mouse.validation.rules import Rules

# Flags of `validate` with the settings of `render` that they must follow.
_VALIDATE_FLAGS = {
  "views": "num_views",
  "size": "image_size",
  "fov": "fov",
  "elevation": "elevation",
  "distance": "distance",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class ReportedRun:
  """A run as its report shows it.

  Attributes:
    name: title of the page and of the dataset card.
    dataset: folder of the dataset.
    report: folder of the page and its pictures.
    config: configuration by dotted key.
    starts: one mapping for each start of the run, in order, with `started` (ISO time), `command`,
      `versions`, `device` and `host`; each key may be missing.
  """

  name: str
  dataset: pathlib.Path
  report: pathlib.Path
  config: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  starts: Sequence[Mapping[str, Any]] = ()

  @property
  def versions(self) -> Mapping[str, str]:
    """Versions of the libraries at the last start, by name."""
    return self.starts[-1].get("versions", {}) if self.starts else {}

  def validate_command(self) -> str:
    """Returns the command that checks the dataset, with the flags that its cameras require."""
    defaults, flags = Rules(), []
    for flag, key in _VALIDATE_FLAGS.items():
      default = getattr(defaults, flag)
      value = self.config.get(f"render.{key}", default)
      if value != default:
        flags.append(f"--{flag}={value}")
    return " ".join(["python -m jaxsplat_mouse.validate", shlex.quote(str(self.dataset)), *flags])
