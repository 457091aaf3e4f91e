"""Options of one preparation, their command-line syntax, and the moments and frames they select."""

from __future__ import annotations

import dataclasses
import difflib
import pathlib
import re
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from jaxsplat_mouse.capture.mattes import SPECK_SHARE
from jaxsplat_mouse.capture.raw_capture import Capture
from jaxsplat_mouse.errors import InputError

REFINE_MODES = ("auto", "on", "off")
SYNC_MODES = ("auto", "report", "off")


@dataclasses.dataclass(frozen=True, kw_only=True)
class PrepareOptions:
  """Options of the preparation of one recording.

  Attributes:
    format: one of `registry.FORMATS`.
    input: the folder or file of the capture.
    output: the folder that the scenes are written to.
    frames: START:STOP:STEP of moments, or one number; empty for all.
    offsets: number of frames to add, by camera.
    size: largest side of a crop in pixels; 0 for no limit.
    margin: free border of a crop around the silhouette, as a share of the silhouette's side.
    masks: a folder of masks that replace the capture's own; None for the capture's own.
    plate_masks: make masks from the pictures and the cameras' background plates.
    matte: `auto`, `on` or `off`: whether mattes against the plates replace the masks.
    animals: label ids, or names of mask folders, of several animals; empty for one animal, or for
      all that have masks of their own.
    specks: parts and holes of a mask below this share of the animal's area are repaired.
    grow: pixels by which silhouettes are widened, or narrowed if negative.
    without: names of cameras that are left out.
    refine: `auto` corrects the poses of the cameras where held-out moments confirm it, `on` fails
      where they do not, `off` keeps the calibration.
    write_calibration: some of `calibration_export.EXPORTS`: the formats in which refined cameras
      are written beside the scenes.
    sync: `auto` applies the frame offsets of cameras that are out of step where held-out moments
      confirm them, `report` names them, `off` does not look.
    exposure: `auto` takes differences of exposure between the cameras out of the pictures where
      they are significant, `off` leaves the colours as they are.
    redo: whether existing scenes are prepared again.
  """

  format: str
  input: pathlib.Path
  output: pathlib.Path
  frames: str = ""
  offsets: dict[str, int] = dataclasses.field(default_factory=dict)
  size: int = 0
  margin: float = 0.1
  masks: pathlib.Path | None = None
  plate_masks: bool = False
  matte: str = "auto"
  animals: tuple[str, ...] = ()
  specks: float = SPECK_SHARE
  grow: int = 0
  without: tuple[str, ...] = ()
  refine: str = "auto"
  write_calibration: tuple[str, ...] = ()
  sync: str = "auto"
  exposure: str = "auto"
  redo: bool = False

  def fixed(self) -> dict[str, Any]:
    """Returns the options, as JSON, that all runs into one output folder must share."""
    several = {"animals": list(self.animals)} if self.animals else {}
    return {
      **several,
      "format": self.format,
      "input": str(self.input.resolve()),
      "offsets": {k: v for k, v in sorted(self.offsets.items()) if v},
      "size": self.size,
      "margin": self.margin,
      "masks": self._masks_name(),
      "matte": self.matte,
      "specks": self.specks,
      "grow": self.grow,
      "without": sorted(self.without),
      "refine": self.refine,
      "sync": self.sync,
      "exposure": self.exposure,
    }

  def _masks_name(self) -> str:
    if self.plate_masks:
      return "plate"
    return str(self.masks.resolve()) if self.masks else ""


def parse_offsets(text: str) -> dict[str, int]:
  """Parses frame offsets by camera, such as `Camera1:3,Camera4:-1`.

  Raises:
    InputError: the text has another form, or names a camera twice.
  """
  offsets: dict[str, int] = {}
  for part in filter(None, (p.strip() for p in text.split(","))):
    name, colon, number = part.rpartition(":")
    if not colon or not name or not re.fullmatch(r"[+-]?\d+", number):
      raise InputError("--offsets", part, "expected CAMERA:FRAMES, as in Camera1:3,Camera4:-1")
    if name in offsets:
      raise InputError("--offsets", name, "named twice; expected one number per camera")
    offsets[name] = int(number)
  return offsets


def select_moments(text: str, count: int) -> np.ndarray:
  """Returns the indices of moments that START:STOP:STEP selects, with the rules of Python slices.

  Raises:
    InputError: the text has another form, or selects none of `count` moments.
  """
  parts = text.split(":") if text else [""]
  if len(parts) > 3 or not all(re.fullmatch(r"\d*", p.strip()) for p in parts):
    raise InputError("--frames", text, "expected START:STOP:STEP, as in 0:100:5, or one number")
  numbers = [int(p) if p.strip() else None for p in parts]
  if len(parts) == 1 and numbers[0] is not None:
    numbers = [numbers[0], numbers[0] + 1]
  if len(numbers) == 3 and numbers[2] == 0:
    raise InputError("--frames", text, "a step of 0; expected at least 1")
  chosen = np.arange(count)[slice(*numbers)]
  if len(chosen) == 0:
    raise InputError(
      "--frames", text, f"selects nothing; the recording has moments 0 to {count - 1}"
    )
  return chosen


def shift_frames(capture: Capture, offsets: dict[str, int]) -> np.ndarray:
  """Returns frame numbers (F, V) with the offset of each camera added; -1 for no frame.

  Raises:
    InputError: an offset names no camera of the recording.
  """
  names = capture.rig.names
  frames = np.array(capture.frames, np.int64)
  check_camera_names("--offsets", offsets, names)
  for name, offset in offsets.items():
    column = frames[:, names.index(name)]
    frames[:, names.index(name)] = np.where(column < 0, -1, np.maximum(column + offset, -1))
  return frames


def check_camera_names(flag: str, given: Iterable[str], names: Sequence[str]) -> None:
  """Checks that a flag names cameras of the recording only.

  Args:
    flag: the flag, for messages.
    given: the names that it was given.
    names: the cameras of the recording.

  Raises:
    InputError: a name is none of them; the message suggests the nearest one.
  """
  for name in given:
    if name not in names:
      near = difflib.get_close_matches(name, names, 1)
      hint = f"did you mean {near[0]}?" if near else f"expected one of {', '.join(names)}"
      raise InputError(flag, name, f"no such camera; {hint}")
