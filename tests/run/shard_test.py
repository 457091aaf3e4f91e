"""Several runs that share a workdir: each does its scenes, the last one completes the lists."""

from __future__ import annotations

import pathlib
import shutil

import pytest

from jaxsplat_mouse.dataset import scene_records
from jaxsplat_mouse.errors import InputError
from jaxsplat_mouse.run import job
from jaxsplat_mouse.run.settings import parse_shard
from jaxsplat_mouse.run.workdir import Workdir
from tests.run_fixtures import results, tiny_config


def test_shards_are_read_and_nonsense_is_reported() -> None:
  shard = parse_shard("3/8")
  assert shard is not None and (shard.index, shard.count, str(shard)) == (3, 8, "3-of-8")
  assert parse_shard("") is None
  for text in ("8/8", "-1/8", "1", "a/b", "0/0"):
    with pytest.raises(ValueError, match=r"data\.shard: .* expected I/N"):
      parse_shard(text)


def test_two_shards_make_what_one_run_makes(
  mice: pathlib.Path,
  undisturbed_workdir: pathlib.Path,
  undisturbed: dict[str, str],
  tmp_path: pathlib.Path,
) -> None:
  """From saved fits: what is fitted together, and so the last bits, differs between shards."""
  workdir = tmp_path / "w"
  shutil.copytree(undisturbed_workdir, workdir)
  shutil.rmtree(workdir / "dataset")
  config = tiny_config(str(mice))
  config.data.shard = "1/2"
  assert job.run(config, workdir) == 0
  assert sorted(scene_records.latest_records(workdir / "dataset")) == ["mouse_1"]
  config.data.shard = "0/2"
  assert job.run(config, workdir) == 0
  assert results(workdir) == undisturbed
  lines = (workdir / "dataset" / "train.txt").read_text().splitlines()
  assert [pathlib.Path(line).name for line in lines] == ["mouse_0", "mouse_1"]
  assert "2 of 2 scenes" in (workdir / "report" / "index.html").read_text()


def test_a_shard_without_scenes_is_done(
  mice: pathlib.Path, undisturbed_workdir: pathlib.Path, tmp_path: pathlib.Path
) -> None:
  workdir = tmp_path / "w"
  shutil.copytree(undisturbed_workdir, workdir)
  config = tiny_config(str(mice))
  config.data.shard = "5/6"
  assert job.run(config, workdir) == 0
  assert len((workdir / "dataset" / "train.txt").read_text().splitlines()) == 2


def make(path: pathlib.Path, shard: str = "") -> Workdir:
  workdir = Workdir(path, shard)
  workdir.make()
  return workdir


def test_shards_run_beside_each_other_and_not_beside_a_whole_run(tmp_path: pathlib.Path) -> None:
  whole, first, second = (make(tmp_path / "w", name) for name in ("", "0-of-2", "1-of-2"))
  with first.locked(), second.locked():
    for other in (whole, make(tmp_path / "w", "0-of-2")):
      with pytest.raises(InputError, match="in use by"), other.locked():
        pass
  with whole.locked(), pytest.raises(InputError, match="in use by process"), first.locked():
    pass


def test_a_shard_has_its_own_checkpoints_and_metrics(tmp_path: pathlib.Path) -> None:
  whole, shard = make(tmp_path / "w"), make(tmp_path / "w", "0-of-2")
  assert whole.dataset == shard.dataset and whole.fits == shard.fits
  assert whole.checkpoints != shard.checkpoints and whole.metrics_file != shard.metrics_file
