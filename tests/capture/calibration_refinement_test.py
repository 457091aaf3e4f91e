"""A recording whose calibration is off: the scenes get cameras that its silhouettes agree on."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import re
import shutil

import numpy as np
import pytest
from rich.console import Console

from jaxsplat_mouse.capture import preparation
from jaxsplat_mouse.capture.formats import dannce
from jaxsplat_mouse.capture.prepare_options import PrepareOptions
from jaxsplat_mouse.capture.raw_capture import Capture
from jaxsplat_mouse.dataset import camera_file
from jaxsplat_mouse.errors import InputError
from jaxsplat_mouse.procedural_mouse.disturb import rotation_about
from tests.capture.formats.format_fixtures import as_matlab
from tests.capture.recording_fixtures import make_rig, write_images
from tests.io.file_fixtures import write_mat

pytest.importorskip("cv2")
FRAMES = 6


@pytest.fixture(scope="module")
def right(tmp_path_factory: pytest.TempPathFactory) -> Capture:
  """Six moments, five cameras with lenses, an exact calibration."""
  return write_images(tmp_path_factory.mktemp("raw") / "walk", make_rig(), FRAMES)


@pytest.fixture(scope="module")
def wrong(right: Capture) -> Capture:
  """The same files with every camera turned by about a degree."""
  rng = np.random.default_rng(0)
  poses = np.array(right.rig.world_to_camera)
  for pose in poses:
    pose[:3] = rotation_about(np.radians(1.0) * rng.normal(size=3)) @ pose[:3]
  return dataclasses.replace(right, rig=dataclasses.replace(right.rig, world_to_camera=poses))


def settings(capture: Capture, output: pathlib.Path, **more: object) -> PrepareOptions:
  """The first moment alone by default."""
  chosen = {"frames": "0", "sync": "off", **more}
  return PrepareOptions(format="dannce", input=capture.path, output=output, **chosen)  # type: ignore[arg-type]


def prepare(capture: Capture, output: pathlib.Path, **more: object) -> tuple[int, str]:
  """Status and what was printed."""
  console = Console(record=True, width=400, file=open("/dev/null", "w"))  # noqa: SIM115
  options = settings(capture, output, **more)
  return preparation.prepare_recording(options, capture, console), console.export_text()


def written_poses(output: pathlib.Path, moment: int = 1) -> np.ndarray:
  return np.asarray(camera_file.read_cameras(output / f"walk_{moment:04d}").world_to_camera)


@pytest.fixture(scope="module")
def refined(wrong: Capture, tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
  """The first moment of the wrong calibration, prepared."""
  output = tmp_path_factory.mktemp("scenes")
  status, printed = prepare(wrong, output)
  assert status == 0 and f"calibration: refined on {FRAMES} moments" in printed, printed
  return output


def test_a_wrong_calibration_is_refined(wrong: Capture, refined: pathlib.Path) -> None:
  found = json.loads((refined / "calibration.json").read_text())
  assert found["accepted"] and list(found["cameras"]) == list(wrong.rig.names)
  before, after = (found["held_out_contradiction_px"][key] for key in ("before", "after"))
  assert np.mean(before) > 0.5 > np.mean(after)
  camera = found["cameras"]["Camera1"]
  np.testing.assert_allclose(camera["before"], wrong.rig.world_to_camera[0])
  assert 0.1 < camera["turn_degrees"] < 6
  assert 0.1 < camera["off_by_degrees"] < 4 and len(camera["over_time_px"]["after"]) == FRAMES
  after_all = [entry["after"] for entry in found["cameras"].values()]
  np.testing.assert_allclose(written_poses(refined), after_all, atol=1e-6)


def test_later_runs_keep_the_refined_poses(
  wrong: Capture, refined: pathlib.Path, tmp_path: pathlib.Path
) -> None:
  output = tmp_path / "scenes"
  shutil.copytree(refined, output)
  status, printed = prepare(wrong, output, frames="0:2")
  assert status == 0 and "refined" not in printed
  np.testing.assert_array_equal(written_poses(output, 11), written_poses(refined))
  (output / "calibration.json").write_text("{}")
  with pytest.raises(InputError, match=r"calibration.json: .*or --redo"):
    prepare(wrong, output, frames="0:3")


def test_a_check_keeps_the_poses_of_a_preparation(
  wrong: Capture, right: Capture, refined: pathlib.Path, tmp_path: pathlib.Path
) -> None:
  """Its own refinement, here of other poses, must not reach the scenes of later runs."""
  output = tmp_path / "scenes"
  shutil.copytree(refined, output)
  before = (output / "calibration.json").read_bytes()
  assert preparation.check_recording(settings(right, output), right, Console(quiet=True)) == 0
  assert (output / "calibration.json").read_bytes() == before
  assert prepare(wrong, output, frames="0:2")[0] == 0
  np.testing.assert_array_equal(written_poses(output, 11), written_poses(refined))


def test_refined_cameras_are_written_on_request(
  wrong: Capture, refined: pathlib.Path, tmp_path: pathlib.Path
) -> None:
  """Also where all scenes are there already; the recording's own file stays as it is."""
  pytest.importorskip("scipy")
  file = write_mat(wrong.path / "label3d_dannce.mat", as_matlab(wrong.rig))
  given = file.read_bytes()
  output = tmp_path / "scenes"
  shutil.copytree(refined, output)
  status, printed = prepare(wrong, output, write_calibration=("own",))
  folder = output / "refined_calibration" / "dannce"
  assert status == 0 and f"refined  {folder}" in printed
  found = dannce.read_rig(folder)
  np.testing.assert_allclose(found.world_to_camera, written_poses(refined), atol=1e-6)
  np.testing.assert_allclose(found.matrices, wrong.rig.matrices, atol=1e-12)
  assert file.read_bytes() == given


def test_the_sheet_says_what_was_wrong(
  wrong: Capture, refined: pathlib.Path, tmp_path: pathlib.Path
) -> None:
  page = (refined / "check.html").read_text()
  assert "The calibration was off, and is corrected" in page
  assert re.search(r"(All|4 of the).* cameras pointed (0\.\d°|up) to \d\.\d° away from where", page)
  assert re.search(r"silhouettes now agree to 0\.9\d \(before 0\.[3-8]\d\)", page)
  assert "http" not in page.replace("http-equiv", "") and "<script" not in page  # one file, offline
  assert 'name="viewport"' in page and page.count('<section class="camera">') == 5
  assert page.count("data:image/jpeg") == 5 * 3 + 1 and page.count("<svg") == 5 + 1
  output = tmp_path / "scenes"
  shutil.copytree(refined, output)
  assert prepare(wrong, output, frames="0:2")[0] == 0
  assert (output / "check.html").read_text() == page  # it says how the cameras were settled


def test_a_right_calibration_stays(right: Capture, tmp_path: pathlib.Path) -> None:
  with pytest.raises(InputError, match="--refine: on: calibration: kept as given"):
    prepare(right, tmp_path / "on", refine="on")
  status, printed = prepare(right, tmp_path, write_calibration=("own",))
  assert status == 0 and "calibration: kept as given" in printed, printed
  assert "calibration: nothing to write" in printed
  assert not (tmp_path / "refined_calibration").exists()
  assert "The calibration fits" in (tmp_path / "check.html").read_text()
  np.testing.assert_array_equal(written_poses(tmp_path), right.rig.world_to_camera)


def test_off_refuses_what_cannot_be_used(wrong: Capture, tmp_path: pathlib.Path) -> None:
  (tmp_path / "calibration.json").write_text("{}")  # of an earlier run, with other options
  with pytest.raises(InputError, match="the silhouettes admit no common solid"):
    prepare(wrong, tmp_path, refine="off")
  assert not (tmp_path / "calibration.json").exists()
