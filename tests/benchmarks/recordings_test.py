"""The recordings' test bed: raw files that readers understand, faults in them, tables of scores."""

from __future__ import annotations

import dataclasses
import itertools
import json

import numpy as np
import pytest

pytest.importorskip("cv2")
pytest.importorskip("scipy")

from benchmarks import (
  recording_faults,
  recording_files,
  recording_measures,
  recording_scores,
  recording_treatments,
)
from benchmarks.recording_faults import FAULTS, Fault
from benchmarks.recording_films import SUBJECTS, Film, FilmSize, novel_cameras, rig_of
from jaxsplat_mouse.capture.formats import registry
from jaxsplat_mouse.io import images

_MOMENTS, _WIDTH = 2, 90


def _film() -> Film:
  """Discs instead of mice; every camera has a colour, every frame a column of its own."""
  cameras = rig_of(SUBJECTS["agouti"], _WIDTH)
  height = cameras.height
  rows, columns = np.mgrid[:height, :_WIDTH]

  def picture(view: int, frame: int) -> np.ndarray:
    alpha = np.hypot(columns - 30 - 5 * frame, rows - 40) < 15
    color = np.broadcast_to([40 * view + 10, 200, 100], (height, _WIDTH, 3))
    return np.concatenate([color, 255 * alpha[..., None]], -1).astype(np.uint8)

  views = len(cameras)
  every = np.stack([np.stack([picture(v, f) for v in range(views)]) for f in range(-2, 6)])
  # Moments are frames 0 and 3; beside each lies the frame before and the one after.
  return Film(
    cameras=cameras,
    rgba=every[[2, 5]],
    truth=np.zeros((1, 1, 8, 8, 4), np.uint8),
    scored=np.array([1]),
    novel=novel_cameras(8, 1),
    sides=np.stack([every[[1, 4]], every[[3, 6]]]),
    earlier=every[[0, 3], 3],
  )


def _column(alpha: np.ndarray) -> float:
  return float(np.nonzero(alpha > 127)[1].mean())


@pytest.mark.parametrize("video", [False, True])
def test_readers_find_cameras_and_pictures(tmp_path, video):
  if video:
    pytest.importorskip("av")
  film, fault = _film(), Fault(turn=1.0, shift=5.0, focal=0.003)
  given = recording_files.write_recording(tmp_path, film, fault, 0, video=video)
  capture = registry.read_capture("sdannce" if video else "transforms", tmp_path)
  true = recording_files.true_rig(film, video)
  assert capture.rig.names == given.names
  assert len(capture.moments) == 3 * _MOMENTS - 2
  for name in ("matrices", "world_to_camera", "distortion"):
    np.testing.assert_allclose(getattr(capture.rig, name), getattr(given, name), atol=1e-6)
  assert np.abs(given.world_to_camera - true.world_to_camera).max() > 0.01
  assert bool(given.matrices[0, 0, 1]) == video


def test_late_swapped_and_bumped_pictures(tmp_path):
  film = _film()
  late, swapped, bumped = FAULTS["late"], FAULTS["swapped"], FAULTS["bumped"]
  rig = recording_files.true_rig(film, False)
  show = lambda fault, view, number: recording_files.exact_alpha(film, rig, fault, 0, view, number)
  none = Fault()
  for number in range(3):
    np.testing.assert_array_equal(show(late, 3, number + 1), show(none, 3, number))
    np.testing.assert_array_equal(show(late, 2, number), show(none, 2, number))
  np.testing.assert_array_equal(show(swapped, 1, 0), show(none, 4, 0))
  np.testing.assert_array_equal(show(bumped, 2, 1), show(none, 2, 1))
  assert 0.5 < np.abs(_column(show(bumped, 2, 2)) - _column(show(none, 2, 2))) < 4
  recording_files.write_recording(tmp_path, film, swapped, 0, video=False)
  photo = images.read_image(tmp_path / "photos/0000/Camera2.png")
  inside = show(none, 4, 0) == 255
  assert abs(float(np.median(photo[inside][:, 0])) - 170) < 3


def test_masks_of_faults():
  alpha = (np.hypot(*(np.mgrid[:160, :160] - 80)) < 40).astype(np.uint8) * np.uint8(255)
  rng = np.random.default_rng(0)
  area = lambda fault: float((recording_faults.spoil_mask(alpha, fault, rng) / 255).sum())
  circle = 2 * np.pi * 40
  # Distances between pixels are good to a tenth.
  assert (area(Fault(grow=2)) - area(Fault())) / circle == pytest.approx(2.05, abs=0.2)
  assert (area(Fault(grow=-1)) - area(Fault())) / circle == pytest.approx(-1, abs=0.2)
  wobbly = recording_faults.spoil_mask(alpha, FAULTS["wobble"], rng)
  assert set(np.unique(wobbly)) == {0, 255}
  bitten = recording_faults.spoil_mask(alpha, FAULTS["holes"], rng)
  assert ((alpha == 255) & (bitten == 0)).any() and ((alpha == 0) & (bitten == 255)).any()


def test_common_motion_is_no_error():
  true = recording_files.true_rig(_film(), False)
  shift = np.eye(4)
  shift[:3, 3] = 3.0, -2.0, 1.0
  poses = true.world_to_camera @ shift
  poses[:, :3, 3] *= 1.02
  moved = dataclasses.replace(true, world_to_camera=poses)
  shared, pixels = recording_measures.common_similarity(moved, true)
  assert pixels < 1e-4
  assert shared.scale == pytest.approx(1.02, abs=1e-6)
  turned = recording_faults.spoil_rig(true, Fault(turn=0.5), 0)
  assert recording_measures.common_similarity(turned, true)[1] > 0.1


def test_the_clean_recording_is_prepared_once_as_given():
  found = recording_treatments.all_treatments(["agouti"], ["wide", "none"], [0, 1], ["--size=64"])
  names = [(t.fault, t.seed, t.name) for t in found]
  assert len(set(names)) == len(names)
  wanted = itertools.product([0, 1], [("none", "given"), ("none", "prepared"),
                                      ("wide", "given"), ("wide", "prepared")])  # fmt: skip
  assert names == [(fault, seed, name) for seed, (fault, name) in wanted]
  alone = recording_treatments.all_treatments(["agouti"], ["wide"], [0], [])
  assert [(t.fault, t.name) for t in alone] == [
    ("none", "given"), ("wide", "given"), ("wide", "prepared")]  # fmt: skip


def test_table_of_losses_and_refusals():
  row = lambda fault, treatment, score, **more: {
    **{"subject": "agouti", "fault": fault, "treatment": treatment, "seed": 0, "moment": 3},
    **{"pixels": 1.0, "outline": 0.5, "refused": "", "lines": [], "iou": 0.9, "fg_psnr": score},
    **more,
  }
  lost = {k: v for k, v in row("swapped", "prepared", 0.0).items() if k not in ("fg_psnr", "iou")}
  rows = [
    row("none", "given", 26.0),
    row("wide", "given", 16.0),
    row("wide", "prepared", 25.0),
    {**lost, "refused": "Camera2 and Camera5 are exchanged", "lines": ["x"]},
  ]
  table = recording_scores.make_table(rows)
  wide = next(line for line in table.splitlines() if line.startswith("| wide"))
  assert "+10.00" in wide and "+1.00" in wide and "90%" in wide
  assert "refused 1 of 1" in table and "Camera2 and Camera5 are exchanged" in table
  treatments = recording_treatments.all_treatments(["agouti"], ["wide"], [0], [])
  left, kept = recording_scores.find_unfinished(treatments, rows[:2], 1)
  assert [(t.fault, t.name) for t in left] == [("wide", "prepared")]
  assert kept == rows[:2]
  json.dumps(rows)


def test_scored_moments_are_spread():
  size = FilmSize(moments=32, scored=2, width=90, views=1)
  np.testing.assert_array_equal(size.scored_moments, [8, 24])
