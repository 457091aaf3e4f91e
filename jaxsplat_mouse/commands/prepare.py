r"""Turns a raw capture (calibration, videos, masks) into scene folders for jaxsplat_mouse.main.

  python -m jaxsplat_mouse.prepare --format=dannce --input=RECORDING --output=SCENES --check
      first look: SCENES/check.png and check.html show views, masks, the silhouettes' common solid
      and epipolar lines, so that a person sees whether the calibration is right

  python -m jaxsplat_mouse.prepare --format=dannce --input=RECORDING --output=SCENES \
      --frames=0:18000:100
      every 100th moment as a scene SCENES/RECORDING_MOMENT, and SCENES/recording.json

  python -m jaxsplat_mouse.main --config=2dgs --config.data.input=SCENES
      fits them; with --config.data.normalize=recording the animal keeps its size between moments

Pictures are undistorted, skew included, and cut around the animal at native resolution in windows
of one size, which a first pass over all masks decides; cameras keep the recording's own world and
unit. Masks may be lossy video: 128 and more is animal (1 in images of 0 and 1), the outline stays
soft, holes and islands below --specks of the animal (or 16 px) are repaired. Masks that are too
wide all around, as many programs give them, are narrowed with --grow=-2 (pixels). A recording of
eight moments and more is compared with its own background plates: where masks turn out too wide,
too narrow or to wobble, mattes replace them (--matte); without masks, --masks=plate makes them. A
camera without a picture of a moment is left out of its scene as long as four remain (three in
smaller rigs), one without any is reported and left out of all; --without leaves out others.

Several animals get a scene each, SCENES/RECORDING_MOMENT_a1 and so on. Their masks are PNG images
of label ids (--animals=1,2), or one mask per animal in --masks=DIR: DIR/ANIMAL/CAMERA.mp4,
DIR/ANIMAL/CAMERA/*.png or, as video segmentation writes them, DIR/CAMERA/ANIMAL/*.png. Where one
may hide another, pixels are left unobserved, not taken for background. Where a camera exchanges two
ids for a moment, they are exchanged back and recording.json names it.

Poses that are off by up to about two degrees are corrected with the silhouettes of moments spread
over the whole recording, and only where moments that took no part agree better with the corrected
poses; SCENES/calibration.json holds both and the evidence. What all cameras share stays as it was
given. --refine=off keeps the calibration, --refine=on fails where it cannot be improved.
--write_calibration=own writes the corrected cameras in the recording's own format too, so that
other programs profit; the recording itself is never changed.

Cameras that differ in exposure or white balance are measured on surface points that two of them
see, all over the recording, and brought to their common mean; --exposure=off leaves the colours.

Cameras that ran whole frames late or early are found where the animal moves, and put into step
where moments that took no part agree better; --sync=report only names them. A camera that moved
during the recording is named with the moment.

A calibration that is transposed, inverted, mirrored, of other axes, of another image size or of
exchanged cameras is refused with the evidence.

It can be stopped at any moment: the same command goes on where it was, and finished scenes are
kept. Settings other than --frames must stay the same, or --redo prepares everything again.

Exit status: 0 every moment is a scene; 1 nothing could start; 3 some moments failed and are listed;
130 or 143 stopped by Ctrl-C or SIGTERM.
"""

from __future__ import annotations

import dataclasses
import functools
import pathlib

from absl import flags as absl_flags
from absl.flags import FlagValues

from jaxsplat_mouse.capture.formats import registry
from jaxsplat_mouse.capture.mattes import SPECK_SHARE
from jaxsplat_mouse.capture.prepare_options import (
  REFINE_MODES,
  SYNC_MODES,
  PrepareOptions,
  parse_offsets,
)
from jaxsplat_mouse.commands import console
from jaxsplat_mouse.errors import InputError

_PLATE = "plate"  # the value of --masks that makes masks from the pictures


def define_flags(flags: FlagValues) -> None:
  """Defines the command's flags."""
  _define_recording_flags(flags)
  _define_silhouette_flags(flags)
  absl_flags.DEFINE_enum(
    "refine",
    "auto",
    list(REFINE_MODES),
    "Correct the cameras' poses with the silhouettes of the whole recording: auto where held-out "
    "moments confirm it, on to fail where they do not, off never.",
    flag_values=flags,
  )
  absl_flags.DEFINE_list(
    "write_calibration",
    [],
    "Write refined cameras into refined_calibration/ beside the scenes: own for the recording's "
    "own format, anipose for calibration.toml, colmap for a text model; as in own,colmap.",
    flag_values=flags,
  )
  absl_flags.DEFINE_enum(
    "sync",
    "auto",
    list(SYNC_MODES),
    "Find cameras that are whole frames early or late: auto corrects them where held-out moments "
    "confirm it, report only names them, off does not look.",
    flag_values=flags,
  )
  absl_flags.DEFINE_enum(
    "exposure",
    "auto",
    ["auto", "off"],
    "Take differences of exposure and white balance between the cameras out of the pictures: auto "
    "where they are significant and held-out moments confirm it, off never.",
    flag_values=flags,
  )
  define_boolean = functools.partial(absl_flags.DEFINE_boolean, flag_values=flags)
  define_boolean("check", False, "Only write check.png and check.html.")
  define_boolean("redo", False, "Prepare finished scenes again.")


def _define_recording_flags(flags: FlagValues) -> None:
  define_string = functools.partial(absl_flags.DEFINE_string, flag_values=flags)
  absl_flags.DEFINE_enum(
    "format", None, list(registry.FORMATS), "The format of the capture.", flag_values=flags
  )
  define_string("input", None, "The recording's folder, or its calibration file.")
  define_string("output", None, "The folder that gets the scenes of this recording.")
  define_string(
    "frames",
    "",
    "START:STOP:STEP of the recording's moments, counted from 0, or one; empty for all.",
  )
  define_string(
    "offsets",
    "",
    "Frames to add by camera, as in Camera1:3,Camera4:-1: Camera1 started 3 frames earlier.",
  )
  absl_flags.DEFINE_list(
    "without", [], "Cameras to leave out, as in Camera2,Camera5.", flag_values=flags
  )


def _define_silhouette_flags(flags: FlagValues) -> None:
  define_integer = functools.partial(absl_flags.DEFINE_integer, flag_values=flags)
  define_float = functools.partial(absl_flags.DEFINE_float, flag_values=flags)
  define_integer(
    "size", 0, "Largest side of a crop in pixels; larger ones are reduced. 0 keeps them native.", 0
  )
  define_float(
    "margin", 0.1, "Margin of a crop around the largest silhouette, as a share of its side.", 0, 2
  )
  absl_flags.DEFINE_string(
    "masks",
    None,
    "Masks instead of the capture's: a folder of CAMERA.mp4, CAMERA/0.mp4 or CAMERA/*.png; `plate` "
    "to make them from the pictures where the animal stands out from the empty scene.",
    flag_values=flags,
  )
  absl_flags.DEFINE_list(
    "animals",
    [],
    "Several animals, a scene for each: label ids in the masks, as in 1,2, or names of folders in "
    "--masks that hold the masks of one animal each (all of them by default).",
    flag_values=flags,
  )
  absl_flags.DEFINE_enum(
    "matte",
    "auto",
    ["auto", "on", "off"],
    "Replace masks by mattes, solved against each camera's empty scene: auto where masks are too "
    "wide, too narrow or wobble, and the recording has enough moments.",
    flag_values=flags,
  )
  define_float(
    "specks",
    SPECK_SHARE,
    "Parts and holes of a mask below this share of the animal's area are repaired.",
    0,
    0.5,
  )
  define_integer(
    "grow",
    0,
    "Pixels of the recording's pictures by which silhouettes are widened; narrowed where negative.",
    -32,
    32,
  )


def main(flags: FlagValues) -> int:
  """Prepares or checks a recording; returns the exit status."""
  options = _options(flags)
  capture = registry.read_capture(options.format, options.input)
  # After the first reading: a wrong path is reported before JAX is loaded.
  from jaxsplat_mouse.capture import mask_files, preparation
  from jaxsplat_mouse.runtime import devices

  devices.set_up_cache()
  if options.plate_masks:
    capture = dataclasses.replace(capture, masks=None)
  capture = mask_files.with_masks(capture, options.masks, options.animals)
  if flags.check:
    return preparation.check_recording(options, capture)
  return preparation.prepare_recording(options, capture)


def _options(flags: FlagValues) -> PrepareOptions:
  if 0 < flags.size < 32:
    raise InputError("--size", str(flags.size), "expected at least 32 pixels, or 0")
  return PrepareOptions(
    format=console.required(flags, "format"),
    input=pathlib.Path(console.required(flags, "input")),
    output=pathlib.Path(console.required(flags, "output")).absolute(),
    frames=flags.frames,
    offsets=parse_offsets(flags.offsets),
    size=flags.size,
    margin=flags.margin,
    masks=pathlib.Path(flags.masks) if flags.masks and flags.masks != _PLATE else None,
    plate_masks=flags.masks == _PLATE,
    animals=tuple(flags.animals),
    matte=flags.matte,
    specks=flags.specks,
    grow=flags.grow,
    without=tuple(flags.without),
    refine=flags.refine,
    write_calibration=tuple(flags.write_calibration),
    sync=flags.sync,
    exposure=flags.exposure,
    redo=flags.redo,
  )
