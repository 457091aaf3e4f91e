"""Small whole runs: what they write, what they keep, and how they continue after faults."""

from __future__ import annotations

import dataclasses
import errno
import json
import os
import pathlib
import shutil
import signal
import sys
from typing import Any

import jax
import numpy as np
import pytest

from jaxsplat_mouse.dataset import scene_records, writer
from jaxsplat_mouse.errors import ConfigError, InputError
from jaxsplat_mouse.fit.config import FitConfig
from jaxsplat_mouse.fit.driver import FitDriver
from jaxsplat_mouse.fit.loop import FitState
from jaxsplat_mouse.io import ply
from jaxsplat_mouse.run import fit_progress, job, worker
from jaxsplat_mouse.run.workdir import Workdir
from jaxsplat_mouse.runtime import devices
from jaxsplat_mouse.scene import Similarity
from tests.run_fixtures import results, tiny_config

Monkeypatch = pytest.MonkeyPatch


def refuse_to_fit(monkeypatch: Monkeypatch) -> None:
  def fit_nothing(*args: object) -> None:
    raise AssertionError("a finished scene was fitted again")

  monkeypatch.setattr(FitDriver, "fit", fit_nothing)


def records(workdir: pathlib.Path) -> dict[str, scene_records.SceneRecord]:
  return scene_records.latest_records(workdir / "dataset")


def assert_similar_fit(a: pathlib.Path, b: pathlib.Path, name: str) -> None:
  """The same up to float32 sums in another order: who else is in a batch decides that."""
  one, other = (ply.read_gaussians(w / "fits" / name / "gaussians.ply") for w in (a, b))
  for x, y in zip(jax.tree.leaves(one), jax.tree.leaves(other), strict=True):
    assert x.shape == y.shape
    assert np.median(np.abs(x - y)) < 1e-4


def test_built_in_mice_and_the_layout(tmp_path: pathlib.Path, monkeypatch: Monkeypatch) -> None:
  workdir = tmp_path / "w"
  config = tiny_config()
  config.data.mice = 2
  assert job.run(config, workdir, config_file="tiny") == 0
  for name in (
    "config.json",
    "metrics.jsonl",
    "dataset/train.txt",
    "dataset/val.txt",
    "dataset/manifest.jsonl",
    "dataset/README.md",
    "dataset/mouse_gslrm_synthetic.yaml",
    "dataset/mouse_0000/opencv_cameras.json",
    "dataset/mouse_0000/images/cam_003.png",
    "fits/mouse_0000/gaussians.ply",
    "fits/mouse_0000/scene.json",
    "report/index.html",
    "report/sheets/mouse_0000.jpg",
    "report/thumbs/mouse_0000.jpg",
  ):
    assert (workdir / name).is_file(), name
  assert not list((workdir / "checkpoints").iterdir())
  record = records(workdir)["mouse_0000"]
  assert record.status == "done"
  assert record.metrics["input_iou"] > 0.6 and record.metrics["novel_iou"] > 0.6
  stored = json.loads((workdir / "fits/mouse_0000/scene.json").read_text())
  there = Similarity.from_json(stored["input_to_canonical"])
  back = Similarity.from_json(stored["canonical_to_input"])
  np.testing.assert_allclose(there.matrix() @ back.matrix(), np.eye(4), atol=1e-9)
  assert record.transform == stored["input_to_canonical"]
  lines = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
  lines = [line for line in lines if line["scene"] == "mouse_0000"]
  assert [line["iteration"] for line in lines] == [5, 10, 15, 20]
  assert lines[-1]["loss"] < lines[0]["loss"]
  refuse_to_fit(monkeypatch)
  before = results(workdir)
  assert job.run(config, workdir) == 0
  assert results(workdir) == before


def test_a_run_is_the_same_every_time(
  mice: pathlib.Path, undisturbed: dict[str, str], tmp_path: pathlib.Path
) -> None:
  assert len(undisturbed) == 2 * (1 + 1 + 4)
  config = tiny_config(str(mice))
  config.checkpoint.seconds = 1e6
  assert job.run(config, tmp_path / "w") == 0
  assert results(tmp_path / "w") == undisturbed


def test_beside_an_accelerator_the_output_is_the_same(
  mice: pathlib.Path,
  undisturbed: dict[str, str],
  tmp_path: pathlib.Path,
  monkeypatch: Monkeypatch,
) -> None:
  """Renders that are fetched in threads, and scenes that are read ahead, change no byte."""
  monkeypatch.setattr(devices, "is_accelerator", lambda: True)
  assert job.run(tiny_config(str(mice)), tmp_path / "w") == 0
  assert results(tmp_path / "w") == undisturbed


@pytest.mark.parametrize(
  ("number", "status", "moment"),
  [
    (signal.SIGINT, 130, 5),
    (signal.SIGTERM, 143, 15),
    pytest.param(signal.SIGINT, 130, 15, marks=pytest.mark.slow),
    pytest.param(signal.SIGTERM, 143, 5, marks=pytest.mark.slow),
  ],
)
def test_stopped_in_a_fit_it_goes_on_bit_for_bit(
  mice: pathlib.Path,
  undisturbed: dict[str, str],
  tmp_path: pathlib.Path,
  monkeypatch: Monkeypatch,
  capsys: pytest.CaptureFixture[str],
  number: int,
  status: int,
  moment: int,
) -> None:
  """The signal comes during a chunk; its end is saved, and no step is done twice or left out."""
  config = tiny_config(str(mice))
  config.checkpoint.seconds = 1e6
  run_chunk, done = fit_progress.chunk_program, []

  def interrupted(state: FitState, *args: Any) -> Any:
    done.append(int(jax.device_get(state.step)[0]))
    if done[-1] + 5 == moment and done.count(done[-1]) == 1:
      os.kill(os.getpid(), number)
    return run_chunk(state, *args)

  monkeypatch.setattr(fit_progress, "chunk_program", interrupted)
  assert job.run(config, tmp_path / "w") == status
  assert "continues from here" in capsys.readouterr().out
  assert not results(tmp_path / "w")
  assert job.run(config, tmp_path / "w") == 0
  assert done == [0, 5, 10, 15]
  assert results(tmp_path / "w") == undisturbed
  assert not list((tmp_path / "w" / "checkpoints").iterdir())


def test_stopped_between_two_scenes_of_a_batch(
  mice: pathlib.Path,
  undisturbed: dict[str, str],
  tmp_path: pathlib.Path,
  monkeypatch: Monkeypatch,
) -> None:
  render = worker.SceneRenders

  def interrupted(*args: Any) -> Any:
    os.kill(os.getpid(), signal.SIGTERM)
    return render(*args)

  monkeypatch.setattr(worker, "SceneRenders", interrupted)
  assert job.run(tiny_config(str(mice)), tmp_path / "w") == 143
  assert sorted(records(tmp_path / "w")) == ["mouse_0"]
  monkeypatch.setattr(worker, "SceneRenders", render)
  refuse_to_fit(monkeypatch)
  assert job.run(tiny_config(str(mice)), tmp_path / "w") == 0
  assert results(tmp_path / "w") == undisturbed


def test_a_broken_scene_does_not_stop_the_others(
  mice: pathlib.Path, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
  inputs = tmp_path / "recording"
  shutil.copytree(mice, inputs)
  image = inputs / "mouse_0" / "images" / "cam_002.png"
  whole = image.read_bytes()
  image.write_bytes(whole[: len(whole) // 2])
  workdir = tmp_path / "w"
  assert job.run(tiny_config(str(inputs)), workdir) == 3
  found = records(workdir)
  assert found["mouse_0"].status == "failed" and "cam_002.png" in found["mouse_0"].error
  assert found["mouse_1"].status == "done"
  assert "failed: mouse_0: " in capsys.readouterr().out
  assert not (workdir / "dataset" / "mouse_0").exists()
  lists = (workdir / "dataset" / "train.txt").read_text()
  assert "mouse_1" in lists and "mouse_0" not in lists
  assert "cam_002.png" in (workdir / "report" / "index.html").read_text()
  image.write_bytes(whole)  # repaired, the same command does what is missing
  done = (workdir / "fits" / "mouse_1" / "gaussians.ply").stat().st_mtime_ns
  assert job.run(tiny_config(str(inputs)), workdir) == 0
  assert records(workdir)["mouse_0"].status == "done"
  assert (workdir / "fits" / "mouse_1" / "gaussians.ply").stat().st_mtime_ns == done


def test_where_no_scene_can_be_read_nothing_starts(
  mice: pathlib.Path, tmp_path: pathlib.Path
) -> None:
  inputs = tmp_path / "recording"
  shutil.copytree(mice, inputs)
  for folder in inputs.iterdir():
    (folder / "opencv_cameras.json").write_text("{")
  assert job.run(tiny_config(str(inputs)), tmp_path / "w") == 1
  assert {r.status for r in records(tmp_path / "w").values()} == {"failed"}


def test_nan_in_one_scene_of_a_batch_stays_there(
  mice: pathlib.Path,
  undisturbed_workdir: pathlib.Path,
  tmp_path: pathlib.Path,
  monkeypatch: Monkeypatch,
) -> None:
  prepare = worker.prepare_scene

  def poisoned(loaded: Any, *args: Any) -> Any:
    one = prepare(loaded, *args)
    if loaded.source.name != "mouse_0":
      return one
    colors = np.full_like(one.gaussians.sh, np.nan)
    return dataclasses.replace(one, gaussians=dataclasses.replace(one.gaussians, sh=colors))

  monkeypatch.setattr(worker, "prepare_scene", poisoned)
  assert job.run(tiny_config(str(mice)), tmp_path / "w") == 3
  found = records(tmp_path / "w")
  assert found["mouse_0"].status == "failed" and "nan" in found["mouse_0"].error
  assert found["mouse_1"].status == "done"
  assert sorted(results(tmp_path / "w")) == [
    path for path in sorted(results(undisturbed_workdir)) if "mouse_1" in path
  ]
  assert_similar_fit(tmp_path / "w", undisturbed_workdir, "mouse_1")


def test_out_of_memory_halves_the_batch_and_keeps_the_work(
  mice: pathlib.Path,
  undisturbed_workdir: pathlib.Path,
  tmp_path: pathlib.Path,
  monkeypatch: Monkeypatch,
) -> None:
  run_chunk, calls = fit_progress.chunk_program, []

  def short_of_memory(state: FitState, *args: Any) -> Any:
    calls.append((int(jax.device_get(state.step)[0]), len(state.step)))
    if len(state.step) == 2 and int(jax.device_get(state.step)[0]) >= 10:
      raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 1 bytes.")
    return run_chunk(state, *args)

  monkeypatch.setattr(fit_progress, "chunk_program", short_of_memory)
  assert job.run(tiny_config(str(mice)), tmp_path / "w") == 0
  assert calls == [(0, 2), (5, 2), (10, 2), (10, 1), (10, 1), (15, 1), (15, 1)]
  for name in ("mouse_0", "mouse_1"):
    assert_similar_fit(tmp_path / "w", undisturbed_workdir, name)


def test_out_of_memory_with_one_scene_is_reported(
  mice: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: Monkeypatch
) -> None:
  def short_of_memory(*args: Any) -> Any:
    raise jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 1 bytes.")

  monkeypatch.setattr(fit_progress, "chunk_program", short_of_memory)
  assert job.run(tiny_config(str(mice)), tmp_path / "w") == 3
  assert all("fit.num_gaussians" in r.error for r in records(tmp_path / "w").values())


def test_splats_without_room_are_fitted_again_with_more(
  mice: pathlib.Path,
  undisturbed: dict[str, str],
  tmp_path: pathlib.Path,
  monkeypatch: Monkeypatch,
) -> None:
  run_chunk, room = fit_progress.chunk_program, []

  def crowded(state: FitState, scenes: Any, config: FitConfig, *args: Any) -> Any:
    state, metrics = run_chunk(state, scenes, config, *args)
    room.append(config.tile_entries)
    if config.tile_entries < 10:
      state = dataclasses.replace(state, overflow=state.step)  # nothing may be uploaded here
    return state, metrics

  monkeypatch.setattr(fit_progress, "chunk_program", crowded)
  assert job.run(tiny_config(str(mice)), tmp_path / "w") == 0
  start = FitConfig().tile_entries
  assert room[0] == start < 10 <= room[-1]
  assert len(room) == 4 + sum(value < 10 for value in room)
  assert results(tmp_path / "w") == undisturbed


def test_a_full_disk_loses_no_fit(
  mice: pathlib.Path,
  undisturbed: dict[str, str],
  tmp_path: pathlib.Path,
  monkeypatch: Monkeypatch,
) -> None:
  write = writer.write_scene

  def full(root: Any, name: str, *args: Any, **kwargs: Any) -> Any:
    if name == "mouse_0":
      raise OSError(errno.ENOSPC, "No space left on device")
    return write(root, name, *args, **kwargs)

  monkeypatch.setattr(writer, "write_scene", full)
  assert job.run(tiny_config(str(mice)), tmp_path / "w") == 3
  assert "No space left" in records(tmp_path / "w")["mouse_0"].error
  monkeypatch.setattr(writer, "write_scene", write)
  refuse_to_fit(monkeypatch)
  assert job.run(tiny_config(str(mice)), tmp_path / "w") == 0
  assert results(tmp_path / "w") == undisturbed


def test_changed_renders_need_no_fit(
  mice: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: Monkeypatch
) -> None:
  config = tiny_config(str(mice))
  assert job.run(config, tmp_path / "w") == 0
  before = results(tmp_path / "w")
  refuse_to_fit(monkeypatch)
  config.render.num_views = 3
  assert job.run(config, tmp_path / "w") == 0
  after = results(tmp_path / "w")
  assert len([path for path in after if path.endswith(".png")]) == 2 * 3
  assert {p: h for p, h in after.items() if "fits" in p} == {
    p: h for p, h in before.items() if "fits" in p
  }


def test_a_changed_gate_costs_neither_fit_nor_render(
  mice: pathlib.Path,
  undisturbed_workdir: pathlib.Path,
  tmp_path: pathlib.Path,
  monkeypatch: Monkeypatch,
) -> None:
  workdir = tmp_path / "w"
  shutil.copytree(undisturbed_workdir, workdir)
  ious = {name: r.metrics["input_iou"] for name, r in records(workdir).items()}
  worse, better = sorted(ious, key=lambda name: ious[name] or 0.0)
  refuse_to_fit(monkeypatch)
  monkeypatch.setattr(worker, "SceneRenders", refuse_to_fit)
  config = tiny_config(str(mice))
  config.dataset.gate.min_input_iou = ious[better]
  assert job.run(config, workdir) == 0
  assert records(workdir)[worse].status == "rejected"
  assert f"is below {ious[better]:g}" in records(workdir)[worse].error
  assert (workdir / "dataset" / worse).is_dir()
  assert (workdir / "dataset" / "train.txt").read_text() == f"{workdir}/dataset/{better}\n"
  assert "The quality gate rejected 1 scene:" in (workdir / "dataset" / "README.md").read_text()
  config.dataset.gate.min_input_iou = 0.0
  assert job.run(config, workdir) == 0
  assert records(workdir)[worse].status == "done"
  assert len((workdir / "dataset" / "train.txt").read_text().splitlines()) == 2
  assert results(workdir) == results(undisturbed_workdir)


def test_a_scene_deleted_from_the_dataset_is_rendered_again(
  mice: pathlib.Path, tmp_path: pathlib.Path, monkeypatch: Monkeypatch
) -> None:
  config = tiny_config(str(mice))
  assert job.run(config, tmp_path / "w") == 0
  before = results(tmp_path / "w")
  shutil.rmtree(tmp_path / "w" / "dataset" / "mouse_1")
  (tmp_path / "w" / "dataset" / "mouse_0" / "images" / "cam_000.png").write_bytes(b"x")
  refuse_to_fit(monkeypatch)
  assert job.run(config, tmp_path / "w") == 0
  assert results(tmp_path / "w") == before


def test_one_scale_for_a_recording_is_kept(mice: pathlib.Path, tmp_path: pathlib.Path) -> None:
  config = tiny_config(str(mice))
  config.data.normalize = "recording"
  assert job.run(config, tmp_path / "w") == 0
  scales = {r.transform["scale"] for r in records(tmp_path / "w").values() if r.transform}
  assert len(scales) == 1
  assert json.loads((tmp_path / "w" / "scales.json").read_text()) == {"recording": scales.pop()}


def test_none_keeps_the_input_frame(mice: pathlib.Path, tmp_path: pathlib.Path) -> None:
  config = tiny_config(str(mice))
  config.data.normalize = "none"
  assert job.run(config, tmp_path / "w") == 0
  for record in records(tmp_path / "w").values():
    assert record.transform == Similarity().to_json()


def test_another_recipe_in_the_same_workdir_is_refused(
  mice: pathlib.Path, tmp_path: pathlib.Path
) -> None:
  config = tiny_config(str(mice))
  Workdir(tmp_path / "w").make()
  assert job.run(config, tmp_path / "w") == 0
  config.fit.lr_feature = 0.5
  with pytest.raises(ConfigError, match=r"fit\.lr_feature 0\.005 -> 0\.5"):
    job.run(config, tmp_path / "w")


def test_a_second_run_on_a_workdir_is_refused(mice: pathlib.Path, tmp_path: pathlib.Path) -> None:
  workdir = Workdir(tmp_path / "w")
  workdir.make()
  with workdir.locked(), pytest.raises(InputError, match="in use by process"):
    job.run(tiny_config(str(mice)), workdir.path)


def test_what_is_rendered_is_what_the_ply_holds(mice: pathlib.Path, tmp_path: pathlib.Path) -> None:
  assert job.run(tiny_config(str(mice)), tmp_path / "w") == 0
  gaussians = ply.read_gaussians(tmp_path / "w" / "fits" / "mouse_0" / "gaussians.ply")
  assert 0 < len(gaussians.means) <= 128
  assert np.all(1 / (1 + np.exp(-np.asarray(gaussians.logit_opacities, np.float64))) > 1 / 256)


@pytest.mark.parametrize(
  ("key", "library", "extra"),
  [("tensorboard", "tensorboardX", "tensorboard"), ("turntable", "av", "video")],
)
def test_a_missing_library_of_the_report_fails_before_the_first_fit(
  key: str, library: str, extra: str, tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
  monkeypatch.setitem(sys.modules, library, None)
  config = tiny_config()
  config.report[key] = True
  with pytest.raises(ConfigError, match=rf"report\.{key}: .*jaxsplat-mouse\[{extra}\]"):
    job.run(config, tmp_path / "w")
