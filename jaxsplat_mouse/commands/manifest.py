"""Writes the manifest of a dataset as one table: a row for every scene, failed ones included.

  python -m jaxsplat_mouse.manifest WORKDIR --output=scenes.csv
      for spreadsheets, R and pandas

  python -m jaxsplat_mouse.manifest WORKDIR --output=scenes.parquet
      typed columns; needs pip install 'jaxsplat-mouse[parquet]'

WORKDIR is the folder of a run, or a dataset. Columns: scene, status, split (the list of the scene),
recording, error, metrics.*, seconds.*, transform.*, and the other keys of the manifest. The
manifest itself, WORKDIR/dataset/manifest.jsonl, has a line for every attempt; the table has the
last one.

Exit status: 0 written; 1 not written; the reason in one line.
"""

from __future__ import annotations

from absl import flags as absl_flags
from absl.flags import FlagValues

from jaxsplat_mouse.commands import console

ARGUMENT = "WORKDIR"


def define_flags(flags: FlagValues) -> None:
  """Defines the command's flags."""
  absl_flags.DEFINE_string(
    "output", None, "The table to write: FILE.csv or FILE.parquet.", flag_values=flags
  )


def main(flags: FlagValues, path: str) -> int:
  """Writes the table; returns the exit status."""
  from jaxsplat_mouse.dataset import manifest_table

  output = console.required(flags, "output")
  rows = manifest_table.write_manifest_table(path, output)
  print(f"{len(rows)} scenes, {len(rows[0]) if rows else 0} columns: {output}")
  return 0
