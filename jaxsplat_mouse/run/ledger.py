"""Which scenes are finished, fitted or failed: the manifest and `fits/`, compared by hashes."""

from __future__ import annotations

import dataclasses
import datetime
import traceback
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor

from absl import logging

from jaxsplat_mouse.dataset import gate, scene_records, sources, writer
from jaxsplat_mouse.dataset.scene_records import SceneRecord
from jaxsplat_mouse.dataset.sources import Source
from jaxsplat_mouse.errors import InputError
from jaxsplat_mouse.fit.driver import FitError
from jaxsplat_mouse.run import fit_store
from jaxsplat_mouse.run.settings import Settings
from jaxsplat_mouse.run.workdir import Workdir


class Ledger:
  """What became of every scene.

  Attributes:
    sources: the scenes of the run by name.
    records: the last manifest line of every scene of the dataset.
    failures: scenes that failed in this run, and why.
  """

  def __init__(self, settings: Settings, workdir: Workdir, found: Sequence[Source]):
    """Reads the manifest.

    Raises:
      InputError: it is broken.
    """
    self._settings, self._workdir = settings, workdir
    self.sources = {source.name: source for source in found}
    self.records = scene_records.latest_records(workdir.dataset)
    self.failures: dict[str, str] = {}

  def finished(self) -> set[str]:
    """Scenes that the dataset holds as this configuration makes them from these files."""
    with ThreadPoolExecutor() as threads:
      answers = list(threads.map(self._is_finished, self.sources))
    return {name for name, answer in zip(self.sources, answers, strict=True) if answer}

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

  def fitted(self, names: Sequence[str], scales: Mapping[str, float]) -> list[str]:
    """Scenes whose fits `fits/` holds with these settings from these files.

    Args:
      names: the scenes to look for.
      scales: canonical units per input unit by recording.
    """
    scale = lambda name: scales.get(self.sources[name].recording)
    with ThreadPoolExecutor() as threads:
      answers = list(threads.map(lambda name: self._is_fitted(name, scale(name)), names))
    return [name for name, answer in zip(names, answers, strict=True) if answer]

  def _is_fitted(self, name: str, scale: float | None) -> bool:
    try:
      saved = fit_store.load_fit(self._workdir, name)
      wanted = sources.digest(self.sources[name]), fit_store.fit_key(self._settings, scale)
      return (saved.digest, saved.fit_key) == wanted
    except InputError:
      return False

  def judge_again(self) -> dict[str, str]:
    """Applies the quality gate of this run to scenes of earlier ones; those that changed sides.

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

  def done(self, record: SceneRecord) -> SceneRecord:
    """Notes a scene whose files are all written, as the quality gate judges it.

    Raises:
      OSError: the manifest cannot be written.
    """
    record = gate.apply_rules(record, self._settings.dataset.gate)
    record = dataclasses.replace(record, extra={**record.extra, "finished": _now()})
    self._append(record)
    self.records[record.scene] = record
    return record

  def failed(self, name: str, error: Exception) -> str:
    """Notes a scene that failed; the reason in one line. What was not foreseen is logged whole."""
    reason = (str(error) or type(error).__name__).splitlines()[0]
    if not isinstance(error, (InputError, FitError, OSError)):
      reason = f"{type(error).__name__}: {reason}"
      details = "".join(traceback.format_exception(error))
      logging.error("%s failed in a way that was not foreseen:\n%s", name, details)
    self.failures[name] = reason
    recording = self.sources[name].recording
    record = SceneRecord(
      scene=name,
      status="failed",
      recording=recording,
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
    """Appends what the manifest lacks: it was deleted, or could not be written at the time.

    Raises:
      OSError: it still cannot be written.
    """
    told = scene_records.latest_records(self._workdir.dataset)
    for name in self.sources:
      record = self.records.get(name)
      if record is not None and (name not in told or told[name].status != record.status):
        self._append(record)

  def read_others(self) -> None:
    """Takes the scenes of other shards from the manifest as it stands now."""
    told = scene_records.latest_records(self._workdir.dataset)
    self.records |= {name: record for name, record in told.items() if name not in self.sources}

  def lost(self) -> list[str]:
    """Scenes of this run that were written, and whose folders are gone now."""
    written = [n for n in self.sources if n in self.records and self.records[n].status != "failed"]
    return [name for name in written if not (self._workdir.dataset / name).is_dir()]

  def listed(self) -> list[str]:
    """Scenes that belong into the dataset's lists."""
    done = [name for name, record in self.records.items() if record.status == "done"]
    return [name for name in done if (self._workdir.dataset / name).is_dir()]


def _now() -> str:
  return datetime.datetime.now(datetime.UTC).isoformat(timespec="milliseconds")
