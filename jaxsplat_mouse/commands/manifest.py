"""The manifest of a dataset as one table: a row for every scene, failed ones included.

  python -m jaxsplat_mouse.manifest WORKDIR --output=scenes.csv
      for spreadsheets, R and pandas

  python -m jaxsplat_mouse.manifest WORKDIR --output=scenes.parquet
      typed columns; needs pip install 'jaxsplat-mouse[parquet]'

WORKDIR is the folder of a run, or a dataset. Columns: scene, status, split (the list that the scene
stands in), recording, error, metrics.*, seconds.*, transform.*, and what else the manifest says.
The manifest itself, WORKDIR/dataset/manifest.jsonl, has a line for every attempt; here the last one
counts.

Exit status: 0 written; 1 not, said in one line.
"""

from __future__ import annotations

from absl import flags

from jaxsplat_mouse.commands import console
from jaxsplat_mouse.dataset import manifest_table
from jaxsplat_mouse.errors import InputError

_OUTPUT = flags.DEFINE_string("output", None, "The table to write: FILE.csv or FILE.parquet.")


def main(path: str) -> int:
  """Writes the table; the exit status."""
  if not _OUTPUT.value:
    raise InputError("--output", "", "missing; expected FILE.csv or FILE.parquet")
  rows = manifest_table.write_manifest_table(path, _OUTPUT.value)
  print(f"{len(rows)} scenes, {len(rows[0]) if rows else 0} columns: {_OUTPUT.value}")
  return 0


def start() -> None:
  """Parses flags and runs the command."""
  console.run(main, str(__doc__), ["output"], positional="WORKDIR")
