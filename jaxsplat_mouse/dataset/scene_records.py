"""The records of `manifest.jsonl`: one JSON object a line for each attempt at a scene.

Lines are appended and never edited. A scene that is made again gets another line; the last one
counts. A process killed while it writes leaves at most a cut last line: readers drop it, the next
writer removes it.
"""

from __future__ import annotations

import dataclasses
import fcntl
import json
import math
import os
import pathlib
from typing import Any

from jaxsplat_mouse.errors import InputError

MANIFEST_FILE = "manifest.jsonl"
STATUSES = ("done", "rejected", "failed")


@dataclasses.dataclass(frozen=True, kw_only=True)
class SceneRecord:
  """One line of the manifest.

  Attributes:
    scene: the scene's folder name in the dataset.
    status: `done`; `rejected`, written but left out of the lists; or `failed`, not written.
    recording: the recording it came from; all scenes of a recording go to one list.
    metrics: quality figures by name; a number that is not finite is stored as null.
    transform: the canonical transform as `Similarity.to_json` gives it, or None.
    seconds: wall time by stage.
    hashes: SHA-256 of every file of the scene by path relative to its folder.
    error: why it failed or was rejected, in one line.
    extra: anything else.
  """

  scene: str
  status: str
  recording: str = ""
  metrics: dict[str, float | None] = dataclasses.field(default_factory=dict)
  transform: dict[str, Any] | None = None
  seconds: dict[str, float] = dataclasses.field(default_factory=dict)
  hashes: dict[str, str] = dataclasses.field(default_factory=dict)
  error: str = ""
  extra: dict[str, Any] = dataclasses.field(default_factory=dict)

  def __post_init__(self) -> None:
    if self.status not in STATUSES:
      raise ValueError(f"scene {self.scene}: status {self.status!r}; expected one of {STATUSES}")

  def to_json(self) -> dict[str, Any]:
    """Returns a JSON object that contains the keys of `extra` too."""
    fields = {f.name: getattr(self, f.name) for f in dataclasses.fields(self) if f.name != "extra"}
    return {**self.extra, **fields}

  @classmethod
  def from_json(cls, value: dict[str, Any]) -> SceneRecord:
    """Reads what `to_json` returned.

    Raises:
      ValueError: the status is unknown.
      TypeError: a key is missing.
    """
    names = {f.name for f in dataclasses.fields(cls)} - {"extra"}
    known = {k: v for k, v in value.items() if k in names}
    return cls(**known, extra={k: v for k, v in value.items() if k not in names})


def append_record(root: str | os.PathLike[str], record: SceneRecord) -> None:
  """Appends one line to the manifest of the dataset `root` and flushes it to the disk.

  A lock on the file keeps lines of several processes apart.
  """
  line = json.dumps(_finite(record.to_json()), allow_nan=False) + "\n"
  descriptor = os.open(pathlib.Path(root, MANIFEST_FILE), os.O_RDWR | os.O_CREAT, 0o666)
  with os.fdopen(descriptor, "r+b") as file:
    fcntl.flock(file, fcntl.LOCK_EX)
    file.seek(_end_of_whole_lines(file))
    file.truncate()
    file.write(line.encode())
    file.flush()
    os.fsync(file.fileno())


def read_manifest(root: str | os.PathLike[str]) -> list[SceneRecord]:
  """Returns every record of the dataset `root` in order; [] where there is no manifest.

  Raises:
    InputError: a line other than a cut last one is no record.
  """
  path = pathlib.Path(root, MANIFEST_FILE)
  try:
    *lines, _ = path.read_bytes().split(b"\n")  # what follows the last newline was cut by a kill
  except FileNotFoundError:
    return []
  records = []
  for number, line in enumerate(lines, 1):
    try:
      records.append(SceneRecord.from_json(json.loads(line)))
    except (ValueError, TypeError, AttributeError) as error:
      raise InputError(path, f"line {number}", f"no scene record ({error})") from None
  return records


def latest_records(root: str | os.PathLike[str]) -> dict[str, SceneRecord]:
  """Returns the last record of each scene, in the order of first appearance."""
  return {record.scene: record for record in read_manifest(root)}


def _end_of_whole_lines(file: Any) -> int:
  """Returns the offset behind the last newline of an open binary file."""
  end = file.seek(0, os.SEEK_END)
  while end > 0:
    start = max(0, end - (1 << 16))
    file.seek(start)
    newline = file.read(end - start).rfind(b"\n")
    if newline >= 0:
      return start + newline + 1
    end = start
  return 0


def _finite(value: Any) -> Any:
  """Returns the value with None for every number that JSON cannot hold."""
  if isinstance(value, dict):
    return {str(k): _finite(v) for k, v in value.items()}
  if isinstance(value, (list, tuple)):
    return [_finite(v) for v in value]
  if hasattr(value, "tolist"):  # numpy scalars and arrays
    return _finite(value.tolist())
  if isinstance(value, float) and not math.isfinite(value):
    return None
  return value
