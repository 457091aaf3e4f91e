"""`recording.json`: a recording's origin, the options it was prepared with, and its moments.

The record of a moment is also in its scene folder (`opencv_cameras.json`, beside the frames), so a
killed run loses nothing: the next run reads the scenes that exist.
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
# What options that earlier versions did not have amounted to.
_BEFORE_THEY_EXISTED = {
  "specks": SPECK_SHARE,
  "grow": 0,
  "without": [],
  "refine": "off",
  "sync": "off",
  "matte": "auto",
  "animals": [],
  "exposure": "auto",
}
MomentKey = tuple[int, str]  # the index of a moment, and the animal's name; "" for a single one


@dataclasses.dataclass(frozen=True, kw_only=True)
class MomentRecord:
  """The result of preparing one moment.

  Attributes:
    index: its row in the recording, which `--frames` counts.
    number: the recording's own number of the moment.
    scene: name of its scene folder.
    status: `done` or `failed`.
    centroid: (3,) of the animal's visual hull in the input world; empty without a hull.
    radius: largest distance of the hull from the centroid, input units; None without a hull.
    views: number of cameras in the scene.
    problems: why cameras, or the whole moment, are missing.
    animal: name of the animal; "" where there is a single one.
    exchanged: cameras in which its id was that of another animal, and whose.
  """

  index: int
  number: int
  scene: str
  status: str
  centroid: tuple[float, ...] = ()
  radius: float | None = None
  views: int = 0
  problems: tuple[str, ...] = ()
  animal: str = ""
  exchanged: tuple[str, ...] = ()

  @property
  def key(self) -> MomentKey:
    """Its moment and its animal."""
    return self.index, self.animal

  def to_json(self) -> dict[str, Any]:
    """Returns a JSON object that `from_json` reads."""
    optional = ("animal", "exchanged")
    return {k: v for k, v in dataclasses.asdict(self).items() if k not in optional or v}

  @classmethod
  def from_json(cls, value: dict[str, Any]) -> MomentRecord:
    """Reads the object that `to_json` returns.

    Raises:
      KeyError, TypeError, ValueError: it is no such object.
    """
    fields = {"animal": "", "exchanged": (), **value}
    fields = {f.name: fields[f.name] for f in dataclasses.fields(cls)}
    fields["centroid"] = tuple(float(x) for x in fields["centroid"])
    lists = {name: tuple(fields[name]) for name in ("problems", "exchanged")}
    return cls(**{**fields, **lists})


def recording_name(path: pathlib.Path) -> str:
  """Returns the input folder's name without characters that are unusual in folder names."""
  path = path.resolve()
  name = re.sub(r"[^A-Za-z0-9.+=-]", "_", path.name if path.is_dir() else path.parent.name)
  return name[:80].strip("._-") or "recording"


def scene_names(
  options: PrepareOptions, capture: Capture, indices: Sequence[int]
) -> dict[MomentKey, str]:
  """Names the scenes `<recording>_<moment>`, zero-padded so that names sort in time.

  With several animals, `_a<id>` or the name of the animal's folder follows.

  Args:
    options: the preparation.
    capture: the recording.
    indices: the chosen moments.

  Returns:
    the names of all scenes, in the order of time.
  """
  digits = max(4, len(str(int(np.max(capture.moments)))))
  name = recording_name(options.input)
  names = {i: f"{name}_{int(capture.moments[i]):0{digits}d}" for i in indices}
  if not capture.animals:
    return {(i, ""): names[i] for i in indices}
  wanted = [
    a for a in capture.animals if a.label or not options.animals or a.name in options.animals
  ]
  return {(i, a.name): f"{names[i]}_{_animal_suffix(a.name)}" for i in indices for a in wanted}


def _animal_suffix(name: str) -> str:
  return f"a{name}" if name.isdecimal() else re.sub(r"[^A-Za-z0-9.+=-]", "_", name)[:40]


def read_recording(options: PrepareOptions) -> dict[str, Any] | None:
  """Reads the output folder's `recording.json`; returns None where there is none yet.

  Raises:
    InputError: it is broken, or was written with other options.
  """
  path = options.output / RECORDING_FILE
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
  for key, now in {"animals": [], **options.fixed()}.items():
    earlier = before.get(key, _BEFORE_THEY_EXISTED.get(key))
    if earlier != now:
      problem = f"{earlier!r} in an earlier run, {now!r} now"
      advice = "expected the same; give another --output, or --redo to prepare all of it again"
      raise InputError(path, f"settings.{key}", f"{problem}; {advice}")
  return value


def describe_preparation(options: PrepareOptions, window: CropWindow) -> dict[str, Any]:
  """Returns the part of the file that all scenes share."""
  return {"settings": options.fixed(), "window": dataclasses.asdict(window)}


def preparation_hash(value: Mapping[str, Any]) -> str:
  """Returns a short hash of options and window; a scene that carries it is of this preparation."""
  text = json.dumps([value["settings"], value["window"]], sort_keys=True)
  return hashlib.sha256(text.encode()).hexdigest()[:16]


def read_finished_moment(folder: pathlib.Path, prepared: str) -> MomentRecord | None:
  """Returns the record of a whole scene folder of this preparation; None for any other folder."""
  try:
    parsed = camera_file.parse(folder / camera_file.CAMERAS_FILE)
    moment = MomentRecord.from_json(parsed.extra["moment"])
  except (InputError, KeyError, TypeError, ValueError):
    return None
  files = (*parsed.names, *filter(None, parsed.observed_names))
  whole = all((folder / name).is_file() for name in files)
  return moment if whole and parsed.extra.get("prepared") == prepared else None


def write_recording(
  options: PrepareOptions,
  capture: Capture,
  window: CropWindow,
  moments: Mapping[MomentKey, MomentRecord],
  calibration: Mapping[str, Any],
  masks: Mapping[str, Any],
  exposure: Mapping[str, Any],
) -> None:
  """Writes `recording.json` in one step.

  Args:
    options: the preparation.
    capture: the recording.
    window: the size of its crops.
    moments: the records so far.
    calibration: the evidence for the calibration, see `CalibrationReport.to_json`.
    masks: what was found about the masks, see `RecordingMattes.to_json`.
    exposure: of the cameras, see `RecordingExposure.to_json`.

  Raises:
    OSError: the disk is full or not writable.
  """
  radii = [m.radius for m in moments.values() if m.radius]
  value = {
    "recording": recording_name(options.input),
    "unit": capture.rig.unit,
    "up": capture.up,
    **describe_preparation(options, window),
    "calibration": dict(calibration),
    "masks": dict(masks),
    "exposure": dict(exposure),
    # The scale that data.normalize=recording chooses: the largest animal gets the default radius.
    "suggested_scale": canonical.recording_scale(radii) if radii else None,
    "largest_radius": max(radii, default=None),
    "moments": [moments[i].to_json() for i in sorted(moments)],
  }
  text = json.dumps(value, indent=1, allow_nan=False)
  atomic.write_bytes(options.output / RECORDING_FILE, text.encode())
