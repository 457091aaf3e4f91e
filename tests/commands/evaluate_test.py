"""Evaluation: held-out views through the stored transform, and leave one camera out."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from jaxsplat_mouse.cameras import generate_camera_poses
from jaxsplat_mouse.dataset import camera_file
from jaxsplat_mouse.errors import InputError
from jaxsplat_mouse.io import images
from jaxsplat_mouse.procedural_mouse.mouse import make_mouse, render_truth
from jaxsplat_mouse.procedural_mouse.mouse_scenes import input_cameras
from jaxsplat_mouse.run import evaluation, job, render_folder
from jaxsplat_mouse.run.workdir import Workdir
from jaxsplat_mouse.scene import Similarity
from tests.run_fixtures import IMAGE_SIZE, tiny_config, write_mouse

# The scenes' own world, so that a transform that is not applied shows.
WORLD = Similarity(
  scale=200.0,
  rotation=np.array([[0.0, -1.0, 0.0], [1.0, 0.0, 0.0], [0.0, 0.0, 1.0]]),
  translation=np.array([50.0, -30.0, 12.0]),
)


def move_cameras(folder: pathlib.Path) -> None:
  """Puts a scene folder's cameras into `WORLD`."""
  read = camera_file.read_cameras(folder)
  moved = dataclasses.replace(
    read, world_to_camera=WORLD.world_to_camera(read.world_to_camera)
  ).cameras(slice(None), *(int(s) for s in read.sizes[0]))
  camera_file.write_scene_cameras(folder, moved, read.names)


def write_truth(folder: pathlib.Path, seed: int) -> None:
  """Four new views of a mouse, and one from the first input camera."""
  new = generate_camera_poses(4, image_size=IMAGE_SIZE)
  own = input_cameras(image_size=IMAGE_SIZE)
  poses = np.concatenate([new.world_to_camera, own.world_to_camera[:1]])
  intrinsics = np.concatenate([new.intrinsics, own.intrinsics[:1]])
  cameras = dataclasses.replace(new, world_to_camera=poses, intrinsics=intrinsics)
  views = render_truth(make_mouse(seed), cameras)
  names = [f"images/cam_{i:03d}.png" for i in range(len(views.rgba))]
  (folder / "images").mkdir(parents=True)
  for name, view in zip(names, views.rgba, strict=True):
    (folder / name).write_bytes(images.encode_png((view * 255 + 0.5).astype(np.uint8)))
  camera_file.write_scene_cameras(folder, cameras, names)
  move_cameras(folder)


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
  """A run over a scene with held-out views and one without."""
  inputs = tmp_path_factory.mktemp("input") / "recording"
  move_cameras(write_mouse(inputs / "mouse_0" / "input", 0))
  write_truth(inputs / "mouse_0" / "target", 0)
  move_cameras(write_mouse(inputs / "mouse_1", 1))
  workdir = tmp_path_factory.mktemp("w")
  assert job.run(tiny_config(str(inputs)), workdir) == 0
  return workdir


def silent(text: str) -> None:
  del text


def test_held_out_views_are_scored_in_the_scenes_own_world(
  finished: pathlib.Path, shared_dir: pathlib.Path, tmp_path: pathlib.Path
) -> None:
  """The numbers are those of the data's own scoring tool on `render --frame=input`."""
  done, failures = evaluation.evaluate_workdir(Workdir(finished), None, 1, silent)
  assert not failures
  one = done[0]
  assert (one.scene, one.kind) == ("mouse_0", evaluation.HELD_OUT)
  assert [view["seen"] for view in one.views] == [False] * 4 + [True]
  assert one.novel["iou"] > 0.6
  source = json.loads((finished / "fits" / "mouse_0" / "scene.json").read_text())["source"]
  folder = pathlib.Path(source["folder"]).parent
  cameras = folder / "target" / "opencv_cameras.json"
  gaussians = finished / "fits" / "mouse_0" / "gaussians.ply"
  assert render_folder.render_to_folder(gaussians, cameras, tmp_path / "r", "input") == 5
  scored = subprocess.run(
    [
      *(sys.executable, str(shared_dir / "tools" / "score_views.py"), str(tmp_path / "r")),
      *(str(folder / "target"), "--input", str(folder / "input"), "--json"),
    ],
    capture_output=True,
    text=True,
    check=True,
  )
  read = json.loads(scored.stdout)
  assert (read["novel_views"], read["seen_views"]) == (4, 1)
  for name in ("fg_psnr", "iou", "psnr", "ssim"):
    assert one.novel[name] == pytest.approx(read["novel"][name], abs=1e-3)
    assert one.seen[name] == pytest.approx(read["seen"][name], abs=1e-3)


def test_leave_one_camera_out_and_the_files(finished: pathlib.Path) -> None:
  done, failures = evaluation.evaluate_workdir(Workdir(finished), None, 0, silent)
  assert not failures
  assert [one.kind for one in done] == [evaluation.HELD_OUT, evaluation.LEAVE_ONE_OUT]
  left_out = done[1]
  assert len(left_out.views) == 6
  assert 0.5 < left_out.novel["iou"] < 1.0
  read = json.loads((finished / "evaluation" / "metrics.json").read_text())
  assert read["scenes"]["mouse_1"]["novel"] == pytest.approx(left_out.novel)
  mean = np.mean([one.novel["fg_psnr"] for one in done])
  assert read["mean"]["fg_psnr"] == pytest.approx(mean)
  for name in ("mouse_0", "mouse_1"):
    with Image.open(finished / "evaluation" / f"{name}.png") as picture:
      assert picture.width > 400 and picture.mode == "RGB"


def test_given_targets_by_name_and_what_is_missing(
  finished: pathlib.Path, tmp_path: pathlib.Path
) -> None:
  write_truth(tmp_path / "views" / "mouse_1", 1)
  done, failures = evaluation.evaluate_workdir(Workdir(finished), tmp_path / "views", 1, silent)
  assert [one.scene for one in done] == ["mouse_1"]
  assert "no views of this scene" in failures["mouse_0"]


def test_a_source_that_is_gone_is_told(finished: pathlib.Path, tmp_path: pathlib.Path) -> None:
  shutil.copytree(finished, tmp_path / "w")
  path = tmp_path / "w" / "fits" / "mouse_0" / "scene.json"
  read = json.loads(path.read_text())
  read["source"]["folder"] = str(tmp_path / "gone")
  path.write_text(json.dumps(read))
  lines: list[str] = []
  write_truth(tmp_path / "views" / "mouse_1", 1)
  _, failures = evaluation.evaluate_workdir(
    Workdir(tmp_path / "w"), tmp_path / "views", 1, lines.append
  )
  assert "mouse_0" in failures


def test_a_folder_without_a_run_is_told(tmp_path: pathlib.Path) -> None:
  with pytest.raises(InputError, match="expected the --workdir of a run"):
    evaluation.evaluate_workdir(Workdir(tmp_path), None, 1, silent)


def evaluate_command(*arguments: str) -> subprocess.CompletedProcess[str]:
  root = pathlib.Path(__file__).resolve().parents[2]
  return subprocess.run(
    [sys.executable, "-m", "jaxsplat_mouse.evaluate", *arguments],
    cwd=root,
    capture_output=True,
    text=True,
  )


def test_the_command(finished: pathlib.Path, tmp_path: pathlib.Path) -> None:
  write_truth(tmp_path / "views" / "mouse_0", 0)
  write_truth(tmp_path / "views" / "mouse_1", 1)
  found = evaluate_command(f"--workdir={finished}", f"--targets={tmp_path / 'views'}")
  assert found.returncode == 0, found.stderr
  assert "fg PSNR" in found.stdout and "mean" in found.stdout
  assert "--max_scenes" in evaluate_command("--help").stdout
  refused = evaluate_command()
  assert refused.returncode == 1 and refused.stderr.startswith("error: --workdir: missing")
