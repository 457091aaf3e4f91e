"""The manifest of a dataset as one table: a row for every scene, failed ones included.

  python -m jaxsplat_mouse.manifest WORKDIR --output=scenes.csv
      for spreadsheets, R and pandas

  python -m jaxsplat_mouse.manifest WORKDIR --output=scenes.parquet
      typed columns; needs pip install 'jaxsplat-mouse[table]'

WORKDIR is the folder of a run, or a dataset. Columns: scene, status, split (the list that the scene
stands in), recording, error, metrics.*, seconds.*, transform.*, and what else the manifest says.
The manifest itself, WORKDIR/dataset/manifest.jsonl, has a line for every attempt; here the last one
counts.

Exit status: 0 written; 1 not, said in one line.
"""

from __future__ import annotations

import pathlib

from absl import flags

from jaxsplat_mouse import console, dataset
from jaxsplat_mouse.errors import InputError
from jaxsplat_mouse.io import manifest_table

_OUTPUT = flags.DEFINE_string("output", None, "The table to write: FILE.csv or FILE.parquet.")


def find_dataset(path: pathlib.Path) -> pathlib.Path:
  """The dataset that a path stands for: itself, or the one of a workdir.

  Raises:
    InputError: there is no manifest.
  """
  for folder in (path, path / "dataset"):
    if (folder / dataset.MANIFEST_FILE).is_file():
      return folder
  problem = f"no {dataset.MANIFEST_FILE}; expected the folder of a run, or its dataset"
  raise InputError(path, "", problem)


def read_splits(root: pathlib.Path) -> dict[str, str]:
  """Scene to `train` or `val`, by the lists of a dataset."""
  splits = {}
  for name in ("train", "val"):
    path = root / f"{name}.txt"
    if path.is_file():
      splits |= {pathlib.Path(line).name: name for line in path.read_text().splitlines()}
  return splits


def main(path: str) -> int:
  """Writes the table; the exit status."""
  if not _OUTPUT.value:
    raise InputError("--output", "", "missing; expected FILE.csv or FILE.parquet")
  root = find_dataset(pathlib.Path(path))
  records = dataset.latest_records(root)
  rows = manifest_table.to_rows(records.values(), read_splits(root))
  try:
    manifest_table.write_table(_OUTPUT.value, rows)
  except OSError as error:
    raise InputError(_OUTPUT.value, "", f"not written ({error.strerror})") from None
  print(f"{len(rows)} scenes, {len(rows[0]) if rows else 0} columns: {_OUTPUT.value}")
  return 0


if __name__ == "__main__":
  console.run(main, str(__doc__), ["output"], positional="WORKDIR")
