"""The folder of a run: its parts, its lock, and `config.json`, which records every start.

WORKDIR/config.json    configuration, versions, device, commands
WORKDIR/lock           held by the running process; processes with a shard each share it
WORKDIR/shards/I-of-N/ lock, checkpoints and metrics.jsonl of a shard
WORKDIR/dataset/       the dataset: scenes, lists, manifest
WORKDIR/fits/SCENE/    gaussians.ply, scene.json
WORKDIR/checkpoints/   half-finished batches
WORKDIR/report/        index.html and its pictures
WORKDIR/metrics.jsonl  loss by scene and iteration
WORKDIR/timing.jsonl   seconds of each stage of each batch
"""

from __future__ import annotations

import datetime
import fcntl
import json
import os
import pathlib
import platform
import shlex
import socket
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from importlib import metadata
from typing import IO, Any

from absl import logging

from jaxsplat_mouse.errors import ConfigError, InputError
from jaxsplat_mouse.io import atomic
from jaxsplat_mouse.run import settings as settings_lib
from jaxsplat_mouse.run.config_keys import differences
from jaxsplat_mouse.run.config_schema import SCHEMA, upgrade
from jaxsplat_mouse.version import __version__

_LIBRARIES = ("jax", "jaxlib", "numpy", "optax", "orbax-checkpoint", "pillow")
_RUNS_KEPT = 50
_LONGEST_LINE = 1 << 16


class Workdir:
  """The paths of one run, its lock and its `config.json`."""

  def __init__(self, path: str | os.PathLike[str], shard: str = ""):
    """Names the parts; creates nothing yet.

    Args:
      path: the folder.
      shard: empty, or for example `0-of-8` if several runs share the folder. Files that one process
        writes alone are then in `shards/0-of-8`; the shared files stay in the folder itself.
    """
    self.path = pathlib.Path(path).absolute()
    self.shard = shard
    self.state = self.path / "shards" / shard if shard else self.path
    self.config_file = self.path / "config.json"
    self.lock_file = self.path / "lock"
    self.dataset = self.path / "dataset"
    self.fits = self.path / "fits"
    self.checkpoints = self.state / "checkpoints"
    self.report = self.path / "report"
    self.metrics_file = self.state / "metrics.jsonl"
    self.timing_file = self.state / "timing.jsonl"

  def make(self) -> None:
    """Creates the folders and removes half-written files of killed runs.

    Raises:
      InputError: the folder cannot be created or written.
    """
    try:
      folders = (self.path, self.dataset, self.fits, self.state, self.checkpoints, self.report)
      for folder in folders:
        folder.mkdir(parents=True, exist_ok=True)
        atomic.clean_stale(folder)
      for folder in self.report.glob("*/"):
        atomic.clean_stale(folder)
      _cut_to_whole_lines(self.metrics_file)
      _cut_to_whole_lines(self.timing_file)
      atomic.write_bytes(self.path / ".writable", b"")
      (self.path / ".writable").unlink()
    except OSError as error:
      reason = error.strerror or str(error)
      raise InputError(
        self.path, "", f"not writable ({reason}); expected a folder for output"
      ) from None

  @contextmanager
  def locked(self) -> Iterator[None]:
    """Locks the workdir, or a shard of it; the system unlocks it if the process dies.

    Raises:
      InputError: another run has locked it.
    """
    if not self.shard:
      with self._held(self.lock_file):
        yield
      return
    with _opened(self.lock_file) as shared:
      _lock(shared, self.path, fcntl.LOCK_SH | fcntl.LOCK_NB)
      with self._held(self.state / "lock"):
        yield

  @contextmanager
  def turn(self) -> Iterator[None]:
    """Waits until no other shard writes shared files: config, lists, report."""
    if not self.shard:
      yield
      return
    with _opened(self.path / "shards" / "turn") as file:
      _lock(file, self.path, fcntl.LOCK_EX)
      yield

  @contextmanager
  def _held(self, path: pathlib.Path) -> Iterator[None]:
    with _opened(path) as file:
      _lock(file, self.path, fcntl.LOCK_EX | fcntl.LOCK_NB)
      left = file.read()
      if left.strip():
        holder = _describe_holder(left)
        logging.warning("%s: taken over from %s, which no longer runs", path, holder)
      held = {"pid": os.getpid(), "host": socket.gethostname(), "since": _now()}
      _rewrite(file, json.dumps(held))
      try:
        yield
      finally:
        # Emptied, not deleted: another run may have the file open and be about to lock it.
        _rewrite(file, "")

  def record_run(
    self, flat: Mapping[str, Any], config_file: str, device: Mapping[str, Any]
  ) -> dict[str, tuple[Any, Any]]:
    """Compares the configuration with the workdir's and writes `config.json`.

    Args:
      flat: configuration by dotted key.
      config_file: the name of its file.
      device: description of the devices, see `Engine.describe`.

    Returns:
      the keys of renders that changed since the last run: key -> (old, new).

    Raises:
      ConfigError: a key that the workdir's fits depend on differs.
      InputError: `config.json` cannot be read or written.
    """
    old = self.read_record()
    changed = differences(old["config"], flat) if old else {}
    fixed = {
      key: pair
      for key, pair in changed.items()
      if not key.startswith(settings_lib.FREE_KEYS + settings_lib.RENDER_KEYS)
    }
    if fixed:
      listed = ", ".join(f"{key} {_show(a)} -> {_show(b)}" for key, (a, b) in fixed.items())
      raise ConfigError(
        f"{self.path} was made with another configuration: {listed}; "
        "expected the same one, or another --workdir"
      )
    start = _describe_start(config_file, device)
    runs = [*(old.get("runs", []) if old else []), start][-_RUNS_KEPT:]
    try:
      text = json.dumps({"schema": SCHEMA, "config": dict(flat), "runs": runs}, indent=2)
      atomic.write_bytes(self.config_file, (text + "\n").encode())
    except OSError as error:
      raise InputError(self.config_file, "", f"cannot be written ({error.strerror})") from None
    return {k: v for k, v in changed.items() if k.startswith(settings_lib.RENDER_KEYS)}

  def read_record(self) -> dict[str, Any] | None:
    """Reads `config.json`: `config` by dotted key and `runs`; None if it does not exist.

    The configuration of an earlier version is upgraded to this version's keys.

    Raises:
      InputError: the file is broken.
    """
    try:
      value = json.loads(self.config_file.read_text())
      if not isinstance(value["config"], dict):
        raise TypeError("config is no object")
      return {**value, "config": upgrade(value["config"])}
    except FileNotFoundError:
      return None
    except (OSError, ValueError, KeyError, TypeError) as error:
      raise InputError(
        self.config_file, "", f"not readable ({error}); expected what an earlier run wrote"
      ) from None

  def read_config(self) -> dict[str, Any]:
    """Returns the configuration by dotted key, as the last run wrote it.

    Raises:
      InputError: the file does not exist or is broken.
    """
    value = self.read_record()
    if value is None:
      raise InputError(self.config_file, "", "no such file; expected the --workdir of a run")
    return value["config"]


def versions() -> dict[str, str]:
  """Returns the versions of the package, of Python and of the libraries that results depend on."""
  found = {"jaxsplat-mouse": __version__, "python": platform.python_version()}
  return found | {name: metadata.version(name) for name in _LIBRARIES}


def _describe_start(config_file: str, device: Mapping[str, Any]) -> dict[str, Any]:
  """Returns what `config.json` records of a start of the run."""
  return {
    "started": _now(),
    "command": _command(sys.argv),
    "config_file": config_file,
    "versions": versions(),
    "device": dict(device),
    "host": socket.gethostname(),
  }


def _now() -> str:
  return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")


def _cut_to_whole_lines(path: pathlib.Path) -> None:
  """Removes what follows the last line break, the incomplete line of a killed run."""
  if not path.is_file():
    return
  with open(path, "r+b") as file:
    size = file.seek(0, os.SEEK_END)
    file.seek(max(0, size - _LONGEST_LINE))
    tail = file.read()
    file.truncate(size - (len(tail) - tail.rfind(b"\n") - 1))


def _opened(path: pathlib.Path) -> IO[str]:
  try:
    return os.fdopen(os.open(path, os.O_RDWR | os.O_CREAT, 0o666), "r+")
  except OSError as error:
    raise InputError(path, "", f"cannot be opened ({error.strerror})") from None


def _lock(file: IO[str], workdir: pathlib.Path, how: int) -> None:
  """Locks an open file.

  Raises:
    InputError: another process has locked it.
  """
  try:
    fcntl.flock(file, how)
  except BlockingIOError:
    holder = _describe_holder(file.read())
    raise InputError(workdir, "", f"in use by {holder}; expected one run at a time") from None
  except OSError as error:  # a file system without locks
    logging.warning("%s: cannot be locked (%s)", file.name, error.strerror)


def _rewrite(file: Any, text: str) -> None:
  file.seek(0)
  file.truncate()
  file.write(text)
  file.flush()


def _command(argv: Sequence[str]) -> str:
  """Returns the command as a person types it: `python -m jaxsplat_mouse.NAME FLAGS`."""
  file = pathlib.Path(argv[0])
  module = file.stem if file.parent.name == "jaxsplat_mouse" else ""
  first = ["python", "-m", f"jaxsplat_mouse.{module}"] if module else [argv[0]]
  return shlex.join([*first, *argv[1:]])


def _describe_holder(text: str) -> str:
  try:
    holder = json.loads(text)
    return f"process {holder['pid']} on {holder['host']} since {holder['since']}"
  except (ValueError, KeyError, TypeError):
    return "another process"


def _show(value: Any) -> str:
  text = json.dumps(value)
  return text if len(text) <= 60 else text[:57] + "..."
