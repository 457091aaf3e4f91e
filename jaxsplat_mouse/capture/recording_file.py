"""`recording.json`: where a recording came from, how it was cut, and its animal's trajectory.

What is known of a moment stands in its scene folder too (`opencv_cameras.json`, beside the frames),
so a run that was killed loses nothing: the next one reads the scenes that are there.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxsplat_mouse import canonical
from jaxsplat_mouse.capture.crop_windows import CropWindow
from jaxsplat_mouse.capture.mattes import SPECK_SHARE
from jaxsplat_mouse.capture.prepare_options import PrepareOptions
from jaxsplat_mouse.capture.raw_capture import Capture
from jaxsplat_mouse.dataset import camera_file
from jaxsplat_mouse.errors import InputError, reason
from jaxsplat_mouse.io import atomic

RECORDING_FILE = "recording.json"
DONE, FAILED = "done", "failed"
_LATER = {"specks": SPECK_SHARE, "grow": 0, "without": []}


@dataclasses.dataclass(frozen=True, kw_only=True)
class MomentRecord:
  """What became of one moment.

  Attributes:
    index: its row in the recording, what `--frames` counts.
    number: the recording's own number of it.
    scene: name of its folder.
    status: `done` or `failed`.
    centroid: (3,) of the animal's visual hull in the input world; empty where it has none.
    radius: largest distance of the hull from there, input units.
    views: cameras in the scene.
    problems: why cameras, or the whole moment, are missing.
  """

  index: int
  number: int
  scene: str
  status: str
  centroid: tuple[float, ...] = ()
  radius: float | None = None
  views: int = 0
  problems: tuple[str, ...] = ()

  def to_json(self) -> dict[str, Any]:
    """A JSON object that `from_json` reads."""
    return dataclasses.asdict(self)

  @classmethod
  def from_json(cls, value: dict[str, Any]) -> MomentRecord:
    """Reads what `to_json` gave; raises KeyError, TypeError or ValueError where it is none."""
    fields = {f.name: value[f.name] for f in dataclasses.fields(cls)}
    fields["centroid"] = tuple(float(x) for x in fields["centroid"])
    return cls(**{**fields, "problems": tuple(fields["problems"])})


def recording_name(path: pathlib.Path) -> str:
  """The input folder's name, fit for folder names."""
  path = path.resolve()
  name = re.sub(r"[^A-Za-z0-9.+=-]", "_", path.name if path.is_dir() else path.parent.name)
  return name[:80].strip("._-") or "recording"


def scene_names(settings: PrepareOptions, capture: Capture, indices: Sequence[int]) -> list[str]:
  """`<recording>_<moment>` for each index, zero-padded so that names sort in time."""
  digits = max(4, len(str(int(np.max(capture.moments)))))
  name = recording_name(settings.input)
  return [f"{name}_{int(capture.moments[i]):0{digits}d}" for i in indices]


def read_recording(settings: PrepareOptions) -> dict[str, Any] | None:
  """The output folder's `recording.json`; None where there is none yet.

  Raises:
    InputError: it is broken, or was made with other settings.
  """
  path = settings.output / RECORDING_FILE
  try:
    value = json.loads(path.read_text())
    before = dict(value["settings"])
    CropWindow(**value["window"])
    [MomentRecord.from_json(m) for m in value["moments"]]
  except FileNotFoundError:
    return None
  except (OSError, ValueError, KeyError, TypeError) as error:
    problem = f"cannot be read ({reason(error)}); give another --output"
    raise InputError(path, "", problem) from None
  for key, now in settings.fixed().items():
    # Settings that the version of the earlier run did not have were what they are unasked.
    earlier = before.get(key, _LATER.get(key))
    if earlier != now:
      problem = f"{earlier!r} in an earlier run, {now!r} now"
      advice = "expected the same; give another --output, or --redo to prepare all of it again"
      raise InputError(path, f"settings.{key}", f"{problem}; {advice}")
  return value


def describe_preparation(settings: PrepareOptions, window: CropWindow) -> dict[str, Any]:
  """The part of the file that all scenes share."""
  return {"settings": settings.fixed(), "window": dataclasses.asdict(window)}


def preparation_hash(value: Mapping[str, Any]) -> str:
  """A short hash of settings and window, by which a scene is known to be of this preparation."""
  text = json.dumps([value["settings"], value["window"]], sort_keys=True)
  return hashlib.sha256(text.encode()).hexdigest()[:16]


def read_finished_moment(folder: pathlib.Path, prepared: str) -> MomentRecord | None:
  """The moment of a scene folder that is there, whole and of this preparation; None otherwise."""
  try:
    parsed = camera_file.parse(folder / camera_file.CAMERAS_FILE)
    moment = MomentRecord.from_json(parsed.extra["moment"])
  except (InputError, KeyError, TypeError, ValueError):
    return None
  whole = all((folder / name).is_file() for name in parsed.names)
  return moment if whole and parsed.extra.get("prepared") == prepared else None


def write_recording(
  settings: PrepareOptions,
  capture: Capture,
  window: CropWindow,
  moments: Mapping[int, MomentRecord],
  calibration: Mapping[str, Any],
) -> None:
  """Writes the file in one step.

  Raises:
    OSError: the disk is full or not writable.
  """
  radii = [m.radius for m in moments.values() if m.radius]
  value = {
    "recording": recording_name(settings.input),
    "unit": capture.rig.unit,
    "up": capture.up,
    **describe_preparation(settings, window),
    "calibration": dict(calibration),
    # What data.normalize=recording arrives at: the largest animal gets the default radius.
    "suggested_scale": canonical.recording_scale(radii) if radii else None,
    "largest_radius": max(radii, default=None),
    "moments": [moments[i].to_json() for i in sorted(moments)],
  }
  text = json.dumps(value, indent=1, allow_nan=False)
  atomic.write_bytes(settings.output / RECORDING_FILE, text.encode())
