r"""Trains GS-LRM: a network that turns a few posed photographs into Gaussians in one pass.

  python -m jaxsplat_mouse.train --config=gslrm:tiny --workdir=DIR
      a tiny network on built-in mice: shows that everything works, on a CPU too

  python -m jaxsplat_mouse.train --config=gslrm:small --workdir=DIR \
      --config.data.datasets=DATASET/train.txt@0.3,OBJECTS/train.txt@0.7
      your datasets, by weight: lists of scene folders as those of jaxsplat_mouse.main;
      mice:N and solids:N are N built-in scenes

  python -m jaxsplat_mouse.train --config=gslrm:facelift --workdir=DIR --config.weights=WEIGHTS
      goes on from weights, such as those that jaxsplat_mouse.convert wrote

All GPUs of the machine share a step. A training can be stopped at any moment (Ctrl-C, SIGTERM, even
kill -9): the same command goes on at its last checkpoint. A step whose gradient is not finite or
too long is not taken, and counted.

In DIR:  weights/        the result, for inference
         metrics.jsonl   losses and scores by step
         held_out.png    animals that it does not learn from, truth above network
         checkpoints/    the newest two states

Exit status: 0 done; 1 it could not start; 130 or 143 stopped by Ctrl-C or SIGTERM.
"""

from __future__ import annotations

from absl import flags as absl_flags
from absl.flags import FlagValues

from jaxsplat_mouse.commands import console

CONFIG = "gslrm:small"


def define_flags(flags: FlagValues) -> None:
  """Defines the command's flags."""
  console.define_config(flags, CONFIG)
  absl_flags.DEFINE_string(
    "workdir", None, "Where results go and a stopped training goes on.", flag_values=flags
  )


def main(flags: FlagValues) -> int:
  """Trains; returns the exit status."""
  workdir = console.required(flags, "workdir")
  from jaxsplat_mouse.run import training_job
  from jaxsplat_mouse.runtime import devices

  devices.set_up_cache()
  return training_job.train(flags.config, workdir)
