"""A wrong calibration is refused, and the message names the mistake; a right one passes."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Callable

import numpy as np
import pytest

from jaxsplat_mouse.capture import calibration_check, check_pictures, lens, pose_conventions
from jaxsplat_mouse.capture.crops import Crop, Cropper
from jaxsplat_mouse.capture.frame_reader import FrameReader
from jaxsplat_mouse.capture.raw_capture import Capture
from jaxsplat_mouse.capture.rig import Rig
from jaxsplat_mouse.errors import InputError
from jaxsplat_mouse.procedural_mouse.disturb import rotation_about
from tests.capture.recording_fixtures import VIEWS, make_rig, write_images

pytest.importorskip("cv2")


@pytest.fixture(scope="module")
def capture(tmp_path_factory: pytest.TempPathFactory) -> Capture:
  """Images of pinholes: a lens would hide wrong sizes behind its own refusal."""
  return write_images(tmp_path_factory.mktemp("raw"), make_rig(lens=False))


def examine(capture: Capture, **changes: np.ndarray) -> calibration_check.CalibrationReport:
  changed = dataclasses.replace(capture, rig=dataclasses.replace(capture.rig, **changes))
  with FrameReader(changed) as frame_reader:
    pinholes = {
      v: lens.make_pinhole(changed.rig, v, frame_reader.image_size(v)) for v in range(VIEWS)
    }
    with Cropper(changed, frame_reader, pinholes) as cropper:
      return calibration_check.check_calibration(cropper, changed.frames, [0, 1, 2])


def test_a_right_calibration_is_accepted(capture: Capture) -> None:
  report = examine(capture)
  assert report.score > 0.9 and report.other == "" and report.iou.min() > 0.85
  calibration_check.refuse_wrong_calibration(capture, report)


def opengl(rig: Rig) -> dict[str, np.ndarray]:
  return {"world_to_camera": np.diag([1.0, -1, -1, 1]) @ rig.world_to_camera}


def exchanged(rig: Rig) -> dict[str, np.ndarray]:
  return {"world_to_camera": rig.world_to_camera[[0, 3, 2, 1, 4]]}


def exchanged_and_off(rig: Rig) -> dict[str, np.ndarray]:
  """Files of two cameras exchanged, intrinsics included; every camera turned by half a degree."""
  order = [0, 3, 2, 1, 4]
  rng = np.random.default_rng(0)
  poses = rig.world_to_camera[order].copy()
  for pose in poses:
    pose[:3] = rotation_about(np.radians(0.5) * rng.normal(size=3)) @ pose[:3]
  return {"world_to_camera": poses, "matrices": rig.matrices[order]}


def one_off(rig: Rig) -> dict[str, np.ndarray]:
  poses = rig.world_to_camera.copy()
  poses[2, :3, 3] += [14.0, -6.0, 0.0]
  return {"world_to_camera": poses}


@pytest.mark.slow
@pytest.mark.parametrize(
  ("change", "blamed"),
  [
    (
      lambda rig: {"world_to_camera": pose_conventions.transpose_rotations(rig.world_to_camera)},
      "transposed",
    ),
    (lambda rig: {"world_to_camera": np.linalg.inv(rig.world_to_camera)}, "camera-to-world, not"),
    (opengl, "OpenGL"),
    (lambda rig: {"matrices": rig.matrices * [[2.0], [2.0], [1.0]]}, "2 times as large"),
    (exchanged, "Camera2 and Camera4 were exchanged"),
    (exchanged_and_off, "Camera2 and Camera4 were exchanged"),
    (one_off, "Camera3"),
  ],
)
def test_the_mistake_is_named(
  capture: Capture, change: Callable[[Rig], dict[str, np.ndarray]], blamed: str
) -> None:
  report = examine(capture, **change(capture.rig))
  assert report.score < calibration_check.GOOD and blamed in report.other
  with pytest.raises(InputError, match=f"no common solid: IoU .*{blamed}"):
    calibration_check.refuse_wrong_calibration(capture, report)


def test_a_transposed_calibration_is_refused(capture: Capture) -> None:
  report = examine(
    capture, world_to_camera=pose_conventions.transpose_rotations(capture.rig.world_to_camera)
  )
  assert "transposed" in report.other and report.other_score > 0.9
  with pytest.raises(InputError, match=r"they would agree to 0.9. if the rotations are transposed"):
    calibration_check.refuse_wrong_calibration(capture, report)


def test_a_mirrored_world_is_refused_although_silhouettes_agree(capture: Capture) -> None:
  poses = capture.rig.world_to_camera @ np.diag([1.0, -1.0, 1.0, 1.0])
  mirrored = dataclasses.replace(
    capture, rig=dataclasses.replace(capture.rig, world_to_camera=poses)
  )
  report = examine(capture, world_to_camera=poses)
  assert report.score > 0.9
  with pytest.raises(InputError, match=r"mirrored \(determinant -1\): Camera1, Camera2"):
    calibration_check.refuse_wrong_calibration(mirrored, report)


def test_mirrored_photographs_are_named(capture: Capture, tmp_path: pathlib.Path) -> None:
  """Principal points off centre: mirroring is about the photograph's middle, not theirs."""
  from PIL import Image

  for stream in (*capture.pictures, *(capture.masks or ())):
    for path in stream.images:
      target = tmp_path / path.relative_to(capture.path)
      target.parent.mkdir(parents=True, exist_ok=True)
      Image.fromarray(np.asarray(Image.open(path))[:, ::-1]).save(target)
  move = lambda s: dataclasses.replace(
    s, images=tuple(tmp_path / p.relative_to(capture.path) for p in s.images)
  )
  mirrored = dataclasses.replace(
    capture,
    pictures=tuple(map(move, capture.pictures)),
    masks=tuple(map(move, capture.masks or ())),
  )
  report = examine(mirrored)
  assert "mirrored left-right" in report.other and report.other_score > 0.9


def test_epipolar_lines_pass_through_the_point(capture: Capture) -> None:
  rig, point = capture.rig, np.array([5.0, -3.0, 25.0])
  cut = lens.CropRegion(left=10, top=5, width=90, height=80)
  crops, pixels = [], []
  for view in (0, 2):
    pinhole = lens.make_pinhole(rig, view, (144, 120))
    k = cut.intrinsics(pinhole)
    seen = rig.world_to_camera[view, :3, :3] @ point + rig.world_to_camera[view, :3, 3]
    pixels.append(k[:2] * seen[:2] / seen[2] + k[2:])
    rgba = np.zeros((80, 90, 4), np.uint8)
    crops.append(Crop(view=view, frame=0, rgba=rgba, region=cut, intrinsics=k))
  line = check_pictures.epipolar_line(rig, crops[0], crops[1], pixels[1])
  assert line is not None
  along = (line[1] - line[0]) / np.linalg.norm(line[1] - line[0])
  off = pixels[0] - line[0]
  assert abs(off[0] * along[1] - off[1] * along[0]) < 1e-3
