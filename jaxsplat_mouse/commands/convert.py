r"""Turns a checkpoint of FaceLift's GS-LRM into a folder of weights for this package.

  python -m jaxsplat_mouse.convert --checkpoint=ckpt_0000000000021125.pt --output=DIR
      weights of one of FaceLift's checkpoints; torch is not needed, and nothing in the file is run

Writes DIR/model.json (architecture, source and its SHA-256, licence), DIR/weights_*.npz and
DIR/NOTICE.txt: FaceLift's weights, and what is trained further from them, are for noncommercial
research only.

Exit status: 0 done; 1 the file cannot be read, its weights are missing, unknown or of other shapes,
or DIR cannot be written, reported in one line.
"""

from __future__ import annotations

import pathlib

from absl import flags as absl_flags
from absl.flags import FlagValues

from jaxsplat_mouse.commands import console
from jaxsplat_mouse.errors import InputError


def define_flags(flags: FlagValues) -> None:
  """Defines the command's flags."""
  for name, text in (
    ("checkpoint", "A file of FaceLift's trainer, ckpt_*.pt."),
    ("output", "The new folder to write."),
  ):
    absl_flags.DEFINE_string(name, None, text, flag_values=flags)
  absl_flags.DEFINE_integer(
    "head_width",
    64,
    "Numbers of an attention head, which the file does not tell.",
    lower_bound=1,
    flag_values=flags,
  )
  absl_flags.DEFINE_enum(
    "dtype",
    "float32",
    ["float32", "float16"],
    "In which numbers are stored; float16 takes half the space.",
    flag_values=flags,
  )


def main(flags: FlagValues) -> int:
  """Converts the checkpoint; returns the exit status."""
  checkpoint, output = (
    pathlib.Path(console.required(flags, name)) for name in ("checkpoint", "output")
  )
  if output.exists():  # before minutes of reading
    raise InputError(output, "", "exists already; expected the name of a new folder")
  from jaxsplat_mouse.learn.training import conversion, weights_folder

  weights = conversion.convert_checkpoint(checkpoint, flags.head_width)
  weights_folder.save_weights(output, weights, flags.dtype)
  shape = weights.architecture
  print(f"{shape.depth} blocks of width {shape.width}, patch {shape.patch} in {output}")
  print(f"licence: {weights.license}; see {output / weights_folder.NOTICE_FILE}")
  return 0
