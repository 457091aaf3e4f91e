"""Faults outside the program: of the disk, the folders, the inputs, the processes.

Each fault leaves whole scenes only, the other scenes continue, the exit status is 3, and the same
command afterwards writes what an undisturbed run writes. Signals, kill -9, NaN, memory and locks:
`job_test`, `workdir_test` and `main_test`.
"""

from __future__ import annotations

import pathlib
import shutil
import time
from typing import Any

import pytest

from jaxsplat_mouse.dataset import scene_records
from jaxsplat_mouse.errors import InputError
from jaxsplat_mouse.run import job, worker
from jaxsplat_mouse.validation import dataset_checks, rules
from tests.run.broken_disk import NO_SPACE, READ_ONLY, broken
from tests.run_fixtures import results, tiny_config

RULES = rules.Rules(views=4, size=32, hull_iou=0.0, may_touch_edge=True)


def records(workdir: pathlib.Path) -> dict[str, scene_records.SceneRecord]:
  return scene_records.latest_records(workdir / "dataset")


@pytest.fixture
def fitted(undisturbed_workdir: pathlib.Path, tmp_path: pathlib.Path) -> pathlib.Path:
  """A workdir whose scenes are fitted and not yet rendered."""
  workdir = tmp_path / "w"
  shutil.copytree(undisturbed_workdir, workdir)
  shutil.rmtree(workdir / "dataset")
  shutil.rmtree(workdir / "report")
  return workdir


def assert_whole(workdir: pathlib.Path) -> None:
  for folder in workdir.glob("dataset/*/"):
    assert not folder.name.startswith(".tmp-"), folder
    assert len(list(folder.glob("images/cam_*.png"))) == 4, folder


def assert_mended(config: Any, workdir: pathlib.Path, undisturbed: dict[str, str]) -> None:
  """Runs the same command again; the results are those of an undisturbed run."""
  assert job.run(config, workdir) == 0
  assert results(workdir) == undisturbed
  found = dataset_checks.check_dataset(workdir / "dataset", RULES)
  assert not found.faults, found.faults


@pytest.mark.parametrize("code", [NO_SPACE, READ_ONLY])
@pytest.mark.parametrize("after", [3, 12])
def test_a_disk_that_fails_while_scenes_are_written(
  code: int,
  after: int,
  mice: pathlib.Path,
  fitted: pathlib.Path,
  undisturbed: dict[str, str],
  capsys: pytest.CaptureFixture[str],
) -> None:
  """If nothing can be written any more, not even the manifest, the exit status still shows it."""
  config = tiny_config(str(mice))
  (fitted / "dataset").mkdir()
  with broken(fitted / "dataset", code, after):
    assert job.run(config, fitted) == 3
  assert_whole(fitted)
  assert "failed: " in capsys.readouterr().out
  assert_mended(config, fitted, undisturbed)


def test_a_disk_that_is_full_all_through_a_fit(
  mice: pathlib.Path, undisturbed: dict[str, str], tmp_path: pathlib.Path
) -> None:
  """Neither checkpoints nor fits can be saved; the record of every scene gives this reason."""
  config = tiny_config(str(mice))
  workdir = tmp_path / "w"
  (workdir / "fits").mkdir(parents=True)
  (workdir / "checkpoints").mkdir()
  with broken(workdir / "fits", NO_SPACE), broken(workdir / "checkpoints", NO_SPACE):
    assert job.run(config, workdir) == 3
  assert {r.status for r in records(workdir).values()} == {"failed"}
  assert all("No space left" in r.error for r in records(workdir).values())
  assert not [p for p in (workdir / "dataset").iterdir() if p.is_dir()]
  assert_mended(config, workdir, undisturbed)


@pytest.mark.parametrize("what", ["dataset", "."])
def test_a_folder_that_is_deleted_midway(
  what: str,
  mice: pathlib.Path,
  fitted: pathlib.Path,
  undisturbed: dict[str, str],
  monkeypatch: pytest.MonkeyPatch,
) -> None:
  """The scene that was deleted is reported; the other one is there."""
  render, seen = worker.SceneRenders, []

  def delete_first(saved: Any, *args: Any) -> Any:
    seen.append(saved.name)
    if len(seen) == 2:
      wait_for_record(fitted, seen[0])
      # Renamed away in one step: nothing can be written into it while it is being deleted.
      (fitted / what).resolve().rename(fitted.parent / "deleted")
    return render(saved, *args)

  monkeypatch.setattr(worker, "SceneRenders", delete_first)
  config = tiny_config(str(mice))
  assert job.run(config, fitted) == 3
  assert_whole(fitted)
  found = records(fitted)
  assert found[seen[0]].status == "failed" and "gone" in found[seen[0]].error
  assert found[seen[1]].status == "done"
  assert (fitted / "dataset" / "train.txt").read_text().endswith(f"/{seen[1]}\n")
  monkeypatch.setattr(worker, "SceneRenders", render)
  if what == "dataset":
    assert_mended(config, fitted, undisturbed)


def wait_for_record(workdir: pathlib.Path, name: str) -> None:
  """Until the scene before stands in the dataset: it is written beside the next one's render."""
  deadline = time.monotonic() + 30
  while not (workdir / "dataset" / name).is_dir() and time.monotonic() < deadline:
    time.sleep(0.01)


def test_a_scene_listed_twice_is_taken_once(
  mice: pathlib.Path, fitted: pathlib.Path, undisturbed: dict[str, str], tmp_path: pathlib.Path
) -> None:
  """By the same path, by another spelling of it, and by a link."""
  (tmp_path / "link").symlink_to(mice / "mouse_0")
  lines = [mice / "mouse_0", mice / "mouse_1", f"{mice}/../{mice.name}/mouse_0", tmp_path / "link"]
  (tmp_path / "list.txt").write_text("".join(f"{line}\n" for line in lines))
  (fitted / "config.json").unlink()
  assert job.run(tiny_config(str(tmp_path / "list.txt")), fitted) == 0
  assert sorted(records(fitted)) == ["mouse_0", "mouse_1"]
  assert results(fitted) == undisturbed


def test_scales_that_cannot_be_kept_are_one_line(
  mice: pathlib.Path, tmp_path: pathlib.Path
) -> None:
  config = tiny_config(str(mice))
  config.data.normalize = "recording"
  workdir = tmp_path / "w"
  (workdir / "scales.json").mkdir(parents=True)
  with pytest.raises(InputError, match=r"scales\.json: cannot be written"):
    job.run(config, workdir)
