"""Warm starts in a run: who starts from whom, in which order, and from what splats."""

from __future__ import annotations

import json
import os
import pathlib
import signal
from typing import Any

import numpy as np
import pytest

from jaxsplat_mouse.dataset import camera_file
from jaxsplat_mouse.dataset.sources import Source
from jaxsplat_mouse.io import images
from jaxsplat_mouse.procedural_mouse.mouse import make_mouse, render_truth, walking
from jaxsplat_mouse.procedural_mouse.mouse_scenes import input_cameras
from jaxsplat_mouse.run import batches, fit_progress, fit_store, frame_order, job
from jaxsplat_mouse.run.scene_input import SceneInput
from jaxsplat_mouse.run.settings import Settings
from jaxsplat_mouse.run.workdir import Workdir
from jaxsplat_mouse.scene import Similarity
from tests.run_fixtures import IMAGE_SIZE, results, tiny_config
from tests.splat_fixtures import random_gaussians

Monkeypatch = pytest.MonkeyPatch
_NAMES = [f"m{i:03d}" for i in range(100)]


def _chain(starts: dict[str, str], name: str) -> list[str]:
  """The scenes that a scene goes back to, its first one last."""
  found = []
  while name in starts:
    name = starts[name]
    found.append(name)
  return found


def test_segments_are_short_and_start_in_their_middle():
  starts = frame_order.choose_starts(_NAMES, set(_NAMES[1:]))
  first = [name for name in _NAMES if name not in starts]
  assert len(first) == 6  # 100 moments in segments of at most 17
  assert max(len(_chain(starts, name)) for name in _NAMES) == 8
  for name, before in starts.items():
    assert abs(_NAMES.index(name) - _NAMES.index(before)) == 1


def test_a_recording_is_cut_where_moments_are_not_near():
  near = set(_NAMES[1:]) - {_NAMES[50], _NAMES[51]}
  starts = frame_order.choose_starts(_NAMES, near)
  assert _NAMES[50] not in starts
  assert (starts.get(_NAMES[49]), starts.get(_NAMES[51])) == (_NAMES[48], _NAMES[52])


def test_short_recordings_start_from_their_hulls():
  few = _NAMES[: frame_order.FEWEST - 1]
  assert frame_order.choose_starts(few, set(few[1:])) == {}
  assert frame_order.choose_starts(_NAMES, set()) == {}
  some = _NAMES[: frame_order.FEWEST]
  firsts = set(some) - set(frame_order.choose_starts(some, set(some[1:])))
  assert len(firsts) == 4  # side by side


@pytest.mark.parametrize(("workers", "devices"), [(1, 1), (3, 1), (1, 4)])
def test_every_batch_comes_after_those_that_it_starts_from(tmp_path, workers, devices):
  starts = frame_order.choose_starts(_NAMES, set(_NAMES[1:]) - {_NAMES[30], _NAMES[33]})
  plans = frame_order.ordered_plans(Workdir(tmp_path), starts, _NAMES, _NAMES, 16, workers, devices)
  assert sorted(name for plan in plans for name in plan.names) == _NAMES
  done: set[str] = set()
  for plan in plans:
    assert len(plan.names) <= 16
    assert set(plan.starts) in (set(), set(plan.names))
    assert set(plan.starts.values()) <= done
    assert plan.fill >= len(plan.names)
    done |= set(plan.names)
  assert len({(bool(plan.starts), plan.fill) for plan in plans}) == 2  # programs to compile
  warm = [plan for plan in plans if plan.starts]
  full = min(16, 2 * len([name for name in _NAMES if name not in starts]))
  assert len(warm[0].names) >= full // workers - 1
  if workers == 3:  # as many at a time as there are workers
    assert not set(warm[0].names) & set(warm[1].starts.values())


def test_a_run_that_was_stopped_goes_on_with_the_same_batches(tmp_path):
  starts = frame_order.choose_starts(_NAMES, set(_NAMES[1:]))
  plans = frame_order.ordered_plans(Workdir(tmp_path), starts, _NAMES, _NAMES, 8)
  for count in range(1, len(plans)):
    done = {name for plan in plans[:count] for name in plan.names}
    left = [name for name in _NAMES if name not in done]
    again = frame_order.ordered_plans(Workdir(tmp_path), starts, _NAMES, left, 8)
    assert [plan.names for plan in again] == [plan.names for plan in plans[count:]]


def test_without_warm_starts_batches_follow_the_order_of_the_scenes(tmp_path):
  plans = frame_order.ordered_plans(Workdir(tmp_path), {}, _NAMES, _NAMES[:5], 4)
  assert [plan.names for plan in plans] == [tuple(_NAMES[:4]), tuple(_NAMES[4:5])]


def test_a_begun_batch_keeps_its_starts(tmp_path):
  workdir = Workdir(tmp_path)
  starts = frame_order.choose_starts(_NAMES, set(_NAMES[1:]))
  plan = frame_order.ordered_plans(workdir, starts, _NAMES, _NAMES, 8)[-1]
  sources = [Source(name=name, recording="r") for name in plan.names]
  batches.record_plan(plan, [_prepared(source, 1.0, 0) for source in sources], (64, 96))
  (found,) = batches.unfinished_plans(workdir, _NAMES)
  assert (found.names, found.starts, found.fill) == (plan.names, plan.starts, plan.fill)


def test_shards_are_blocks_of_moments():
  found = [Source(name=name, recording="r") for name in _NAMES]
  config = tiny_config()
  config.fit.warm_start = "auto"
  parts = []
  for i in range(4):
    config.data.shard = f"{i}/4"
    parts.append(frame_order.shard_sources(Settings.from_config(config), found))
  assert sorted(one.name for part in parts for one in part) == _NAMES
  assert [one.name for one in parts[1][:6]] == _NAMES[6:12]
  config.fit.warm_start = "off"
  alone = frame_order.shard_sources(Settings.from_config(config), found)
  assert [one.name for one in alone] == _NAMES[3::4]


def _prepared(source: Source, scale: float, seed: int) -> SceneInput:
  return SceneInput(
    source=source,
    digest="",
    scene=None,
    similarity=Similarity(scale=scale),
    gaussians=random_gaussians(True, 40, seed=seed),
  )


def test_splats_come_from_the_fit_before_in_the_new_scale(tmp_path):
  workdir, settings = Workdir(tmp_path), Settings.from_config(tiny_config())
  old = random_gaussians(True, 25, seed=1)
  saved = fit_store.SavedFit(
    name="a0",
    source=Source(name="a0", recording="a"),
    digest="",
    fit_key="",
    similarity=Similarity(scale=2.0),
    gaussians=old,
    info={},
  )
  fit_store.save_fit(workdir, saved)
  one, other = (_prepared(Source(name=n, recording="a"), 3.0, 2) for n in ("a1", "a2"))
  starts = {"a1": "a0", "a2": "gone"}
  (warmed,), (cold,) = frame_order.start_from_fits(workdir, settings, starts, [one, other])
  np.testing.assert_allclose(warmed.gaussians.means[:25], 1.5 * np.asarray(old.means), rtol=1e-5)
  assert len(warmed.gaussians.means) == 40
  assert cold is other


def _write_walk(folder: pathlib.Path, count: int) -> pathlib.Path:
  """A recording of a walking mouse."""
  cameras, mouse = input_cameras(image_size=IMAGE_SIZE), make_mouse(0, "walk")
  for i in range(count):
    truth = render_truth(walking(mouse, 0.05 * i), cameras, samples=1, edge_samples=2)
    scene, names = folder / f"m{i}", [f"images/{k}.png" for k in range(6)]
    (scene / "images").mkdir(parents=True)
    for name, view in zip(names, truth.rgba, strict=True):
      (scene / name).write_bytes(images.encode_png((view * 255 + 0.5).astype(np.uint8)))
    camera_file.write_scene_cameras(scene, cameras, names)
  return folder


@pytest.fixture
def walk(tmp_path: pathlib.Path, monkeypatch: Monkeypatch) -> Any:
  """The configuration of a run over six moments, in two segments of three."""
  monkeypatch.setattr(frame_order, "FEWEST", 4)
  monkeypatch.setattr(frame_order, "_SEGMENTS", 2)
  config = tiny_config(str(_write_walk(tmp_path / "walk", 6)))
  config.fit.warm_start = "auto"
  config.report.contact_sheets = False
  return config


def _steps(workdir: pathlib.Path) -> dict[str, int]:
  rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
  return {row["scene"]: row["iteration"] for row in rows}


def test_near_moments_take_fewer_steps_from_their_neighbours_fits(walk, tmp_path):
  assert job.run(walk, tmp_path / "w") == 0
  assert _steps(tmp_path / "w") == {"m0": 10, "m1": 20, "m2": 10, "m3": 10, "m4": 20, "m5": 10}
  stored = json.loads((tmp_path / "w/fits/m5/scene.json").read_text())
  assert stored["start"] == "m4"


@pytest.mark.slow
def test_stopped_between_warm_starts_it_goes_on_bit_for_bit(walk, tmp_path, monkeypatch):
  assert job.run(walk, tmp_path / "a") == 0
  run_chunk, calls = fit_progress.chunk_program, []

  def interrupted(*args: Any) -> Any:
    calls.append(1)
    if len(calls) in (2, 5, 8):  # the first moments, and both batches of the others
      os.kill(os.getpid(), signal.SIGTERM)
    return run_chunk(*args)

  monkeypatch.setattr(fit_progress, "chunk_program", interrupted)
  statuses = [job.run(walk, tmp_path / "b") for _ in range(4)]
  assert statuses == [143, 143, 143, 0]
  assert results(tmp_path / "b") == results(tmp_path / "a")


@pytest.mark.slow
def test_a_moment_whose_neighbour_failed_starts_from_its_hull(walk, tmp_path):
  broken = tmp_path / "walk/m1/images/2.png"
  broken.write_bytes(broken.read_bytes()[:100])
  # m1 is near to nothing, so m0 stands alone, and m2 belongs to those that follow.
  assert job.run(walk, tmp_path / "w") == 3
  assert _steps(tmp_path / "w").keys() == {"m0", "m2", "m3", "m4", "m5"}
  assert _steps(tmp_path / "w")["m0"] == 20
