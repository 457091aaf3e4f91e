"""Warm starts in a run: rounds in the order of frames, Gaussians moved from fit to fit."""

from __future__ import annotations

import json
import pathlib

import numpy as np
import pytest

from jaxsplat_mouse.dataset.sources import Source
from jaxsplat_mouse.run import fit_store, frame_order, job
from jaxsplat_mouse.run.scene_input import SceneInput
from jaxsplat_mouse.run.settings import Settings
from jaxsplat_mouse.run.workdir import Workdir
from jaxsplat_mouse.scene import Similarity
from tests.run_fixtures import tiny_config, write_mice
from tests.splat_fixtures import random_gaussians

_FRAMES = [("a", 0), ("b", 0), ("a", 1), ("b", 1), ("a", 2)]


@pytest.fixture
def sources() -> dict[str, Source]:
  found = [Source(name=f"{r}{i}", recording=r, mouse=i, image_size=36) for r, i in _FRAMES]
  return {source.name: source for source in found}


def test_frames_follow_each_other_within_their_recording(sources):
  assert frame_order.predecessors(sources) == {"a1": "a0", "b1": "b0", "a2": "a1"}


def _settings(warm: bool = True) -> Settings:
  config = tiny_config()
  config.fit.warm_start = warm
  return Settings.from_config(config)


def test_a_batch_holds_one_frame_of_each_recording(sources, tmp_path: pathlib.Path):
  plans = frame_order.ordered_plans(Workdir(tmp_path), _settings(), sources, list(sources), 4)
  assert [plan.names for plan in plans] == [("a0", "b0"), ("a1", "b1"), ("a2",)]


def test_without_warm_starts_the_order_is_that_of_the_scenes(sources, tmp_path):
  plans = frame_order.ordered_plans(Workdir(tmp_path), _settings(False), sources, list(sources), 4)
  assert [plan.names for plan in plans] == [("a0", "b0", "a1", "b1"), ("a2",)]


def test_what_is_done_leaves_the_order_alone_and_large_rounds_are_cut(sources, tmp_path):
  wanted = ["a1", "b0", "a2", "b1"]
  plans = frame_order.ordered_plans(Workdir(tmp_path), _settings(), sources, wanted, 1)
  assert [plan.names for plan in plans] == [("b0",), ("a1",), ("b1",), ("a2",)]


def _prepared(source: Source, scale: float, seed: int) -> SceneInput:
  return SceneInput(
    source=source,
    digest="",
    scene=None,
    similarity=Similarity(scale=scale),
    gaussians=random_gaussians(True, 40, seed=seed),
    seed=0,
    warnings=(),
    seconds=0.0,
  )


def test_splats_come_from_the_fit_before_in_the_new_scale(sources, tmp_path):
  workdir, settings = Workdir(tmp_path), _settings()
  old = random_gaussians(True, 25, seed=1)
  fit_store.save_fit(
    workdir,
    fit_store.SavedFit(
      name="a0",
      source=sources["a0"],
      digest="",
      fit_key="",
      similarity=Similarity(scale=2.0),
      gaussians=old,
      info={},
    ),
  )
  one, other = _prepared(sources["a1"], 3.0, 2), _prepared(sources["b1"], 3.0, 3)
  (warmed,), all_warm = frame_order.start_from_previous(workdir, settings, sources, [one])
  np.testing.assert_allclose(warmed.gaussians.means[:25], 1.5 * np.asarray(old.means), rtol=1e-5)
  assert len(warmed.gaussians.means) == 40
  assert all_warm
  # Without a fit before it a frame starts from its hull, and its batch takes the whole time.
  (_, cold), all_warm = frame_order.start_from_previous(workdir, settings, sources, [one, other])
  assert cold.gaussians is other.gaussians
  assert not all_warm


@pytest.mark.slow
def test_a_run_takes_later_frames_in_fewer_steps(tmp_path: pathlib.Path):
  for recording in ("ra", "rb"):
    write_mice(tmp_path / "in" / recording, 2)
  config = tiny_config(str(tmp_path / "in"))
  config.fit.warm_start = True
  assert job.run(config, tmp_path / "w") == 0
  (file,) = (tmp_path / "w").rglob("metrics.jsonl")
  rows = [json.loads(line) for line in file.read_text().splitlines()]
  steps = {row["scene"]: row["iteration"] for row in rows}
  assert sorted(steps.values()) == [10, 10, 20, 20]
