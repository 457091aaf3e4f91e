"""Rigs that laboratories have, made of a real one: none of them may be refused."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Callable

import numpy as np
import pytest

from jaxsplat_mouse.cameras import look_at
from jaxsplat_mouse.capture import calibration_check, lens, rig_checks
from jaxsplat_mouse.capture.crops import Cropper
from jaxsplat_mouse.capture.formats import dannce
from jaxsplat_mouse.capture.frame_reader import FrameReader
from jaxsplat_mouse.capture.rig import Rig
from tests.capture.recording_fixtures import HEIGHT, WIDTH, write_images

pytest.importorskip("cv2")
pytest.importorskip("scipy")
_SHRINK = WIDTH / 1152


def small(rig: Rig) -> Rig:
  """The real rig for small pictures, without its labels."""
  matrices = rig.matrices * [[_SHRINK], [_SHRINK], [1.0]]
  sizes = np.tile([WIDTH, HEIGHT], (len(rig), 1))
  return dataclasses.replace(rig, matrices=matrices, sizes=sizes, labels=None)


def pick(rig: Rig, views: list[int]) -> Rig:
  return dataclasses.replace(
    rig,
    names=tuple(rig.names[v] for v in views),
    matrices=rig.matrices[views],
    world_to_camera=rig.world_to_camera[views],
    distortion=rig.distortion[views],
    sizes=rig.sizes[views],
  )


def four(rig: Rig) -> Rig:
  return pick(rig, [0, 1, 3, 4])


def twelve(rig: Rig) -> Rig:
  """The ring twice, the second time turned by 25 degrees about the vertical."""
  turn, (s, c) = np.eye(4), (np.sin(0.44), np.cos(0.44))
  turn[:2, :2] = [[c, -s], [s, c]]
  both = pick(rig, [*range(6), *range(6)])
  poses = np.concatenate([rig.world_to_camera, rig.world_to_camera @ turn])
  names = tuple(f"Camera{i + 1}" for i in range(12))
  return dataclasses.replace(both, names=names, world_to_camera=poses)


def one_far(rig: Rig) -> Rig:
  """A camera three times as far, with the lens that all have: its animal is a third as large."""
  poses = rig.world_to_camera.copy()
  poses[2, 2, 3] += 2 * np.linalg.norm(rig.centers[2])
  return dataclasses.replace(rig, world_to_camera=poses)


def top_down(rig: Rig) -> Rig:
  """One of six looks straight down."""
  poses = rig.world_to_camera.copy()
  poses[4] = look_at((3.0, -5.0, 380.0), (4.0, -4.0, 20.0), up=(0.0, 1.0, 0.0))
  return dataclasses.replace(rig, world_to_camera=poses)


def all_of_one_side(rig: Rig) -> Rig:
  """Four cameras within 180 degrees."""
  order = np.argsort(np.arctan2(rig.centers[:, 1], rig.centers[:, 0]))
  return pick(rig, order[:4].tolist())


@pytest.mark.parametrize("recording", ["markerless_mouse_1", "markerless_mouse_2"])
@pytest.mark.parametrize("scale", [1.0, 1e-3], ids=["mm", "m"])
@pytest.mark.parametrize("change", [lambda r: r, four, twelve, one_far, top_down, all_of_one_side])
def test_good_rigs_pass_the_checks_of_their_numbers(
  shared_dir: pathlib.Path, recording: str, scale: float, change: Callable[[Rig], Rig]
) -> None:
  rig = change(small(dannce.read_rig(shared_dir / "data" / "dannce_rigs" / recording)))
  poses = rig.world_to_camera * np.array([1, 1, 1, scale])
  poses[:, 3, 3] = 1.0
  rig = dataclasses.replace(rig, world_to_camera=poses)
  assert rig_checks.check_rig(pathlib.Path("rig"), rig) is rig


@pytest.mark.slow
@pytest.mark.parametrize("scale", [1.0, 1e-3], ids=["mm", "m"])
@pytest.mark.parametrize("change", [lambda r: r, four, twelve, one_far, top_down, all_of_one_side])
def test_good_rigs_pass_the_check_of_silhouettes(
  shared_dir: pathlib.Path, tmp_path: pathlib.Path, scale: float, change: Callable[[Rig], Rig]
) -> None:
  rig = change(small(dannce.read_rig(shared_dir / "data" / "dannce_rigs" / "markerless_mouse_1")))
  capture = write_images(tmp_path, rig, frames=2, views=len(rig))
  poses = rig.world_to_camera * np.array([1, 1, 1, scale])
  poses[:, 3, 3] = 1.0
  capture = dataclasses.replace(capture, rig=dataclasses.replace(rig, world_to_camera=poses))
  with FrameReader(capture) as frame_reader:
    pinholes = {
      v: lens.make_pinhole(capture.rig, v, frame_reader.image_size(v)) for v in range(len(rig))
    }
    with Cropper(capture, frame_reader, pinholes) as cropper:
      report = calibration_check.check_calibration(cropper, capture.frames, [0, 1])
  calibration_check.refuse_wrong_calibration(capture, report)
  assert report.other == "" and report.score > calibration_check.GOOD, report.lines()
