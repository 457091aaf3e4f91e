"""Files and folders that appear whole or not at all, whatever kills the process.

Everything is first written beside its destination under a hidden temporary name, flushed to the
disk, and renamed. The name contains host and process, so that leftovers of a killed run can be
distinguished from files that a running one is still writing.
"""

from __future__ import annotations

import contextlib
import os
import pathlib
import re
import secrets
import shutil
import socket
import time
from collections.abc import Iterator

PREFIX = ".tmp-"
_HOST = re.sub(r"[^A-Za-z0-9-]", "-", socket.gethostname())[:40] or "localhost"
_NAME = re.compile(re.escape(PREFIX) + r".+@(?P<host>[A-Za-z0-9-]+)@(?P<pid>\d+)@[0-9a-f]+")
_STALE_SECONDS = 3600.0
_in_use: set[str] = set()  # full paths of the temporaries that this process is writing


def _temporary_path(destination: pathlib.Path) -> pathlib.Path:
  tag = f"{_HOST}@{os.getpid()}@{secrets.token_hex(4)}"
  return destination.absolute().with_name(f"{PREFIX}{destination.name}@{tag}")


def _sync(path: pathlib.Path) -> None:
  descriptor = os.open(path, os.O_RDONLY)
  try:
    os.fsync(descriptor)
  finally:
    os.close(descriptor)


def write_bytes(path: str | os.PathLike[str], data: bytes) -> None:
  """Replaces the content of `path` by `data` in one step; the old content stays until then.

  Raises:
    OSError: the folder is missing or not writable, or the disk is full; no temporary file stays.
  """
  path = pathlib.Path(path)
  temporary = _temporary_path(path)
  _in_use.add(str(temporary))
  try:
    with open(temporary, "xb") as file:
      file.write(data)
      file.flush()
      os.fsync(file.fileno())
    temporary.replace(path)
    _sync(temporary.parent)
  except BaseException:
    with contextlib.suppress(OSError):
      temporary.unlink(missing_ok=True)
    raise
  finally:
    _in_use.discard(str(temporary))


@contextlib.contextmanager
def new_folder(path: str | os.PathLike[str], *, overwrite: bool = False) -> Iterator[pathlib.Path]:
  """Yields a hidden folder beside `path` that becomes `path` when the block ends without an error.

  With `overwrite`, an existing folder is moved aside just before and deleted after that: a process
  killed in between leaves no folder, never a mixture.

  Raises:
    FileExistsError: `path` exists and `overwrite` is false.
    OSError: the folder cannot be written; no temporary folder stays.
  """
  path = pathlib.Path(path)
  if path.exists() and not overwrite:
    raise FileExistsError(f"{path}: exists already")
  temporary, aside = _temporary_path(path), _temporary_path(path)
  _in_use.update((str(temporary), str(aside)))
  try:
    temporary.mkdir()
    yield temporary
    sync_tree(temporary)
    if overwrite and path.exists():
      path.rename(aside)
    temporary.rename(path)
    _sync(temporary.parent)
  finally:
    shutil.rmtree(temporary, ignore_errors=True)
    shutil.rmtree(aside, ignore_errors=True)
    _in_use.difference_update((str(temporary), str(aside)))


def sync_tree(folder: pathlib.Path) -> None:
  """Flushes every file and folder below `folder` to the disk."""
  for directory, _, names in os.walk(folder):
    for name in names:
      _sync(pathlib.Path(directory, name))
    _sync(pathlib.Path(directory))


def clean_stale(folder: str | os.PathLike[str]) -> list[str]:
  """Deletes the temporaries in `folder` whose writer has ended; returns their names.

  A writer on this host has ended if its process has. A writer on another host, or one whose process
  number another program may have taken over, has ended if an hour passed without a change.
  """
  removed = []
  for entry in sorted(pathlib.Path(folder).glob(PREFIX + "*")):
    if str(entry.absolute()) not in _in_use and _is_stale(entry):
      if entry.is_dir() and not entry.is_symlink():
        shutil.rmtree(entry, ignore_errors=True)
      else:
        entry.unlink(missing_ok=True)
      removed.append(entry.name)
  return removed


def _is_stale(entry: pathlib.Path) -> bool:
  match = _NAME.fullmatch(entry.name)
  if match and match["host"] == _HOST:
    process = int(match["pid"])
    if process == os.getpid() or not _runs(process):
      return True
  try:
    return time.time() - entry.lstat().st_mtime > _STALE_SECONDS
  except FileNotFoundError:  # its writer has finished meanwhile
    return False


def _runs(process: int) -> bool:
  try:
    os.kill(process, 0)
  except ProcessLookupError:
    return False
  except (PermissionError, OverflowError):
    return True
  return True
