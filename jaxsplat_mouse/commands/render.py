r"""Renders Gaussians at any cameras into a scene folder.

  python -m jaxsplat_mouse.render --gaussians=FILE.ply --cameras=FILE.json --output=DIR
      cameras in the canonical frame, the world that the Gaussians live in

  python -m jaxsplat_mouse.render --gaussians=runs/2dgs/fits/SCENE/gaussians.ply \
      --cameras=SCENE/target/opencv_cameras.json --output=DIR --frame=input
      cameras in the world of the scene's photographs, units included: the transform in scene.json
      beside the PLY is applied to them

Writes images/cam_000.png ... (RGBA, straight alpha) and opencv_cameras.json with the given cameras
into DIR; frame i belongs to camera i of the file.

Exit status: 0 done; 1 something could not be read or written, reported in one line.
"""

from __future__ import annotations

from absl import flags as absl_flags
from absl.flags import FlagValues

from jaxsplat_mouse.commands import console


def define_flags(flags: FlagValues) -> None:
  """Defines the command's flags."""
  for name, text in (
    ("gaussians", "A splat PLY, of 3DGS or 2DGS."),
    ("cameras", "A camera file as opencv_cameras.json, with w and h."),
    ("output", "The scene folder to write."),
  ):
    absl_flags.DEFINE_string(name, None, text, flag_values=flags)
  absl_flags.DEFINE_enum(
    "frame", "canonical", ["canonical", "input"], "The world of the cameras.", flag_values=flags
  )


def main(flags: FlagValues) -> int:
  """Renders the views; returns the exit status."""
  gaussians, cameras, output = (
    console.required(flags, name) for name in ("gaussians", "cameras", "output")
  )
  from jaxsplat_mouse.run import render_folder
  from jaxsplat_mouse.runtime import devices

  devices.set_up_cache()
  count = render_folder.render_to_folder(gaussians, cameras, output, flags.frame)
  print(f"{count} views in {output}")
  return 0
