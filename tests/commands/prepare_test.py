"""The command as it is typed: help that teaches, errors in one line, the real capture."""

from __future__ import annotations

import json
import pathlib
import subprocess
import sys

import numpy as np
import pytest

from jaxsplat_mouse import metrics
from jaxsplat_mouse.dataset import facelift
from jaxsplat_mouse.visual_hull.build import build_hull
from jaxsplat_mouse.visual_hull.hull import HullConfig
from jaxsplat_mouse.visual_hull.hull_alpha import hull_alpha

ROOT = pathlib.Path(__file__).resolve().parents[2]


def prepare(*arguments: str) -> subprocess.CompletedProcess[str]:
  return subprocess.run(
    [sys.executable, "-m", "jaxsplat_mouse.prepare", *arguments],
    capture_output=True,
    text=True,
    cwd=ROOT,
  )


def test_help_teaches() -> None:
  done = prepare("--help")
  assert done.returncode == 0
  for expected in ("--format=dannce", "--check", "recording.json", "Exit status", "--offsets"):
    assert expected in done.stdout


@pytest.mark.parametrize(
  ("arguments", "expected"),
  [
    ([], "--format: missing"),
    (["--format=danse"], "danse"),
    (["--format=dannce", "--input=nowhere", "--output=x"], "nowhere: no such file or folder"),
    (
      ["--format=dannce", "--input=.", "--output=x", "--offsets=1"],
      "--offsets: 1: expected CAMERA",
    ),
    (["--format=dannce", "--input=.", "--output=x", "--size=7"], "--size: 7: expected at least 32"),
  ],
)
def test_errors_are_one_line(arguments: list[str], expected: str) -> None:
  done = prepare(*arguments)
  assert done.returncode == 1 and done.stdout == ""
  assert len(done.stderr.strip().splitlines()) == 1 and expected in done.stderr
  assert not (ROOT / "x").exists()


@pytest.mark.slow
def test_the_real_capture(shared_dir: pathlib.Path, tmp_path: pathlib.Path) -> None:
  """Six frames of six cameras, lossy masks, lenses with skew: six scenes, each one solid."""
  pytest.importorskip("av")
  capture = shared_dir / "data" / "capture_spot"
  done = prepare("--format=dannce", f"--input={capture}", f"--output={tmp_path}")
  assert done.returncode == 0, done.stderr
  scenes = sorted(p.parent for p in tmp_path.glob("*/opencv_cameras.json"))
  assert len(scenes) == 6 and "6 of 6 scenes" in done.stdout
  value = json.loads((tmp_path / "recording.json").read_text())
  for frame, folder in enumerate(scenes):
    scene = facelift.read_scene(folder).scene
    hull = build_hull(scene, HullConfig(resolution=128, num_points=64))
    alphas = np.asarray(hull_alpha(hull, scene.cameras))
    scores = [metrics.iou(a, b) for a, b in zip(alphas, scene.alphas, strict=True)]
    assert min(scores) > 0.98
    truth = capture / "groundtruth" / f"frame_{frame}" / "opencv_cameras.json"
    if truth.is_file():  # in mm, in the same world; the hull's middle is the volume's
      known = np.array(json.loads(truth.read_text())["centroid"])
      assert np.linalg.norm(np.array(value["moments"][frame]["centroid"]) - known) < 6
