"""Scores the fits of a run at views that they were not made from.

  python -m jaxsplat_mouse.evaluate --workdir=DIR
      against each scene's target/ folder, beside its input/; the built-in mice have their own truth

  python -m jaxsplat_mouse.evaluate --workdir=DIR --targets=VIEWS
      against VIEWS/SCENE (or VIEWS itself for a single scene): a camera file with images, in the
      world of the scene's photographs

A scene that has no such views is fitted again without each of its cameras in turn, and scored at
the camera left out; that takes as many fits as it has cameras.

fg PSNR (over the animal) and IoU are the headlines; PSNR and SSIM of the whole image are flattered
by the background. DIR/evaluation/ gets metrics.json and a picture of each scene: truth, render and
error.

Exit status: 0 done; 1 nothing could be evaluated; 3 some scenes could not and are listed.
"""

from __future__ import annotations

import pathlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from absl import flags as absl_flags
from absl.flags import FlagValues

from jaxsplat_mouse.commands import console
from jaxsplat_mouse.errors import InputError

if TYPE_CHECKING:
  from rich.table import Table

  from jaxsplat_mouse.run.evaluation import Evaluation


def define_flags(flags: FlagValues) -> None:
  """Defines the command's flags."""
  absl_flags.DEFINE_string(
    "workdir", None, "The folder of a run of jaxsplat_mouse.main.", flag_values=flags
  )
  absl_flags.DEFINE_string(
    "targets", None, "Held-out views, instead of each scene's target/.", flag_values=flags
  )
  absl_flags.DEFINE_integer(
    "max_scenes",
    4,
    "Scenes without held-out views that are fitted again; 0 for all.",
    lower_bound=0,
    flag_values=flags,
  )


def main(flags: FlagValues) -> int:
  """Scores the fits; returns the exit status."""
  folder = console.required(flags, "workdir")
  targets = pathlib.Path(flags.targets) if flags.targets else None
  if targets and not targets.is_dir():
    raise InputError(targets, "", "no such folder; expected held-out views")
  from rich.console import Console

  from jaxsplat_mouse.run.evaluation import evaluate_workdir
  from jaxsplat_mouse.run.workdir import Workdir
  from jaxsplat_mouse.runtime import devices

  devices.set_up_cache()
  out = Console()
  out = out if out.is_terminal else Console(width=120)
  say = lambda text: out.print(text, markup=False, highlight=False, soft_wrap=True)
  workdir = Workdir(folder)
  done, failures = evaluate_workdir(workdir, targets, flags.max_scenes, say)
  if done:
    out.print(score_table(done))
    say(f"written to {workdir.path / 'evaluation'}")
  if not failures:
    return 0
  return 3 if done else 1


def score_table(done: Sequence[Evaluation]) -> Table:
  """Returns a table of scenes with their metrics at novel views, and the mean."""
  from rich.table import Table

  from jaxsplat_mouse import metrics
  from jaxsplat_mouse.report.formatting import format_metric, metric_title

  table = Table()
  table.add_column("scene", overflow="fold")
  table.add_column("scored at")
  table.add_column("views", justify="right")
  for name in metrics.NAMES:
    table.add_column(metric_title(name), justify="right")
  for one in done:
    count = sum(not view["seen"] for view in one.views)
    values = [format_metric(name, one.novel.get(name)) for name in metrics.NAMES]
    table.add_row(one.scene, one.kind, str(count), *values)
  if len(done) > 1:
    mean = metrics.average(one.novel for one in done if one.novel)
    table.add_section()
    values = [format_metric(name, mean.get(name)) for name in metrics.NAMES]
    table.add_row("mean", "", "", *values)
  return table
