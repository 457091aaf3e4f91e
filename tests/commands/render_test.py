"""The render command: flags in, a scene folder out, errors in one line."""

from __future__ import annotations

import pathlib
import subprocess
import sys

from jaxsplat_mouse.cameras import generate_camera_poses
from jaxsplat_mouse.dataset import camera_file
from jaxsplat_mouse.io import images, ply
from tests.splat_fixtures import random_gaussians

ROOT = pathlib.Path(__file__).resolve().parents[2]


def call(*arguments: str) -> subprocess.CompletedProcess[str]:
  return subprocess.run(
    [sys.executable, "-m", "jaxsplat_mouse.render", *arguments],
    cwd=ROOT,
    capture_output=True,
    text=True,
  )


def test_the_command(tmp_path: pathlib.Path) -> None:
  ply.write_gaussians(tmp_path / "g.ply", random_gaussians(flat=False))
  names = [f"images/cam_{i:03d}.png" for i in range(3)]
  given = camera_file.write_scene_cameras(
    tmp_path, generate_camera_poses(3, image_size=32), names, scene_id="views"
  )
  flags = [f"--gaussians={tmp_path / 'g.ply'}", f"--cameras={given}", f"--output={tmp_path / 'a'}"]
  done = call(*flags)
  assert done.returncode == 0, done.stderr
  assert done.stdout.startswith("3 views in")
  assert all(images.read_image(tmp_path / "a" / name).shape == (32, 32, 4) for name in names)
  refused = call(*flags[1:])
  assert refused.returncode == 1 and refused.stderr.startswith("error: --gaussians: missing")
  refused = call(*flags, "--frame=world")
  assert refused.returncode == 1 and refused.stderr.count("\n") == 1
