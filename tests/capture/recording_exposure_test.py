"""A recording whose cameras differ in exposure: measured, taken out of the crops, used again."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import shutil

import numpy as np
import pytest
from rich.console import Console

from jaxsplat_mouse.cameras import look_at
from jaxsplat_mouse.capture import preparation, recording_exposure
from jaxsplat_mouse.capture.prepare_options import PrepareOptions
from jaxsplat_mouse.capture.raw_capture import Capture
from jaxsplat_mouse.capture.rig import Rig
from jaxsplat_mouse.dataset import camera_file
from jaxsplat_mouse.errors import InputError
from jaxsplat_mouse.io import images
from tests.capture.recording_fixtures import SPHERES, VIEWS, make_rig, write_images

pytest.importorskip("cv2")
MOMENTS = 6  # of two pictures of each camera, in turns
DARK, TINT = 1, np.array([0.7, 0.75, 0.8])  # one camera, and its gains


def ring() -> Rig:
  """Cameras at even steps around the walk, near enough that neighbours see the same points."""
  rig = make_rig(lens=False)
  poses = []
  for i in range(VIEWS):
    angle = 2 * np.pi * i / VIEWS
    poses.append(look_at(240 * np.array([np.cos(angle), np.sin(angle), 0.5]), (0, 0, 25)))
  matrices = rig.matrices * np.array([1.7, 1.7, 1.0])[:, None]
  matrices[:, :2, 2] = rig.matrices[:, :2, 2]
  return dataclasses.replace(rig, matrices=matrices, world_to_camera=np.array(poses))


@pytest.fixture(scope="module")
def capture(tmp_path_factory: pytest.TempPathFactory) -> Capture:
  """Spheres of plain colours; one camera's photographs are too dark and too blue."""
  found = write_images(tmp_path_factory.mktemp("raw") / "walk", ring(), frames=2)
  for path in found.pictures[DARK].images:
    photo = images.read_image(path)[..., :3]
    path.write_bytes(images.encode_png(np.round(photo * TINT).astype(np.uint8)))
  frames = np.tile(np.arange(MOMENTS)[:, None] % 2, (1, VIEWS))
  return dataclasses.replace(found, frames=frames, moments=10 * np.arange(MOMENTS) + 1)


def prepare(capture: Capture, output: pathlib.Path, **more: object) -> str:
  options = PrepareOptions(
    format="dannce",
    input=capture.path,
    output=output,
    refine="off",
    matte="off",
    **more,  # type: ignore[arg-type]
  )
  console = Console(record=True, width=400, file=open("/dev/null", "w"))  # noqa: SIM115
  assert preparation.prepare_recording(options, capture, console) == 0
  return console.export_text()


def body_colors(folder: pathlib.Path) -> np.ndarray:
  """(V, 3) median colour that each view of a scene shows of the largest sphere, in [0, 1]."""
  found = []
  for name in camera_file.parse(folder / camera_file.CAMERAS_FILE).names:
    rgba = images.read_image(folder / name)
    body = rgba[(rgba[..., 3] == 255) & (rgba[..., 0] > 1.2 * rgba[..., 2])]
    body = body[body[:, 1] < 0.75 * body[:, 0]]  # not the yellow one
    found.append(np.median(body[:, :3], 0) / 255)
  return np.array(found)


def test_a_dark_camera_is_brought_to_the_others(capture: Capture, tmp_path: pathlib.Path) -> None:
  printed = prepare(capture, tmp_path, frames="0:2")
  assert "exposure: " in printed and "taken out" in printed
  value = json.loads((tmp_path / "recording.json").read_text())["exposure"]
  gains = np.array([value["gains"][name] for name in capture.rig.names])
  wanted = np.where(np.arange(VIEWS)[:, None] == DARK, TINT, 1.0)
  wanted /= np.exp(np.log(wanted).mean(0))
  assert value["applied"]
  np.testing.assert_allclose(gains, wanted, rtol=0.02)
  colors = body_colors(tmp_path / "walk_0001")
  np.testing.assert_allclose(colors, np.tile(colors.mean(0), (VIEWS, 1)), rtol=0.03)
  np.testing.assert_allclose(colors.mean(0), SPHERES[0][2] * TINT ** (1 / VIEWS), rtol=0.02)
  scene = camera_file.parse(tmp_path / "walk_0001" / camera_file.CAMERAS_FILE)
  assert scene.extra["exposure"] == value["gains"]

  # A later run measures nothing and uses the same gains.
  again = tmp_path.with_name("again")
  shutil.copytree(tmp_path, again)
  shutil.rmtree(again / "walk_0011")
  assert "exposure" not in prepare(capture, again, frames="0:2")
  for image in sorted((tmp_path / "walk_0011" / "images").iterdir()):
    assert image.read_bytes() == (again / "walk_0011" / "images" / image.name).read_bytes()


def test_off_leaves_the_colours(capture: Capture, tmp_path: pathlib.Path) -> None:
  assert "exposure" not in prepare(capture, tmp_path, frames="0", exposure="off")
  colors = body_colors(tmp_path / "walk_0001")
  np.testing.assert_allclose(colors[DARK] / colors[0], TINT, rtol=0.02)


def test_a_camera_that_is_left_out_has_no_gain(capture: Capture, tmp_path: pathlib.Path) -> None:
  prepare(capture, tmp_path, frames="0", without=("Camera4",))
  gains = json.loads((tmp_path / "recording.json").read_text())["exposure"]["gains"]
  assert gains["Camera4"] == [1.0, 1.0, 1.0]
  # Four cameras carve too large a solid, on which two of them often see different spheres.
  np.testing.assert_allclose(np.divide(gains["Camera2"], gains["Camera3"]), TINT, rtol=0.15)


def test_a_broken_record_is_refused() -> None:
  rig = make_rig()
  assert recording_exposure.corrections_from_json({}, rig) is None
  with pytest.raises(InputError, match="exposure"):
    recording_exposure.corrections_from_json({"applied": True, "gains": {"Camera1": [1]}}, rig)
