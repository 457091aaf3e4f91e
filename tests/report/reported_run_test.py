"""The command that checks a run's dataset."""

from __future__ import annotations

import pathlib

import pytest

from jaxsplat_mouse.report.reported_run import ReportedRun

USUAL = {
  "render.num_views": 32,
  "render.image_size": 512,
  "render.fov": 50.0,
  "render.elevation": 20.0,
  "render.distance": 2.7,
}


@pytest.mark.parametrize(
  ("config", "flags"),
  [
    ({}, ""),
    (USUAL, ""),
    ({**USUAL, "render.image_size": 256, "render.elevation": 10.0}, " --size=256 --elevation=10.0"),
  ],
)
def test_the_command_carries_the_flags_that_the_cameras_require(config: dict, flags: str) -> None:
  dataset = pathlib.Path("/my run/dataset")
  run = ReportedRun(name="my run", dataset=dataset, report=dataset, config=config)
  expected = f"python -m jaxsplat_mouse.validate '/my run/dataset'{flags}"
  assert run.validate_command() == expected
