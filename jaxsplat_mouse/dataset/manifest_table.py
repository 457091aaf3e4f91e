"""The manifest as one table, a row for every scene: CSV, or Parquet for data frames."""

from __future__ import annotations

import csv
import io
import json
import os
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

from jaxsplat_mouse.dataset.scene_records import MANIFEST_FILE, SceneRecord, latest_records
from jaxsplat_mouse.errors import InputError
from jaxsplat_mouse.io import atomic

SUFFIXES = (".csv", ".parquet")
_FIRST = ("scene", "status", "split", "recording", "error")
_LEFT_OUT = ("hashes", "render_key", "fit_key")  # of use to the program alone


def find_dataset(path: pathlib.Path) -> pathlib.Path:
  """Returns the dataset at a path: the path itself, or the dataset of a workdir.

  Raises:
    InputError: there is no manifest.
  """
  for folder in (path, path / "dataset"):
    if (folder / MANIFEST_FILE).is_file():
      return folder
  problem = f"no {MANIFEST_FILE}; expected the folder of a run, or its dataset"
  raise InputError(path, "", problem)


def read_splits(root: pathlib.Path) -> dict[str, str]:
  """Returns `train` or `val` for each scene in the lists of a dataset."""
  splits: dict[str, str] = {}
  for name in ("train", "val"):
    path = root / f"{name}.txt"
    if path.is_file():
      splits |= {pathlib.Path(line).name: name for line in path.read_text().splitlines()}
  return splits


def write_manifest_table(
  path: str | os.PathLike[str], output: str | os.PathLike[str]
) -> list[dict[str, Any]]:
  """Writes the last record of every scene as a table.

  Args:
    path: a dataset, or the workdir of one.
    output: FILE.csv or FILE.parquet.

  Returns:
    the rows, one dict for each scene.

  Raises:
    InputError: no manifest, or a file that cannot be written.
  """
  root = find_dataset(pathlib.Path(path))
  rows = to_rows(latest_records(root).values(), read_splits(root))
  try:
    write_table(output, rows)
  except OSError as error:
    raise InputError(output, "", f"not written ({error.strerror})") from None
  return rows


def to_rows(records: Iterable[SceneRecord], splits: Mapping[str, str]) -> list[dict[str, Any]]:
  """Returns one flat dict for each scene, all with the same keys.

  Nested values become columns such as `metrics.input_iou` and `transform.scale`; lists become JSON.

  Args:
    records: one for each scene.
    splits: the list of each scene, as `read_splits` returns it.
  """
  found = []
  for record in records:
    value = {k: v for k, v in record.to_json().items() if k not in _LEFT_OUT}
    found.append(_flatten({**value, "split": splits.get(record.scene, "")}))
  names = dict.fromkeys([*_FIRST, *sorted({name for row in found for name in row})])
  return [{name: row.get(name) for name in names} for row in found]


def _flatten(value: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
  flat: dict[str, Any] = {}
  for key, item in value.items():
    if isinstance(item, Mapping):
      flat |= _flatten(item, f"{prefix}{key}.")
    elif isinstance(item, (list, tuple)):
      flat[prefix + key] = json.dumps(item) if item else None
    elif item is not None or prefix:
      flat[prefix + key] = item
  return flat


def write_table(path: str | os.PathLike[str], rows: list[dict[str, Any]]) -> None:
  """Writes rows in the format of the ending of `path`; the file appears whole or not at all.

  Raises:
    InputError: another ending, or Parquet without pyarrow.
    OSError: the disk is full or not writable.
  """
  path = pathlib.Path(path)
  if path.suffix == ".csv":
    data = _to_csv(rows)
  elif path.suffix == ".parquet":
    data = _to_parquet(path, rows)
  else:
    raise InputError(path, "", f"unknown ending; expected {' or '.join(SUFFIXES)}")
  atomic.write_bytes(path, data)


def _to_csv(rows: list[dict[str, Any]]) -> bytes:
  text = io.StringIO(newline="")
  writer = csv.DictWriter(text, list(rows[0]) if rows else list(_FIRST), lineterminator="\n")
  writer.writeheader()
  writer.writerows(rows)
  return text.getvalue().encode()


def _to_parquet(path: pathlib.Path, rows: list[dict[str, Any]]) -> bytes:
  try:
    import pyarrow
    from pyarrow import parquet
  except ImportError:
    problem = "needs pyarrow; expected pip install 'jaxsplat-mouse[parquet]', or a name in .csv"
    raise InputError(path, "", problem) from None
  names = list(rows[0]) if rows else list(_FIRST)
  columns = {name: _column([row[name] for row in rows]) for name in names}
  buffer = io.BytesIO()
  parquet.write_table(pyarrow.table(columns), buffer)
  return buffer.getvalue()


def _column(values: list[Any]) -> list[Any]:
  """Returns values of one type: integers among floats become floats, other mixtures text."""
  kinds = {type(value) for value in values if value is not None}
  if kinds == {int, float}:
    return [None if value is None else float(value) for value in values]
  if len(kinds) > 1:
    return [None if value is None else str(value) for value in values]
  return values
