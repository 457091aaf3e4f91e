"""Checks a whole dataset: its scenes in threads, its lists, manifest and training configuration."""

from __future__ import annotations

import concurrent.futures
import dataclasses
import hashlib
import json
import os
import pathlib
import tempfile
from collections.abc import Iterator
from typing import Any

from jaxsplat_mouse.validation.rules import Rules
from jaxsplat_mouse.validation.scene_checks import CAMERAS, check_scene, describe_error, leftovers

LISTS = ("train.txt", "val.txt")
MANIFEST = "manifest.jsonl"
TRAINING = "mouse_gslrm_synthetic.yaml"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Report:
  """What was checked and what is wrong.

  Attributes:
    scenes: scenes of each list, or {"scene": 1} for a single one.
    views: images that were checked.
    faults: one line each.
  """

  scenes: dict[str, int]
  views: int
  faults: list[str]


def check_dataset(path: str | os.PathLike[str], rules: Rules, threads: int = 0) -> Report:
  """Checks a dataset or a single scene folder.

  Args:
    path: the folder.
    rules: what its scenes must be.
    threads: scenes checked at a time; 0 is one for each core.

  Returns:
    the faults, and what was checked.
  """
  root = pathlib.Path(path)
  if not root.is_dir():
    return Report(scenes={}, views=0, faults=[f"{root}: no such folder; expected a dataset"])
  if (root / CAMERAS).exists():
    views, found = check_scene(root, rules)
    return Report(scenes={"scene": 1}, views=views, faults=found)
  faults: list[str] = []
  lists = {name: _read_list(root, name, faults) for name in LISTS}
  listed = list(dict.fromkeys(scene for scenes in lists.values() for scene in scenes))
  faults += _check_lists(root, lists)
  present = [folder for folder in listed if folder.is_dir()]
  with concurrent.futures.ThreadPoolExecutor(threads or os.cpu_count() or 1) as pool:
    results = list(pool.map(lambda folder: check_scene(folder, rules), present))
    faults += [fault for _, found in results for fault in found]
    faults += _check_manifest(root, listed, pool)
  faults += _check_training(root)
  scenes = {name.removesuffix(".txt"): len(folders) for name, folders in lists.items()}
  return Report(scenes=scenes, views=sum(views for views, _ in results), faults=faults)


def _read_list(root: pathlib.Path, name: str, faults: list[str]) -> list[pathlib.Path]:
  """Returns the scene folders of a list, [] without a list; relative lines start at `root`."""
  path = root / name
  try:
    lines = path.read_text(encoding="utf-8").splitlines()
  except (OSError, UnicodeDecodeError) as error:
    faults.append(f"{path}: {describe_error(error)}; expected a list of scene folders")
    return []
  for number, line in enumerate(lines, 1):
    if not line.strip():
      faults.append(f"{path}: line {number}: blank; expected a scene folder")
  return [root / line.strip() for line in lines if line.strip()]


def _check_lists(root: pathlib.Path, lists: dict[str, list[pathlib.Path]]) -> Iterator[str]:
  first: dict[pathlib.Path, str] = {}
  for name, folders in lists.items():
    for folder in folders:
      where, real = f"{root / name}: {folder}", folder.resolve()
      if real in first:
        yield f"{where}: listed in {first[real]} already; expected each scene once"
      first.setdefault(real, name)
      moved = " (moved? run with --relocate)" if (root / folder.name / CAMERAS).exists() else ""
      if not folder.is_dir():
        yield f"{where}: no such scene folder{moved}"
      elif root.resolve() not in real.parents:
        yield f"{where}: lies outside; expected a folder of {root}{moved}"
  if (root / LISTS[0]).is_file() and not lists[LISTS[0]]:
    yield f"{root / LISTS[0]}: empty; expected at least one scene"
  unlisted = {path.parent.resolve() for path in root.glob(f"*/{CAMERAS}")} - set(first)
  left_out = {name for name, record in _last_records(root).items() if record["status"] != "done"}
  for folder in sorted(unlisted):
    if folder.name not in left_out and not folder.name.startswith("."):
      yield f"{folder}: in no list; expected it in {' or '.join(LISTS)}"
  for name, problem in leftovers(root):
    yield f"{root / name}: {problem}"


def _records(root: pathlib.Path) -> Iterator[tuple[int, dict[str, Any] | None]]:
  """Yields line numbers and records of the manifest, None for a line that is no record."""
  try:
    lines = (root / MANIFEST).read_bytes().split(b"\n")
  except OSError:
    return
  for number, line in enumerate(lines, 1):
    if line or number < len(lines):
      try:
        record = json.loads(line)
        usable = isinstance(record["scene"], str) and isinstance(record["status"], str)
      except (ValueError, TypeError, KeyError):
        usable = False
      yield number, record if usable and number < len(lines) else None


def _last_records(root: pathlib.Path) -> dict[str, dict[str, Any]]:
  return {record["scene"]: record for _, record in _records(root) if record is not None}


def _check_manifest(
  root: pathlib.Path, listed: list[pathlib.Path], pool: concurrent.futures.Executor
) -> Iterator[str]:
  path = root / MANIFEST
  if not path.exists():
    return
  for number, record in _records(root):
    if record is None:
      yield f"{path}: line {number}: cut or broken; expected a whole JSON record"
  records = _last_records(root)
  names = {folder.name for folder in listed}
  for name in sorted(names - set(records)):
    yield f"{path}: {name}: listed, but without a record"
  for name in sorted(names & set(records)):
    if records[name]["status"] != "done":
      yield f"{path}: {name}: listed, but its status is {records[name]['status']}; expected done"
  for name, record in records.items():
    if record["status"] == "done" and name not in names:
      yield f"{path}: {name}: done, but in no list"
  for faults in pool.map(lambda item: _check_hashes(root / item[0], item[1]), records.items()):
    yield from faults


def _check_hashes(folder: pathlib.Path, record: dict[str, Any]) -> list[str]:
  """Returns a fault for each file of a scene that differs from its SHA-256 in the manifest."""
  expected = record.get("hashes")
  if record["status"] == "failed" or not isinstance(expected, dict) or not folder.is_dir():
    return []
  faults = []
  present = {p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file()}
  for name in sorted(present | set(expected)):
    if name not in present:
      faults.append(f"{folder / name}: missing; expected as in {MANIFEST}")
    elif name not in expected:
      faults.append(f"{folder / name}: not in {MANIFEST}; expected no other files")
    elif hashlib.sha256((folder / name).read_bytes()).hexdigest() != expected[name]:
      faults.append(f"{folder / name}: changed since it was written; expected its SHA-256")
  return faults


def _check_training(root: pathlib.Path) -> Iterator[str]:
  """Yields a fault for each path of the training configuration that leads nowhere."""
  path = root / TRAINING
  if not path.exists():
    return
  import yaml

  try:
    config = yaml.safe_load(path.read_text(encoding="utf-8"))
    training, validation = config["training"]["dataset"], config["validation"]
    used = {"training.dataset.dataset_path": training["dataset_path"]}
    if validation["enabled"]:
      used["validation.dataset_path"] = validation["dataset_path"]
    mice = [entry for entry in training["datasets"] if entry["name"] == "mouse_synthetic"]
    used["training.dataset.datasets.mouse_synthetic"] = mice[0]["dataset_path"]
  except (yaml.YAMLError, OSError, ValueError, KeyError, TypeError, IndexError) as error:
    yield f"{path}: {describe_error(error)}; expected a training configuration"
    return
  for field, value in used.items():
    if not isinstance(value, str) or not pathlib.Path(value).is_file():
      yield f"{path}: {field}: {value} does not exist; expected a list (or run with --relocate)"
    elif pathlib.Path(value).resolve().parent != root.resolve():
      yield f"{path}: {field}: {value} lies outside; expected a list of {root}"


def relocate_dataset(root: str | os.PathLike[str]) -> list[str]:
  """Rewrites the paths in the lists and the training configuration of a moved dataset.

  A line whose folder name is a scene of `root` becomes its absolute path; other lines, as those of
  other datasets in a mixed list, stay. Returns the names of the files that changed.
  """
  root = pathlib.Path(root).absolute()
  old_roots: set[str] = set()
  changed = []
  for path in sorted(root.glob("*.txt")):
    text = path.read_text(encoding="utf-8")
    lines = text.splitlines()
    moved = [_moved(line, root, old_roots) for line in lines]
    if moved != lines:
      _replace(path, "".join(line + "\n" for line in moved))
      changed.append(path.name)
  for path in sorted(root.glob("*.yaml")):
    text = moved_text = path.read_text(encoding="utf-8")
    for old in sorted(old_roots, key=len, reverse=True):
      moved_text = moved_text.replace(f"{old}/", f"{root}/").replace(f"'{old}'", f"'{root}'")
    if moved_text != text:
      _replace(path, moved_text)
      changed.append(path.name)
  return changed


def _moved(line: str, root: pathlib.Path, old_roots: set[str]) -> str:
  folder = pathlib.Path(line.strip())
  target = root / folder.name
  if not line.strip() or not (target / CAMERAS).is_file() or folder == target:
    return line
  if folder.is_absolute():
    old_roots.add(str(folder.parent))
  return str(target)


def _replace(path: pathlib.Path, text: str) -> None:
  with tempfile.NamedTemporaryFile(
    "w", dir=path.parent, prefix=".tmp-", delete=False, encoding="utf-8"
  ) as file:
    file.write(text)
    file.flush()
    os.fsync(file.fileno())
  os.chmod(file.name, path.stat().st_mode)
  os.replace(file.name, path)
