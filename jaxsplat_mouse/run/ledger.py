"""Finds finished and fitted scenes by their hashes, and records outcomes in the manifest."""

from __future__ import annotations

import dataclasses
import datetime
import traceback
from collections.abc import Callable, Mapping, Sequence

from absl import logging

from jaxsplat_mouse.dataset import gate, scene_records, sources, writer
from jaxsplat_mouse.dataset.scene_records import SceneRecord
from jaxsplat_mouse.dataset.sources import Source
from jaxsplat_mouse.errors import InputError
from jaxsplat_mouse.fit.driver import FitError
from jaxsplat_mouse.run import fit_store
from jaxsplat_mouse.run.settings import Settings
from jaxsplat_mouse.run.workdir import Workdir
from jaxsplat_mouse.runtime.threads import ordered_map

_CHECKED_AT_ONCE = 16  # mostly waiting for the disk


class Ledger:
  """The state of every scene of a run.

  Attributes:
    sources: the scenes of the run by name.
    records: the last manifest line of every scene of the dataset.
    failures: the reason why a scene failed in this run, by name.
  """

  def __init__(self, settings: Settings, workdir: Workdir, found: Sequence[Source]):
    """Reads the manifest.

    Args:
      settings: of the run.
      workdir: folder of the run.
      found: the scenes of the run.

    Raises:
      InputError: the manifest is broken.
    """
    self._settings, self._workdir = settings, workdir
    self.sources = {source.name: source for source in found}
    self.records = scene_records.latest_records(workdir.dataset)
    self.failures: dict[str, str] = {}

  def find_finished(self) -> set[str]:
    """Returns the scenes whose dataset files match this configuration and the input files."""
    return set(_select(list(self.sources), self._is_finished))

  def _is_finished(self, name: str) -> bool:
    record = self.records.get(name)
    if record is None or record.status == "failed":
      return False
    if record.extra.get("render_key") != fit_store.render_key(self._settings):
      return False
    try:
      digest = sources.digest(self.sources[name])
    except InputError as error:
      logging.warning("%s: the finished scene is kept, but its source is gone (%s)", name, error)
      digest = record.extra.get("digest", "")
    same = digest == record.extra.get("digest")
    return same and writer.is_complete(self._workdir.dataset, record)

  def find_fitted(self, names: Sequence[str], scales: Mapping[str, float]) -> list[str]:
    """Returns the scenes whose saved fits match this configuration and the input files.

    Args:
      names: the scenes to look for.
      scales: canonical units per input unit by recording.
    """
    scale = lambda name: scales.get(self.sources[name].recording)
    return _select(names, lambda name: self._is_fitted(name, scale(name)))

  def _is_fitted(self, name: str, scale: float | None) -> bool:
    try:
      saved = fit_store.load_fit(self._workdir, name)
      wanted = sources.digest(self.sources[name]), fit_store.fit_key(self._settings, scale)
      return (saved.digest, saved.fit_key) == wanted
    except InputError:
      return False

  def apply_gate(self) -> dict[str, str]:
    """Applies the quality gate of this run to the scenes of earlier runs.

    Returns:
      the new status of every scene whose status changed, by name.

    Raises:
      OSError: the manifest cannot be written.
    """
    changed = {}
    for name, record in self.records.items():
      judged = gate.apply_rules(record, self._settings.dataset.gate)
      if judged != record:
        self._append(judged)
        self.records[name] = judged
        changed[name] = judged.status
    return changed

  def record_written(self, record: SceneRecord) -> SceneRecord:
    """Records a scene whose files are written; returns its record with the gate's verdict.

    Raises:
      OSError: the manifest cannot be written.
    """
    record = gate.apply_rules(record, self._settings.dataset.gate)
    record = dataclasses.replace(record, extra={**record.extra, "finished": _now()})
    self._append(record)
    self.records[record.scene] = record
    return record

  def record_failure(self, name: str, error: Exception) -> str:
    """Records a scene that failed; returns the reason in one line."""
    reason = failure_reason(name, error)
    self.failures[name] = reason
    record = SceneRecord(
      scene=name,
      status="failed",
      recording=self.sources[name].recording,
      error=reason,
      extra={"source": str(self.sources[name]), "finished": _now()},
    )
    self.records[name] = record
    try:
      self._append(record)
    except OSError as problem:
      logging.warning("%s: not in the manifest (%s)", name, problem.strerror)
    return reason

  def _append(self, record: SceneRecord) -> None:
    self._workdir.dataset.mkdir(parents=True, exist_ok=True)
    scene_records.append_record(self._workdir.dataset, record)

  def complete_manifest(self) -> None:
    """Appends records that the manifest lacks because it was deleted or could not be written.

    Raises:
      OSError: it still cannot be written.
    """
    written = scene_records.latest_records(self._workdir.dataset)
    for name in self.sources:
      record = self.records.get(name)
      if record is not None and (name not in written or written[name].status != record.status):
        self._append(record)

  def read_other_shards(self) -> None:
    """Adds the present manifest lines of scenes that belong to other shards."""
    written = scene_records.latest_records(self._workdir.dataset)
    self.records |= {name: record for name, record in written.items() if name not in self.sources}

  def deleted_scenes(self) -> list[str]:
    """Returns the scenes of this run whose folders were written and no longer exist."""
    written = [n for n in self.sources if n in self.records and self.records[n].status != "failed"]
    return [name for name in written if not (self._workdir.dataset / name).is_dir()]

  def scenes_for_lists(self) -> list[str]:
    """Returns the scenes that `train.txt` and `val.txt` name: passed by the gate, and on disk."""
    done = [name for name, record in self.records.items() if record.status == "done"]
    return [name for name in done if (self._workdir.dataset / name).is_dir()]


def failure_reason(name: str, error: Exception) -> str:
  """Returns why a scene failed in one line; logs an unforeseen error with its traceback.

  Args:
    name: of the scene.
    error: that it failed with.
  """
  reason = (str(error) or type(error).__name__).splitlines()[0]
  if isinstance(error, (InputError, FitError, OSError)):
    return reason
  details = "".join(traceback.format_exception(error))
  logging.error("%s failed with an unforeseen error:\n%s", name, details)
  return f"{type(error).__name__}: {reason}"


def _select(names: Sequence[str], test: Callable[[str], bool]) -> list[str]:
  """Returns the names that pass a test, which reads files: several threads run it."""
  return [name for name, passed in ordered_map(test, names, _CHECKED_AT_ONCE) if passed]


def _now() -> str:
  return datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
