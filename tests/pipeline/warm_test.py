"""Warm starts in a run: rounds in the order of frames, Gaussians moved from fit to fit."""

from __future__ import annotations

import pathlib

import numpy as np
import pytest

from jaxsplat_mouse.pipeline import fits, warm
from jaxsplat_mouse.pipeline.prepare import Prepared
from jaxsplat_mouse.pipeline.settings import Settings
from jaxsplat_mouse.pipeline.workdir import Workdir
from jaxsplat_mouse.scene import Similarity
from jaxsplat_mouse.sources import Source
from tests.run_fixtures import tiny_config
from tests.splat_fixtures import random_gaussians

_FRAMES = [("a", 0), ("b", 0), ("a", 1), ("b", 1), ("a", 2)]


@pytest.fixture
def sources() -> dict[str, Source]:
  found = [Source(name=f"{r}{i}", recording=r, mouse=i, image_size=36) for r, i in _FRAMES]
  return {source.name: source for source in found}


def test_frames_follow_each_other_within_their_recording(sources):
  assert warm.predecessors(sources) == {"a1": "a0", "b1": "b0", "a2": "a1"}


def test_a_batch_holds_one_frame_of_each_recording(sources, tmp_path: pathlib.Path):
  plans = warm.plan_rounds(Workdir(tmp_path), sources, set(sources), 4)
  assert [plan.names for plan in plans] == [("a0", "b0"), ("a1", "b1"), ("a2",)]
  before = warm.predecessors(sources)
  assert [warm.is_warm(plan.names, before) for plan in plans] == [False, True, True]


def test_what_is_done_leaves_the_order_alone_and_large_rounds_are_cut(sources, tmp_path):
  plans = warm.plan_rounds(Workdir(tmp_path), sources, {"a1", "b0", "a2", "b1"}, 1)
  assert [plan.names for plan in plans] == [("b0",), ("a1",), ("b1",), ("a2",)]


def _prepared(source: Source, scale: float, seed: int) -> Prepared:
  return Prepared(
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
  workdir, settings = Workdir(tmp_path), Settings.from_config(tiny_config())
  old = random_gaussians(True, 25, seed=1)
  fits.save_fit(
    workdir,
    fits.SavedFit(
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
  before = warm.predecessors(sources)
  warmed, cold = warm.start_from_previous(workdir, settings, before, [one, other])
  np.testing.assert_allclose(warmed.gaussians.means[:25], 1.5 * np.asarray(old.means), rtol=1e-5)
  assert len(warmed.gaussians.means) == 40
  assert cold.gaussians is other.gaussians  # no fit before it: from its hull
