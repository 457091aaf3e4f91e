"""Writes what describes a run as a whole: scene lists, training configuration, card and page."""

from __future__ import annotations

import dataclasses

from jaxsplat_mouse.dataset import lists, training_yaml
from jaxsplat_mouse.report import dataset_card, page
from jaxsplat_mouse.report.dataset_card import DatasetDescription
from jaxsplat_mouse.report.reported_run import ReportedRun
from jaxsplat_mouse.run.ledger import Ledger
from jaxsplat_mouse.run.settings import Settings
from jaxsplat_mouse.run.workdir import Workdir


def write_lists_and_report(settings: Settings, workdir: Workdir, ledger: Ledger) -> ReportedRun:
  """Completes the manifest, then writes lists, training configuration, dataset card and page.

  Args:
    settings: of the run.
    workdir: folder of the run.
    ledger: the state of every scene; gains the records of other shards.

  Returns:
    the run as its report shows it.

  Raises:
    OSError: a file cannot be written.
  """
  with workdir.turn():
    ledger.complete_manifest()
    ledger.read_other_shards()
    reported = _reported_run(workdir)
    train, val = _write_lists(settings, workdir, ledger)
    card = _describe_dataset(settings)
    dataset_card.write_card(reported, card, ledger.records, train, val)
    page.write_report_page(reported, ledger.records)
  return reported


def _write_lists(
  settings: Settings, workdir: Workdir, ledger: Ledger
) -> tuple[list[str], list[str]]:
  """Splits the scenes by recording and writes both lists and the training configuration."""
  recordings = {name: ledger.records[name].recording for name in ledger.scenes_for_lists()}
  train, val = lists.split_scenes(
    recordings, val_fraction=settings.dataset.val_fraction, seed=settings.seed
  )
  lists.write_lists(workdir.dataset, train, val)
  training_yaml.write_training_yaml(workdir.dataset, image_size=settings.render.image_size)
  return train, val


def _reported_run(workdir: Workdir) -> ReportedRun:
  record = workdir.read_record() or {}
  return ReportedRun(
    name=workdir.path.name,
    dataset=workdir.dataset,
    report=workdir.report,
    config=record.get("config", {}),
    starts=record.get("runs", []),
  )


def _describe_dataset(settings: Settings) -> DatasetDescription:
  return DatasetDescription(
    license=settings.dataset.license,
    gate=settings.dataset.gate,
    model=settings.fit.model,
    num_gaussians=settings.fit.num_gaussians,
    iterations=settings.fit.iterations,
    normalize=settings.data.normalize,
    radius=settings.data.radius,
    **dataclasses.asdict(settings.render),
  )
