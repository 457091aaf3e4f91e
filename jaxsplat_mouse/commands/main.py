"""From a few calibrated photographs of an animal to a FaceLift dataset.

  python -m jaxsplat_mouse.main --config=2dgs
      the whole job on a built-in mouse: shows that everything works

  python -m jaxsplat_mouse.main --config=2dgs:preview
      the same with few splats and small images, for a quick look

  python -m jaxsplat_mouse.main --config=2dgs --config.data.input=SCENES --workdir=DIR
      your scenes: a scene folder (opencv_cameras.json and images/), a folder of such folders, or a
      list file with one folder a line

  python -m jaxsplat_mouse.main --config=3dgs --config.fit.iterations=2000
      any setting of configs/default.py and jaxsplat_mouse/fit/config.py on the command line;
      a file of your own in place of a name: --config=mine.py

It can be stopped at any moment (Ctrl-C, SIGTERM, even kill -9): the same command goes on where it
was. Scenes that cannot be read or fitted are reported and do not stop the others.

In DIR:  dataset/   32 views of each scene, lists, manifest, a training configuration
         fits/      the Gaussians (PLY) of each scene and its canonical transform
         report/    index.html and a contact sheet of each scene

Exit status: 0 every scene is done; 1 nothing could start; 3 some scenes failed and are listed;
130 or 143 stopped by Ctrl-C or SIGTERM.
"""

from __future__ import annotations

from absl import flags as absl_flags
from absl.flags import FlagValues
from ml_collections import config_flags

from jaxsplat_mouse.commands import console


def define_flags(flags: FlagValues) -> None:
  """Defines the command's flags."""
  console.define_config(flags)
  absl_flags.DEFINE_string(
    "workdir",
    None,
    "Where results go and a stopped run goes on. By default runs/NAME, after the config's name.",
    flag_values=flags,
  )


def main(flags: FlagValues) -> int:
  """Runs the whole job; returns the exit status."""
  from jaxsplat_mouse.run import job

  config_file = config_flags.get_config_filename(flags["config"])
  return job.run(flags.config, flags.workdir or default_workdir(config_file), config_file)


def default_workdir(config: str) -> str:
  """Returns `runs/2dgs` for `configs/2dgs.py`, `runs/2dgs_preview` for its preview."""
  file, _, variant = config.partition(":")
  name = file.rpartition("/")[2].removesuffix(".py")
  return f"runs/{name}_{variant}" if variant else f"runs/{name}"
