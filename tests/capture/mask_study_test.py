"""A recording finds out about its masks: bias, wobble, mattes instead, masks from a plate."""

from __future__ import annotations

import dataclasses
import pathlib
from typing import Any

import numpy as np
import pytest

pytest.importorskip("cv2")
from jaxsplat_mouse.capture.mask_study import edge_offset
from jaxsplat_mouse.capture.raw_capture import Capture
from jaxsplat_mouse.errors import InputError
from jaxsplat_mouse.io import images
from tests.capture.matte_fixtures import make_alpha, make_plate, move, photograph
from tests.capture.preparation_test import prepare as prepare_all
from tests.capture.preparation_test import recording, written
from tests.capture.recording_fixtures import make_rig, write_images

MOMENTS = 9


def rewrite_masks(capture: Capture, pixels: float) -> None:
  import cv2

  assert capture.masks is not None
  for stream in capture.masks:
    for path in stream.images:
      inside = (images.read_image(path, "", grey_too=True) > 127).astype(np.uint8)
      far, deep = (cv2.distanceTransform(s, cv2.DIST_L2, 5) for s in (1 - inside, inside))
      signed = np.where(inside > 0, 0.5 - deep, far - 0.5)
      soft = np.round(255 * np.clip(0.5 + pixels - signed, 0, 1)).astype(np.uint8)
      path.write_bytes(images.encode_png(soft))


def prepare(capture: Capture, output: pathlib.Path, **options: Any) -> tuple[int, str]:
  """Prepares with the masks' part alone: poses, times and colours of the cameras stay."""
  return prepare_all(capture, output, **options, refine="off", sync="off", exposure="off")


@pytest.fixture
def long(tmp_path: pathlib.Path) -> Capture:
  """A recording with moments enough for a plate."""
  return write_images(tmp_path / "walk", make_rig(), frames=MOMENTS)


def alphas(output: pathlib.Path) -> float:
  """Sum of all coverage of the first scene."""
  files = sorted((output / written(output)[0] / "images").glob("*.png"))
  return float(sum(images.read_image(f)[..., 3].sum() for f in files)) / 255


def test_exact_masks_stay_as_they_are(long: Capture, tmp_path: pathlib.Path) -> None:
  status, printed = prepare(long, tmp_path / "auto", frames="0:3")
  assert status == 0 and "agree with the pictures and stay" in printed
  assert prepare(long, tmp_path / "off", frames="0:3", matte="off")[0] == 0
  for name in written(tmp_path / "off"):
    for path in sorted((tmp_path / "off" / name / "images").glob("*.png")):
      off = images.read_image(path)
      auto = images.read_image(tmp_path / "auto" / name / "images" / path.name)
      np.testing.assert_array_equal(auto[..., 3], off[..., 3])
      assert np.abs(auto.astype(int) - off)[off[..., 3] == 255].mean() < 2
  found = recording(tmp_path / "auto")["masks"]["cameras"]
  assert max(abs(f["offset_px"]) for f in found.values()) < 0.3


def test_wide_masks_are_reported_and_mended(long: Capture, tmp_path: pathlib.Path) -> None:
  assert prepare(long, tmp_path / "true", frames="0:3", matte="off")[0] == 0
  rewrite_masks(long, 2.0)
  assert prepare(long, tmp_path / "wide", frames="0:3", matte="off")[0] == 0
  status, printed = prepare(long, tmp_path / "mended", frames="0:3")
  assert status == 0 and "too wide (+)" in printed and "mattes" in printed
  found = recording(tmp_path / "mended")["masks"]["cameras"]
  assert all(1.5 < f["offset_px"] < 2.4 and f["matted"] for f in found.values())
  true, wide, mended = (alphas(tmp_path / name) for name in ("true", "wide", "mended"))
  assert abs(mended / true - 1) < 0.25 * abs(wide / true - 1)


def test_without_moments_enough_a_warning_gives_the_number(
  long: Capture, tmp_path: pathlib.Path
) -> None:
  rewrite_masks(long, 3.0)
  short = dataclasses.replace(long, frames=long.frames[:2], moments=long.moments[:2])
  status, printed = prepare(short, tmp_path / "out")
  assert status == 0 and "--grow=-3 would move them" in printed


@pytest.mark.parametrize("pixels", [-2.0, 0.0, 3.0])
def test_the_edge_of_a_single_picture(pixels: float) -> None:
  found = edge_offset(photograph(make_alpha(), make_plate()), move(make_alpha(), pixels))
  assert found is not None and abs(found - pixels) < 0.5


def test_masks_from_the_plate(long: Capture, tmp_path: pathlib.Path) -> None:
  assert prepare(long, tmp_path / "true", frames="0:2", matte="off")[0] == 0
  bare = dataclasses.replace(long, masks=None)
  status, _ = prepare(bare, tmp_path / "plate", frames="0:2", plate_masks=True)
  assert status == 0 and recording(tmp_path / "plate")["masks"]["from_plate"]
  assert (tmp_path / "plate" / "check.png").is_file()
  assert abs(alphas(tmp_path / "plate") / alphas(tmp_path / "true") - 1) < 0.1


def test_masks_from_the_plate_are_refused_with_the_reason(
  long: Capture, tmp_path: pathlib.Path
) -> None:
  still = dataclasses.replace(long, masks=None, frames=np.repeat(long.frames[:1], MOMENTS, 0))
  with pytest.raises(InputError, match="no animal stands out from the background"):
    prepare(still, tmp_path / "still", plate_masks=True)
  few = dataclasses.replace(long, masks=None, frames=long.frames[:3], moments=long.moments[:3])
  with pytest.raises(InputError, match="at least 8"):
    prepare(few, tmp_path / "few", plate_masks=True)


def test_mattes_that_cannot_be_made_are_refused(long: Capture, tmp_path: pathlib.Path) -> None:
  short = dataclasses.replace(long, frames=long.frames[:3], moments=long.moments[:3])
  with pytest.raises(InputError, match="at least 8 moments; there are 3 moments"):
    prepare(short, tmp_path / "out", matte="on")
