r"""A raw capture (calibration, videos, masks) becomes scene folders for jaxsplat_mouse.main.

  python -m jaxsplat_mouse.prepare --format=dannce --input=RECORDING --output=SCENES --check
      first look: SCENES/check.png and check.html show views, masks, the silhouettes' common solid
      and epipolar lines, so that a person sees whether the calibration is right

  python -m jaxsplat_mouse.prepare --format=dannce --input=RECORDING --output=SCENES \
      --frames=0:18000:100
      every 100th moment as a scene SCENES/RECORDING_MOMENT, and SCENES/recording.json

  python -m jaxsplat_mouse.main --config=configs/2dgs.py --config.data.input=SCENES
      fits them; with --config.data.normalize=recording the animal keeps its size between moments

Pictures are undistorted, skew included, and cut around the animal at native resolution in windows
of one size, which a first pass over all masks decides; cameras keep the recording's own world and
unit. Masks may be lossy video: 128 and more is animal (1 in images of 0 and 1), the outline stays
soft, holes and islands below --specks of the animal (or 16 px) are repaired. Masks that are too
wide all around, as many programs give them, are narrowed with --grow=-2 (pixels). A camera without
a picture of a moment is left out of its scene as long as four remain (three in smaller rigs), one
without any is told and left out of all; --without leaves out others.

A calibration that is transposed, inverted, mirrored, of other axes, of another image size or of
exchanged cameras is refused with the evidence.

It can be stopped at any moment: the same command goes on where it was, and scenes that are there
are kept. Settings other than --frames must stay the same, or --redo prepares everything again.

Exit status: 0 every moment is a scene; 1 nothing could start; 3 some moments failed and are listed;
130 or 143 stopped by Ctrl-C or SIGTERM.
"""

from __future__ import annotations

import dataclasses
import pathlib

from absl import flags

from jaxsplat_mouse.capture.formats import registry
from jaxsplat_mouse.capture.mattes import SPECK_SHARE
from jaxsplat_mouse.capture.prepare_options import PrepareOptions, parse_offsets
from jaxsplat_mouse.commands import console
from jaxsplat_mouse.errors import InputError

_FORMAT = flags.DEFINE_enum(
  "format", None, list(registry.FORMATS), "What the capture is stored as."
)
_INPUT = flags.DEFINE_string("input", None, "The recording's folder, or its calibration file.")
_OUTPUT = flags.DEFINE_string("output", None, "The folder that gets the scenes of this recording.")
_FRAMES = flags.DEFINE_string(
  "frames", "", "START:STOP:STEP of the recording's moments, counted from 0, or one; empty for all."
)
_OFFSETS = flags.DEFINE_string(
  "offsets",
  "",
  "Frames to add by camera, as in Camera1:3,Camera4:-1: Camera1 started 3 frames earlier.",
)
_SIZE = flags.DEFINE_integer(
  "size", 0, "Largest side of a crop in pixels; larger ones are reduced. 0 keeps them native.", 0
)
_MARGIN = flags.DEFINE_float("margin", 0.1, "Of a crop around the largest silhouette.", 0.0, 2.0)
_MASKS = flags.DEFINE_string(
  "masks", None, "Masks instead of the capture's: CAMERA.mp4, CAMERA/0.mp4 or CAMERA/*.png in it."
)
_SPECKS = flags.DEFINE_float(
  "specks",
  SPECK_SHARE,
  "Parts and holes of a mask below this share of the animal's area are repaired.",
  0.0,
  0.5,
)
_GROW = flags.DEFINE_integer(
  "grow",
  0,
  "Pixels of the recording's pictures by which silhouettes are widened; narrowed where negative.",
  -32,
  32,
)
_WITHOUT = flags.DEFINE_list("without", [], "Cameras to leave out, as in Camera2,Camera5.")
_CHECK = flags.DEFINE_boolean("check", False, "Only write check.png and check.html.")
_REDO = flags.DEFINE_boolean("redo", False, "Prepare scenes again that are there already.")


def main() -> int:
  """The command; its exit status."""
  settings = PrepareOptions(
    format=_given(_FORMAT),
    input=pathlib.Path(_given(_INPUT)),
    output=pathlib.Path(_given(_OUTPUT)).absolute(),
    frames=_FRAMES.value,
    offsets=parse_offsets(_OFFSETS.value),
    size=_SIZE.value,
    margin=_MARGIN.value,
    masks=pathlib.Path(_MASKS.value) if _MASKS.value else None,
    specks=_SPECKS.value,
    grow=_GROW.value,
    without=tuple(_WITHOUT.value),
    redo=_REDO.value,
  )
  if 0 < settings.size < 32:
    raise InputError("--size", str(settings.size), "expected at least 32 pixels, or 0")
  capture = registry.read_capture(settings.format, settings.input)
  # After the flags and the first reading: neither --help nor a wrong path need wait for JAX.
  from jaxsplat_mouse.capture import mask_files, preparation
  from jaxsplat_mouse.runtime import devices

  devices.set_up_cache()
  if settings.masks is not None:
    found = mask_files.find_masks(settings.masks, capture.rig.names)
    capture = dataclasses.replace(capture, masks=found)
  if _CHECK.value:
    return preparation.check_recording(settings, capture)
  return preparation.prepare_recording(settings, capture)


def _given(flag: flags.FlagHolder[str | None]) -> str:
  if not flag.value:
    raise InputError(f"--{flag.name}", "", "missing; see --help")
  return flag.value


def start() -> None:
  """Parses flags and runs the command."""
  console.run(
    main,
    str(__doc__),
    [
      "format",
      "input",
      "output",
      "frames",
      "offsets",
      "size",
      "margin",
      "masks",
      "specks",
      "grow",
      "without",
      "check",
      "redo",
    ],
  )
